"""The filter in the loop of every modular pipeline that it knows, and under every guider."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from ma_agiqa_core import CallableScorer

modular = pytest.importorskip("ma_agiqa_core.generation.pruning.modular")
tiny_pipelines = pytest.importorskip("tiny_pipelines")

ROWS = 4
MEAN = CallableScorer(lambda pictures, prompts: [float(picture.mean()) for picture in pictures], name="mean")


@pytest.fixture
def made() -> Callable[[str], Any]:
    def made(name: str) -> Any:
        try:
            return tiny_pipelines.shared_modular(name)
        except (AttributeError, ImportError) as absent:
            pytest.skip(f"not in this diffusers: {absent}")

    return made


@pytest.fixture(scope="module")
def sdxl_modular() -> Any:
    from diffusers import modular_pipelines

    pipe: Any = modular_pipelines.StableDiffusionXLAutoBlocks()
    pipe = pipe.init_pipeline()
    parts = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "unet", "scheduler")
    source = tiny_pipelines.pipeline("sdxl")
    pipe.update_components(**{name: getattr(source, name) for name in parts})
    pipe.set_progress_bar_config(disable=True)
    pipe.image_processor.register_to_config(vae_scale_factor=2)
    return pipe


def assert_survivors_are_those_of_the_whole(pipe: Any, call: Callable[[], dict[str, Any]], prompts: int = 1) -> Any:
    whole = torch.as_tensor(pipe(**call()))
    assert len(whole) == prompts * ROWS
    assert len(tiny_pipelines.rows_that_differ(whole, whole.roll(1, 0))) == len(whole)
    with modular.ModularQualityFilter(pipe, MEAN, prune_at={0.3: 3, 0.6: 1}, preview="vae") as kept:
        pictures = torch.as_tensor(pipe(**call()))
    assert [row // ROWS for row in kept.survivors] == list(range(prompts))
    assert not tiny_pipelines.rows_that_differ(pictures, whole[list(kept.survivors)])
    return kept


@pytest.mark.parametrize("name", tiny_pipelines.MODULAR)
def test_survivors_are_the_pictures_of_the_whole_call(made: Callable[[str], Any], name: str) -> None:
    tiny = tiny_pipelines.MODULAR[name]
    assert_survivors_are_those_of_the_whole(
        made(name), lambda: tiny.arguments(ROWS, prompts=tiny.prompts), tiny.prompts
    )


def test_every_loop_that_is_known_is_in_a_tiny_pipeline(made: Callable[[str], Any]) -> None:
    """But those that tests/generation/pruning/test_modular.py runs."""
    known = {loop for loops in modular.MODULAR if loops.family not in ("sdxl", "flux") for loop in loops.loops}
    here = [name for name in tiny_pipelines.MODULAR if not name.startswith("flux_")]
    assert known <= {type(loop).__name__ for name in here for loop in modular.denoising_loops(made(name))}


def test_layers_are_refused(made: Callable[[str], Any]) -> None:
    """Qwen-Image-Layered hands out layers of one row as another's, as its pipeline with a callback does."""
    from diffusers.modular_pipelines import qwenimage

    from ma_agiqa_core.generation import UnsupportedPipelineError

    blocks: Any = qwenimage.QwenImageLayeredAutoBlocks()
    pipe = blocks.init_pipeline()
    with pytest.raises(UnsupportedPipelineError, match="got QwenImageLayeredModularPipeline with QwenImageLayeredDeno"):
        modular.ModularQualityFilter(pipe, MEAN, prune_at={0.4: 1}).__enter__()


