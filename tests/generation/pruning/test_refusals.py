"""Whatever is not known to be exact is refused before the first denoising step, and leaves the pipeline as it was."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import diffusers
import pytest
import torch

from ma_agiqa_core import CallableScorer
from ma_agiqa_core.generation import QualityFilterCallback, UnsupportedPipelineError
from ma_agiqa_core.generation.pipelines.families import FAMILIES, check_exact, family_of
from ma_agiqa_core.generation.pipelines.refused import REFUSED
from ma_agiqa_core.generation.pipelines.schedulers import SCHEDULERS, check_scheduler

ROWS = 4
BRIGHTNESS = CallableScorer(lambda pictures, prompts: pictures.mean((1, 2, 3)), name="brightness")
STOCHASTIC = ("euler_ancestral", "dpm_sde", "lcm")

Refused = Callable[..., None]


def grey(x0: torch.Tensor) -> torch.Tensor:
    """A preview without a decoder: the latents' mean."""
    return x0.flatten(1).mean(1).sigmoid().view(-1, 1, 1, 1).expand(-1, 3, 8, 8)


def fresh(tiny_pipelines: ModuleType, name: str, scheduler: str | None = None) -> Any:
    """A pipeline of the test's own."""
    family = {**tiny_pipelines.FAMILIES, **tiny_pipelines.REFUSED_FAMILIES}[name]
    pipe = family.make()
    pipe.scheduler = tiny_pipelines.SCHEDULERS[scheduler or family.usual]()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def refused() -> Refused:
    """A pruned call raises this error with this text before any denoiser has answered, and leaves nothing behind."""

    def refused(pipe: Any, arguments: dict[str, Any], match: str, kind: type[Exception] = ValueError) -> None:
        denoiser = getattr(pipe, "unet", None) or pipe.transformer
        answers: list[int] = []
        counter = denoiser.register_forward_hook(lambda *_: answers.append(1))
        own = dict(vars(pipe))
        hooks = dict(denoiser._forward_pre_hooks)
        try:
            with (
                pytest.raises(kind, match=match),
                QualityFilterCallback(pipe, BRIGHTNESS, prune_at={0.5: 1}, preview=grey) as callback,
            ):
                pipe(
                    **arguments,
                    output_type="latent",
                    callback_on_step_end=callback,
                    callback_on_step_end_tensor_inputs=callback.tensor_inputs,
                )
        finally:
            counter.remove()
        assert not answers
        assert denoiser._forward_pre_hooks == hooks
        assert "step" not in vars(pipe.scheduler)
        assert "check_inputs" not in vars(pipe)
        assert set(own) <= set(vars(pipe))

    return refused


@pytest.mark.parametrize("name", ["pixart_sigma", "pixart_alpha"])
def test_pixart_has_only_the_old_callback(tiny_pipelines: ModuleType, name: str) -> None:
    pipe = tiny_pipelines.pipeline(name)
    for strategy in ("batch", "sequential"):
        callback = QualityFilterCallback(pipe, BRIGHTNESS, prune_at={0.5: 1}, preview=grey, strategy=strategy)
        with pytest.raises(UnsupportedPipelineError, match=f"got {type(pipe).__name__}, which only has diffusers' old"):
            callback.__enter__()
        assert "step" not in vars(pipe.scheduler)


@pytest.mark.parametrize("name", REFUSED)
def test_what_was_read_and_found_wanting_is_refused_with_its_reason(name: str) -> None:
    kind = getattr(diffusers, name, None)
    if kind is None:
        pytest.skip("not in this diffusers")
    with pytest.raises(UnsupportedPipelineError, match=f"got {name}, which|got {name}, whose") as raised:
        family_of(object.__new__(kind))
    assert ("Use strategy='sequential'" in str(raised.value)) == REFUSED[name].sequential
    never = "callback_on_step_end(" not in inspect.getsource(kind.__call__)
    assert never == ("callback" in REFUSED[name].reason and "throws away" not in REFUSED[name].reason)


