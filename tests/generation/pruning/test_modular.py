"""The filter as a block in the loops of diffusers' modular pipelines."""

from collections.abc import Callable
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

import diffusers
import PIL.Image
import pytest
import torch

from ma_agiqa_core import CallableScorer
from ma_agiqa_core.generation import UnsupportedPipelineError

modular_pipelines = pytest.importorskip("diffusers.modular_pipelines")
modular = pytest.importorskip("ma_agiqa_core.generation.pruning.modular")
pytestmark = pytest.mark.skipif(
    tuple(int(part) for part in diffusers.__version__.split(".")[:2]) < (0, 36), reason="refused before diffusers 0.36"
)

STEPS, ROWS = 5, 4
PARTS = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "unet", "transformer", "scheduler")
MEAN = CallableScorer(lambda pictures, prompts: [float(picture.mean()) for picture in pictures], name="mean")


@pytest.fixture(scope="session")
def make(tiny_pipelines: ModuleType) -> Callable[[str], Any]:
    """Modular pipelines out of the tiny ones' parts, each built once."""

    @cache
    def made(name: str) -> Any:
        source = tiny_pipelines.pipeline("flux" if name.startswith("flux") else "sdxl")
        kind = "FluxAutoBlocks" if name.startswith("flux") else "StableDiffusionXLAutoBlocks"
        pipe = getattr(modular_pipelines, kind)().init_pipeline()
        parts = {part: value for part, value in source.components.items() if part in PARTS}
        if "controlnet" in name:
            parts["controlnet"] = tiny_pipelines.controlnet(xl=True)
        if "inpaint_9" in name:
            parts["unet"] = tiny_pipelines.sdxl_unet(channels=9)
        pipe.update_components(**parts)
        pipe.set_progress_bar_config(disable=True)
        pipe.image_processor.register_to_config(vae_scale_factor=2)  # the tiny VAE's
        return pipe

    return made


def arguments(name: str, tiny: ModuleType, prompts: int = 1) -> dict[str, Any]:
    text = tiny.text(prompts)
    call = {"prompt": text["prompt"], "height": 16, "width": 16, "output_type": "pt", "output": "images"}
    call |= {"num_images_per_prompt": ROWS, "num_inference_steps": STEPS, "generator": tiny.generators(ROWS * prompts)}
    if name.startswith("flux"):
        call["max_sequence_length"] = tiny.LENGTH
    else:
        call["negative_prompt"] = text["negative_prompt"]
    if "img2img" in name:
        call |= {"image": pil(tiny), "strength": 0.8}
        if name.startswith("sdxl"):  # its image encoder takes no list of generators for one picture
            call["generator"] = tiny.generators(1)[0]
    if "inpaint" in name:
        call |= {"image": pil(tiny), "mask_image": pil(tiny, mask=True), "strength": 0.99}
    if "controlnet" in name:
        call["control_image"] = pil(tiny)
    return call