def test_memory_of_dropped_rows_is_freed(made: Callable[[str], Any]) -> None:
    """Keys and values of Qwen-Image 2.1."""
    pipe, tiny = made("qwen_image_21_turbo"), tiny_pipelines.MODULAR["qwen_image_21_turbo"]
    seen: list[list[int]] = []

    def watch(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append([len(layer.k) for layer in kwargs["kv_cache"].layer_caches if layer.k is not None])

    with modular.ModularQualityFilter(pipe, MEAN, prune_at={0.3: 3, 0.6: 1}, preview="vae"):
        hook = pipe.transformer.register_forward_pre_hook(watch, with_kwargs=True)
        try:
            pipe(**tiny.arguments(ROWS))
        finally:
            hook.remove()

    assert seen == [[], [4, 4], [3, 3], [1, 1], [1, 1]]


def test_an_early_scorer_judges_the_previews(made: Callable[[str], Any]) -> None:
    class Dark:
        def at(self, fraction: float) -> CallableScorer:
            return CallableScorer(lambda pictures, prompts: [-float(p.mean()) for p in pictures], name="dark")

    pipe, tiny = made("krea2"), tiny_pipelines.MODULAR["krea2"]
    survivors = []
    for scorer, early in ((MEAN, Dark()), (Dark().at(0.5), None)):
        with modular.ModularQualityFilter(pipe, scorer, prune_at={0.5: 1}, early_scorer=early, preview="vae") as kept:
            pipe(**tiny.arguments(ROWS))
        survivors.append(kept.survivors)
    assert survivors[0] == survivors[1]
    with pytest.raises(ValueError, match=r"early_scorer with \.info and \.score, got 3"):
        modular.ModularQualityFilter(pipe, MEAN, prune_at={0.5: 1}, early_scorer=3)
    with pytest.raises(ValueError, match="prune_at with early_scorer, got none"):
        modular.ModularQualityFilter(pipe, MEAN, early_scorer=Dark())


FQN: dict[str, Any] = {"indices": [0], "fqn": "mid_block.attentions.0.transformer_blocks"}


def guiders() -> Iterator[tuple[str, dict[str, Any]]]:
    import diffusers
    from diffusers.hooks import LayerSkipConfig
    from diffusers.hooks.smoothed_energy_guidance_utils import SmoothedEnergyGuidanceConfig

    skipped = LayerSkipConfig(**FQN)
    attention = LayerSkipConfig(**FQN, skip_attention=False, skip_ff=False, skip_attention_scores=True)
    momentum = {"adaptive_projected_guidance_momentum": -0.5}
    options: dict[str, dict[str, Any]] = {
        "ClassifierFreeGuidance": {},
        "ClassifierFreeZeroStarGuidance": {},
        "AdaptiveProjectedGuidance": momentum,
        "AdaptiveProjectedMixGuidance": {**momentum, "adaptive_projected_guidance_start_step": 1},
        "AutoGuidance": {"auto_guidance_config": LayerSkipConfig(**FQN, dropout=1.0)},
        "PerturbedAttentionGuidance": {"perturbed_guidance_config": attention, "perturbed_guidance_start": 0.0},
        "SkipLayerGuidance": {
            "skip_layer_config": skipped,
            "skip_layer_guidance_start": 0.0,
            "skip_layer_guidance_stop": 1.0,
        },
        "SmoothedEnergyGuidance": {
            "seg_guidance_config": SmoothedEnergyGuidanceConfig(**FQN),
            "seg_guidance_start": 0.0,
            "seg_guidance_stop": 1.0,
        },
        "TangentialClassifierFreeGuidance": {},
    }
    return ((name, given) for name, given in options.items() if hasattr(diffusers.guiders, name))


@pytest.mark.parametrize(
    ("guider", "options"), list(guiders()), ids=lambda given: given if isinstance(given, str) else ""
)
def test_guiders(sdxl_modular: Any, guider: str, options: dict[str, Any]) -> None:
    import diffusers

    pipe, was = sdxl_modular, sdxl_modular.guider

    def call() -> dict[str, Any]:
        text = tiny_pipelines.text(1)
        size = {"height": 16, "width": 16, "output_type": "pt", "output": "images"}
        return (
            text
            | size
            | {"num_images_per_prompt": ROWS, "num_inference_steps": 5, "generator": tiny_pipelines.generators(ROWS)}
        )

    try:
        pipe.update_components(guider=getattr(diffusers.guiders, guider)(**options))
        assert_survivors_are_those_of_the_whole(pipe, call)
    finally:
        pipe.update_components(guider=was)


def test_a_guider_by_the_size_of_the_prediction(made: Callable[[str], Any]) -> None:
    """It does not take pictures of four dimensions in diffusers 0.42."""
    import diffusers

    if not hasattr(diffusers.guiders, "MagnitudeAwareGuidance"):
        pytest.skip("not in this diffusers")
    pipe, tiny = made("krea2"), tiny_pipelines.MODULAR["krea2"]
    was = pipe.guider
    try:
        pipe.update_components(guider=diffusers.guiders.MagnitudeAwareGuidance())
        assert_survivors_are_those_of_the_whole(pipe, lambda: tiny.arguments(ROWS))
    finally:
        pipe.update_components(guider=was)


def test_other_guiders_are_refused(made: Callable[[str], Any]) -> None:
    from ma_agiqa_core.generation import UnsupportedPipelineError

    class OwnGuidance:
        pass

    pipe = made("krea2")
    was = pipe.guider
    try:
        pipe.guider = OwnGuidance()
        with pytest.raises(UnsupportedPipelineError, match="got OwnGuidance, which may mix rows"):
            modular.ModularQualityFilter(pipe, MEAN, prune_at={0.4: 1}).__enter__()
    finally:
        pipe.guider = was