@pytest.mark.parametrize(
    "name",
    [
        "StableDiffusionPAGPipeline",
        "StableDiffusionInstructPix2PixPipeline",
        "StableDiffusionXLControlNetUnionPipeline",
        "StableDiffusionXLAdapterPipeline",
        "SanaPAGPipeline",
        "WanImageToVideoPipeline",
        "HunyuanDiTPipeline",
        "BriaPipeline",
    ],
)
def test_pipelines_whose_loop_was_not_checked_are_refused_by_name(name: str) -> None:
    kind = getattr(diffusers, name, None)
    if kind is None:
        pytest.skip("not in this diffusers")
    with pytest.raises(
        UnsupportedPipelineError, match=rf"got diffusers\..*\.{name}, which is not in the table"
    ) as raised:
        family_of(object.__new__(kind))
    assert "strategy='sequential'" in str(raised.value)


def test_subclasses_and_pipelines_of_the_same_name_are_refused(tiny_pipelines: ModuleType) -> None:
    """One line added to a subclass's loop can make other pictures."""
    pipe = fresh(tiny_pipelines, "sd")
    for bases in ((diffusers.StableDiffusionPipeline,), ()):
        kind = type("StableDiffusionPipeline", bases, {"__module__": "their.code"})
        with pytest.raises(
            UnsupportedPipelineError, match=r"got their\.code\.StableDiffusionPipeline, .*subclasses are others"
        ):
            family_of(object.__new__(kind))
    assert family_of(pipe).name == "stable-diffusion"


def test_the_tables_name_classes_that_exist() -> None:
    """A typo would refuse a pipeline forever. Older releases lack the youngest families."""
    names = {name for family in FAMILIES for name in family.pipelines}
    absent = {name for name in names if not hasattr(diffusers, name)}
    if tuple(int(part) for part in diffusers.__version__.split(".")[:2]) >= (0, 42):
        assert absent == set()
    assert [name for name in SCHEDULERS if not hasattr(diffusers, name)] == []


def test_every_pipeline_in_the_table_is_in_the_matrix(tiny_pipelines: ModuleType) -> None:
    names = {name for family in FAMILIES for name in family.pipelines if hasattr(diffusers, name)}
    tried = {type(tiny_pipelines.shared(name)).__name__ for name in tiny_pipelines.available()}
    assert names == tried


def caches() -> list[str]:
    """Names of the configurations that enable_cache takes, in this diffusers."""
    inexact = [name for name in dir(diffusers) if name.endswith(("CacheConfig", "BroadcastConfig"))]
    return [name for name in inexact if name != "TextKVCacheConfig"]


@pytest.mark.parametrize("config", caches())
def test_feature_caches_are_refused(tiny_pipelines: ModuleType, refused: Refused, config: str) -> None:
    pipe = fresh(tiny_pipelines, "flux")
    settings: dict[str, Any] = {}
    if config == "MagCacheConfig":
        settings = {"mag_ratios": torch.ones(5), "num_inference_steps": 5}
    if "Broadcast" in config or "Faster" in config:
        settings["current_timestep_callback"] = lambda: pipe._current_timestep
    if "Broadcast" in config:
        settings["spatial_attention_block_skip_range"] = 2
    pipe.transformer.enable_cache(getattr(diffusers, config)(**settings))
    refused(
        pipe,
        tiny_pipelines.FAMILIES["flux"].arguments(ROWS),
        r"keep features between steps.*transformer\.disable_cache\(\)",
        UnsupportedPipelineError,
    )
    pipe.transformer.disable_cache()
    check_exact(pipe, family_of(pipe))