def pil(tiny: ModuleType, mask: bool = False) -> PIL.Image.Image:
    pixels = (tiny.masks if mask else tiny.pictures)(1)[0].mul(255).byte()
    return PIL.Image.fromarray(pixels[0].numpy() if mask else pixels.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("prune_at", [{0.2: 1}, {0.2: 3, 0.6: 2}, {0.4: 2, 0.8: 1}])
@pytest.mark.parametrize(
    "name",
    ["sdxl", "sdxl_img2img", "sdxl_inpaint", "sdxl_inpaint_9", "sdxl_controlnet", "flux", "flux_img2img"],
)
def test_survivors_are_the_pictures_of_the_whole_call(
    name: str, prune_at: dict[float, int], make: Callable[[str], Any], tiny_pipelines: ModuleType
) -> None:
    pipe = make(name)
    whole = pipe(**arguments(name, tiny_pipelines))
    assert len(tiny_pipelines.rows_that_differ(whole, whole.roll(1, 0))) == ROWS

    with modular.ModularQualityFilter(pipe, MEAN, prune_at=prune_at, preview="vae") as kept:
        pictures = pipe(**arguments(name, tiny_pipelines))

    assert len(kept.survivors) == len(pictures) == list(prune_at.values())[-1]
    assert not tiny_pipelines.rows_that_differ(pictures, whole[list(kept.survivors)])
    assert [len(step.kept) for step in kept.history] == list(prune_at.values())


@pytest.mark.parametrize("name", ["sdxl", "flux"])
def test_two_prompts_keep_their_own(name: str, make: Callable[[str], Any], tiny_pipelines: ModuleType) -> None:
    pipe = make(name)
    seen: list[list[str]] = []

    def score(pictures: Any, prompts: Any) -> list[float]:
        seen.append(prompts)
        return [float(picture.mean()) for picture in pictures]

    whole = pipe(**arguments(name, tiny_pipelines, prompts=2))
    scorer = CallableScorer(score, name="noting", needs_prompt=True)
    with modular.ModularQualityFilter(pipe, scorer, prune_at={0.4: 1}, preview="vae") as kept:
        pictures = pipe(**arguments(name, tiny_pipelines, prompts=2))

    assert [row // ROWS for row in kept.survivors] == [0, 1]
    assert not tiny_pipelines.rows_that_differ(pictures, whole[list(kept.survivors)])
    assert seen == [[tiny_pipelines.PROMPTS[0]] * ROWS + [tiny_pipelines.PROMPTS[1]] * ROWS]


@pytest.mark.parametrize("scheduler", ["euler_ancestral", "dpm_2m", "dpm_sde", "heun", "unipc"])
def test_schedulers(scheduler: str, make: Callable[[str], Any], tiny_pipelines: ModuleType) -> None:
    pipe = make("sdxl")
    was = pipe.scheduler
    try:
        pipe.update_components(scheduler=tiny_pipelines.SCHEDULERS[scheduler]())
        whole = pipe(**arguments("sdxl", tiny_pipelines))
        pipe.update_components(guider=type(pipe.guider)())  # after Heun's, a second call fails in diffusers itself
        with modular.ModularQualityFilter(pipe, MEAN, prune_at={0.3: 3, 0.6: 1}, preview="vae") as kept:
            pictures = pipe(**arguments("sdxl", tiny_pipelines))
        assert not tiny_pipelines.rows_that_differ(pictures, whole[list(kept.survivors)])

        if scheduler == "euler_ancestral":
            alone = arguments("sdxl", tiny_pipelines) | {"generator": tiny_pipelines.generators(1)[0]}
            refused = pytest.raises(ValueError, match="Expected a list of 4 generators")
            with refused, modular.ModularQualityFilter(pipe, MEAN, prune_at={0.3: 1}, preview="vae"):
                pipe(**alone)
    finally:
        pipe.update_components(scheduler=was, guider=type(pipe.guider)())


def test_evaluations_are_counted(make: Callable[[str], Any], tiny_pipelines: ModuleType) -> None:
    pipe = make("sdxl")
    with modular.ModularQualityFilter(pipe, MEAN, prune_at={0.4: 1}, preview="vae") as kept:
        pipe(**arguments("sdxl", tiny_pipelines))
    assert kept.network_evaluations == 2 * (2 * ROWS + 3 * 1)  # guidance counts 2


def test_an_error_leaves_the_pipeline_usable(make: Callable[[str], Any], tiny_pipelines: ModuleType) -> None:
    pipe = make("sdxl")
    whole = pipe(**arguments("sdxl", tiny_pipelines))
    before = repr(pipe.blocks)
    call = arguments("sdxl", tiny_pipelines)
    generators = list(call["generator"])
    broken = CallableScorer(lambda pictures, prompts: 1 / 0, name="broken")
    with (
        pytest.raises(ZeroDivisionError),
        modular.ModularQualityFilter(pipe, broken, prune_at={0.4: 1}, preview="vae"),
    ):
        pipe(**call)

    assert repr(pipe.blocks) == before
    assert "step" not in vars(pipe.scheduler)
    assert not pipe.unet._forward_pre_hooks
    assert call["generator"] == generators
    assert torch.equal(pipe(**arguments("sdxl", tiny_pipelines)), whole)


def test_changed_loops_are_refused_before_the_first_step(
    make: Callable[[str], Any], tiny_pipelines: ModuleType
) -> None:
    pipe = make("flux")
    (loop,) = modular.denoising_loops(pipe)
    was = loop.sub_blocks["denoiser"]

    class Other(type(was)):  # type: ignore[misc]
        pass

    try:
        loop.sub_blocks["denoiser"] = Other()
        with (
            pytest.raises(UnsupportedPipelineError, match=r"got FluxDenoiseStep with Other"),
            modular.ModularQualityFilter(pipe, MEAN, prune_at={0.4: 1}, preview="vae"),
        ):
            pipe(**arguments("flux", tiny_pipelines))
    finally:
        loop.sub_blocks["denoiser"] = was


def test_other_modular_pipelines_are_refused() -> None:
    pipe = (
        modular_pipelines.WanBlocks().init_pipeline()
        if hasattr(modular_pipelines, "WanBlocks")
        else SimpleNamespace(blocks=None)
    )
    with pytest.raises(
        UnsupportedPipelineError, match="Expected a modular pipeline with a denoising loop that is known"
    ):
        modular.ModularQualityFilter(pipe, MEAN, prune_at={0.4: 1}).__enter__()