def test_an_exact_cache_works(tiny_pipelines: ModuleType) -> None:
    """Keys and values of the texts, of all rows: forgotten when rows are dropped, and after the call."""
    if not hasattr(diffusers, "TextKVCacheConfig") or "nucleus" not in tiny_pipelines.available():
        pytest.skip("not in this diffusers")
    pipe = fresh(tiny_pipelines, "nucleus")

    def called(prune_at: dict[float, int]) -> tuple[torch.Tensor, tuple[int, ...]]:
        with QualityFilterCallback(pipe, BRIGHTNESS, prune_at=prune_at, preview="vae") as callback:
            output = pipe(
                **tiny_pipelines.FAMILIES["nucleus"].arguments(ROWS),
                output_type="pt",
                callback_on_step_end=callback,
                callback_on_step_end_tensor_inputs=callback.tensor_inputs,
            )
        return output.images, callback.survivors

    plain, _ = called({})
    pipe.transformer.enable_cache(diffusers.TextKVCacheConfig())
    for _ in range(2):
        whole, _ = called({})
        pruned, survivors = called({0.3: 3, 0.6: 1})
        assert (whole - plain).abs().max() <= 1e-4
        assert (pruned - whole[list(survivors)]).abs().max() <= 1e-4


def test_a_cache_hung_on_by_a_function_is_refused(tiny_pipelines: ModuleType, refused: Refused) -> None:
    """Without enable_cache the model does not know of it."""
    apply = pytest.importorskip("diffusers.hooks").apply_first_block_cache
    pipe = fresh(tiny_pipelines, "flux")
    apply(pipe.transformer, diffusers.FirstBlockCacheConfig())
    refused(pipe, tiny_pipelines.FAMILIES["flux"].arguments(ROWS), "keep features between steps")


def test_a_patched_network_is_refused(tiny_pipelines: ModuleType, refused: Refused) -> None:
    """DeepCache and its like put a function of their own over forward."""
    pipe = fresh(tiny_pipelines, "sd")
    block = pipe.unet.mid_block
    plain = block.forward
    block.forward = lambda *args, **kwargs: plain(*args, **kwargs)
    refused(pipe, tiny_pipelines.FAMILIES["sd"].arguments(ROWS), "got mid_block with another forward")
    del block.forward
    check_exact(pipe, family_of(pipe))


def test_attention_that_is_not_of_diffusers_is_refused(tiny_pipelines: ModuleType, refused: Refused) -> None:
    """Shared attention (StyleAligned, ConsiStory) makes a row's picture depend on the other rows."""
    from diffusers.models.attention_processor import AttnProcessor

    shared = type("SharedAttnProcessor", (AttnProcessor,), {"__module__": "their.code"})
    pipe = fresh(tiny_pipelines, "sd")
    pipe.unet.set_attn_processor(shared())
    refused(pipe, tiny_pipelines.FAMILIES["sd"].arguments(ROWS), r"got their\.code\.SharedAttnProcessor")


def test_dpm_solver_sde_is_refused(tiny_pipelines: ModuleType, refused: Refused) -> None:
    """One Brownian tree for the whole batch. Without torchsde diffusers has no such class to try."""
    kind = type("DPMSolverSDEScheduler", (), {"__module__": "diffusers.schedulers", "config": {}})
    with pytest.raises(UnsupportedPipelineError, match=r"Brownian tree .* algorithm_type='sde-dpmsolver\+\+'"):
        check_scheduler(kind())


@pytest.mark.parametrize(
    "name",
    [
        "KDPM2DiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "DPMSolverSinglestepScheduler",
        "EDMEulerScheduler",
        "LMSDiscreteScheduler",
        "TCDScheduler",
        "DDIMInverseScheduler",
        "SASolverScheduler",
        "FlowMatchLCMScheduler",
        "CMStochasticIterativeScheduler",
    ],
)
def test_schedulers_that_were_not_checked_are_refused_by_name(name: str) -> None:
    try:
        scheduler = getattr(diffusers, name)()
    except (AttributeError, ImportError):
        pytest.skip("not in this diffusers")
    with pytest.raises(UnsupportedPipelineError, match=rf"DDIMScheduler, .*got diffusers\..*{name}"):
        check_scheduler(scheduler)


def test_a_scheduler_of_the_users_own_is_refused(tiny_pipelines: ModuleType, refused: Refused) -> None:
    pipe = fresh(tiny_pipelines, "sd")
    kind: Any = type("DDIMScheduler", (diffusers.DDIMScheduler,), {"__module__": "their.code"})
    pipe.scheduler = kind.from_config(pipe.scheduler.config)
    refused(pipe, tiny_pipelines.FAMILIES["sd"].arguments(ROWS), r"got their\.code\.DDIMScheduler")


@pytest.mark.parametrize("scheduler", STOCHASTIC)
@pytest.mark.parametrize("given", ["one", "none", "one in a list for all", "too few"])
def test_noise_needs_a_generator_for_each_row(
    tiny_pipelines: ModuleType, refused: Refused, scheduler: str, given: str
) -> None:
    arguments = tiny_pipelines.FAMILIES["sd"].arguments(ROWS)
    (one,) = tiny_pipelines.generators(1)
    arguments["generator"] = {"one": one, "none": None, "one in a list for all": [one] * ROWS, "too few": [one]}[given]
    refused(tiny_pipelines.pipeline("sd", scheduler), arguments, "Expected a list of 4 generators")


def test_ddim_with_eta_needs_a_generator_for_each_row(tiny_pipelines: ModuleType, refused: Refused) -> None:
    arguments = tiny_pipelines.FAMILIES["sd"].arguments(ROWS) | {"eta": 0.5, "generator": None}
    refused(tiny_pipelines.pipeline("sd", "ddim"), arguments, "Expected a list of 4 generators")


@pytest.mark.parametrize("name", ["flux", "sd3", "sana", "wan"])
def test_stochastic_flow_matching_is_refused(tiny_pipelines: ModuleType, refused: Refused, name: str) -> None:
    """Most pipelines give the scheduler no generators for it, and older releases of diffusers would not use them."""
    pipe = tiny_pipelines.pipeline(name, "flow_euler_stochastic")
    refused(pipe, tiny_pipelines.FAMILIES[name].arguments(ROWS), "stochastic_sampling=True", UnsupportedPipelineError)


def test_noise_that_the_pipeline_gives_no_generators_for_is_refused(
    tiny_pipelines: ModuleType, refused: Refused
) -> None:
    pipe = fresh(tiny_pipelines, "wan", "flow_dpm")
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, algorithm_type="sde-dpmsolver++")
    refused(
        pipe,
        tiny_pipelines.FAMILIES["wan"].arguments(ROWS),
        "WanPipeline gives it no generators",
        UnsupportedPipelineError,
    )


@pytest.mark.parametrize("given", ["one", "none"])
@pytest.mark.parametrize("name", ["sd", "flux"])
def test_one_generator_is_enough_without_noise(tiny_pipelines: ModuleType, name: str, given: str) -> None:
    pipe = tiny_pipelines.pipeline(name)
    arguments = tiny_pipelines.FAMILIES[name].arguments(ROWS)
    pictures = []
    for prune_at in ({}, {0.5: 1}):
        torch.manual_seed(0)
        (one,) = tiny_pipelines.generators(1)
        arguments["generator"] = one if given == "one" else None
        with QualityFilterCallback(pipe, BRIGHTNESS, prune_at=prune_at, preview=grey) as callback:
            output = pipe(
                **arguments,
                output_type="pt",
                callback_on_step_end=callback,
                callback_on_step_end_tensor_inputs=callback.tensor_inputs,
            )
        pictures.append(output.images)
    (row,) = callback.survivors
    assert (pictures[1][0] - pictures[0][row]).abs().max() <= 1e-4


def test_attention_arguments_with_tensors_are_refused(tiny_pipelines: ModuleType, refused: Refused) -> None:
    arguments = tiny_pipelines.FAMILIES["sd"].arguments(ROWS)
    arguments["cross_attention_kwargs"] = {"gligen": {"boxes": torch.zeros(ROWS, 2, 4)}}
    refused(tiny_pipelines.pipeline("sd"), arguments, "without tensors, got one in 'gligen'", UnsupportedPipelineError)
