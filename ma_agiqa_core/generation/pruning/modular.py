"""The filter in diffusers' modular pipelines, which have no callback: a block in their denoising loop.

All that has rows lies open there, in the loop's block state, so nothing has to be reached by hooks: the block at the
front of the loop ends the step before and cuts the fields that `_ROWS` names. The rest (scheduler history, previews)
is done by `RowPruner`, and `BatchFilter` decides, as in the callback.

Known are the loops of SDXL and Flux as diffusers has them from 0.36 to 0.42. Others are refused: each model's loop has
fields of its own, and one that is missed makes other pictures.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import diffusers
import torch
from diffusers.modular_pipelines import LoopSequentialPipelineBlocks, ModularPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline_utils import InputParam
from torch import Tensor

from ...errors import MaAgiqaError, MisusedCallbackError
from ...scorers.scorer import Scorer
from ..pipelines.families import FAMILIES, check_exact
from ..pipelines.family import Family
from ..pipelines.schedulers import UnsupportedPipelineError
from ..preview.decoding import Preview, Previewer
from .batch_filter import BatchFilter
from .checks import check_options, checked_prompts
from .row_pruner import KeptPicture, RowPruner, Stage
from .rule import PruningStep
from .schedule import PruneSchedule

_SDXL_ROWS = (
    "latents",
    "prompt_embeds",
    "negative_prompt_embeds",
    "pooled_prompt_embeds",
    "negative_pooled_prompt_embeds",
    "add_time_ids",
    "negative_add_time_ids",
    "ip_adapter_embeds",
    "negative_ip_adapter_embeds",
    "timestep_cond",
    "mask",
    "masked_image_latents",
    "image_latents",
    "noise",
)
_ROWS = {
    "StableDiffusionXLDenoiseStep": _SDXL_ROWS,
    "StableDiffusionXLInpaintDenoiseStep": _SDXL_ROWS,
    "StableDiffusionXLControlNetDenoiseStep": (*_SDXL_ROWS, "controlnet_cond"),
    "StableDiffusionXLInpaintControlNetDenoiseStep": (*_SDXL_ROWS, "controlnet_cond"),
    "FluxDenoiseStep": ("latents", "prompt_embeds", "pooled_prompt_embeds", "guidance"),
}
"""Fields of the block state with one entry per row, by the loop's class."""

_FAMILIES = {"StableDiffusionXLModularPipeline": "sdxl", "FluxModularPipeline": "flux"}
_BLOCK = "quality_filter"
_OLDEST = (0, 36)  # before it, Flux's blocks cannot even be built
_REMEDY = "Finish all candidates and choose among the pictures with ma_agiqa_core.rank."


class ModularQualityFilter:
    """Drops the worst rows of a modular pipeline's call on the way; the rows that stay come out as they would have.

    A context manager around one call of the pipeline. Entering puts a block at the front of its denoising loops,
    leaving takes it out again; the call itself needs no further argument.

    Args:
        pipe: A StableDiffusionXLModularPipeline or FluxModularPipeline with its components.
        scorer, prune_at, prompts, min_score, preview, local_files_only: As in `QualityFilterCallback`.

    Example:
        A modular pipeline needs its weights, so this one is not run in the tests.

        >>> with ModularQualityFilter(pipe, scorer, prune_at={0.4: 3, 0.7: 1}) as filter:  # doctest: +SKIP
        ...     images = pipe(prompt=prompt, num_images_per_prompt=8, generator=generators, output="images")
        >>> filter.survivors  # doctest: +SKIP
        [5]
    """

    def __init__(
        self,
        pipe: Any,
        scorer: Scorer,
        *,
        prune_at: Mapping[float, int] | None = None,
        prompts: str | Sequence[str] | None = None,
        min_score: float | None = None,
        preview: Preview = "auto",
        local_files_only: bool = False,
    ) -> None:
        self._schedule = PruneSchedule.of(prune_at)
        self._min_score = check_options(scorer, bool(self._schedule.stages), min_score, "batch")
        self._pipe, self._scorer, self._prompts = pipe, scorer, checked_prompts(prompts)
        self._preview, self._local_files_only = preview, local_files_only
        self._forget()

    def _forget(self) -> None:
        self._filter = BatchFilter(self._pipe, self._scorer, self._schedule, self._prompts, self._min_score)
        self._pruner: RowPruner | None = None
        self._previewer: Previewer | None = None
        self._installed: ExitStack | None = None
        self._state: Any = None  # of the loop that is running

    @property
    def survivors(self) -> tuple[int, ...]:
        """Original row of each returned picture."""
        return self._pruner.rows if self._pruner is not None else ()

    @property
    def history(self) -> tuple[PruningStep, ...]:
        """What was decided at each step."""
        return tuple(self._filter.history)

    @property
    def network_evaluations(self) -> int:
        """Rows times denoiser calls; a row with guidance counts 2."""
        return self._pruner.evaluations if self._pruner is not None else 0

    def __enter__(self) -> "ModularQualityFilter":
        """Checks the pipeline and puts the block into its loops.

        Raises:
            UnsupportedPipelineError: The survivors of this pipeline would be other pictures.
            ValueError: The scheduler's x0 or a preview is not known.
        """
        if self._installed is not None:
            raise MisusedCallbackError(
                "Expected a filter that is not in use, got one inside its own `with`. Make another."
            )
        self._forget()
        family = replace(_family_of(self._pipe), blended=())  # the block cuts them
        self._pruner = RowPruner(
            self._pipe, family, self._schedule.fractions, self._on_stage, kept_picture=self._kept_picture
        )
        if self._schedule.stages:
            self._previewer = Previewer(self._pipe, family, self._preview, local_files_only=self._local_files_only)
        with ExitStack() as stack:
            stack.enter_context(self._pruner)
            for loop in _loops_of(self._pipe):
                stack.callback(loop.sub_blocks.pop, _BLOCK, None)
                _put_first(loop, self)
            self._installed = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def before_step(self, loop: str, state: Any, step: int) -> None:
        """What the block does at the front of each step: at the first it checks the call, then it ends the last one.

        Args:
            loop: Name of the loop's class.
            state: The loop's block state; its fields with rows are cut.
            step: Index of the step that is about to begin.
        """
        assert self._pruner is not None
        self._state = state
        try:
            if step == 0:
                call = _call_of(state)
                self._filter.begin(call)
                self._pruner.begin(call, scheduler_calls=len(state.timesteps))
            else:
                self._end_step(loop, state, step - 1)
        except BaseException:
            self._restore()  # also if the error is caught inside the `with`
            raise

    def _end_step(self, loop: str, state: Any, step: int) -> None:
        assert self._pruner is not None
        before = self._pruner.rows or tuple(range(len(state.latents)))
        fields = {name: value for name in _ROWS[loop] if (value := getattr(state, name, None)) is not None}
        for name, value in self._pruner.end_step(step, fields).items():
            setattr(state, name, value)
        rows = self._pruner.rows
        if rows != before and isinstance(state.generator, list) and len(state.generator) == len(before):
            state.generator = [state.generator[before.index(row)] for row in rows]

    def _on_stage(self, stage: Stage) -> list[int]:
        assert self._pruner is not None
        assert self._previewer is not None
        return self._filter.survivors_of_stage(stage, self._pruner.previews(self._previewer))

    def _kept_picture(self) -> KeptPicture:
        given, mask = (getattr(self._state, name, None) for name in ("image_latents", "mask"))
        latents = self._state.latents
        if not isinstance(given, Tensor) or given.shape[1:] != latents.shape[1:]:
            return None, None
        return given, mask

    def _restore(self) -> None:
        installed, self._installed = self._installed, None
        self._state = None
        if installed is not None:
            installed.close()


def _family_of(pipe: Any) -> Family:
    """The family of a modular pipeline whose rows can be dropped exactly.

    Raises:
        UnsupportedPipelineError: They cannot.
        ValueError: Parts of it are missing.
    """
    if tuple(int(part) for part in diffusers.__version__.split(".")[:2]) < _OLDEST:
        raise UnsupportedPipelineError(
            f"Expected diffusers {_OLDEST[0]}.{_OLDEST[1]} or newer for modular pipelines, got "
            f"{diffusers.__version__}. Update it. {_REMEDY}"
        )
    kind = type(pipe)
    name = _FAMILIES.get(kind.__name__) if kind.__module__.split(".")[0] == "diffusers" else None
    if name is None:
        raise UnsupportedPipelineError(
            f"Expected one of diffusers' {', '.join(_FAMILIES)}, got {kind.__module__}.{kind.__name__}. {_REMEDY}"
        )
    family = next(family for family in FAMILIES if family.name == name)
    for part in ("scheduler", "vae", *family.denoisers):
        if getattr(pipe, part, None) is None:
            raise MaAgiqaError(f"Expected a pipeline with its {part}, got none. Call load_components() first.")
    check_exact(pipe, family)
    guider = getattr(pipe, "guider", None)
    if guider is not None and type(guider).__name__ != "ClassifierFreeGuidance":
        raise UnsupportedPipelineError(
            f"Expected ClassifierFreeGuidance as guider, got {type(guider).__name__}, which may carry rows from "
            f"step to step. {_REMEDY}"
        )
    return family


def _loops_of(pipe: Any) -> list[Any]:
    loops = list(denoising_loops(pipe))
    if not loops:
        raise UnsupportedPipelineError(
            f"Expected a denoising loop among the pipeline's blocks, got {type(pipe).__name__} without one."
        )
    return loops


def _put_first(loop: Any, filter: ModularQualityFilter) -> None:
    blocks = loop.sub_blocks
    others = dict(blocks)
    blocks.clear()
    blocks[_BLOCK] = _FilterBlock(filter, loop, [type(block) for block in others.values()])
    blocks.update(others)


def _call_of(state: Any) -> dict[str, Any]:
    """The call's arguments, under the names that pipelines have for them."""
    return {
        "prompt": [None] * state.batch_size if state.prompt is None else state.prompt,
        "num_images_per_prompt": state.num_images_per_prompt,
        "generator": state.generator,
        "eta": state.eta,
        "cross_attention_kwargs": getattr(state, "cross_attention_kwargs", None),
        "joint_attention_kwargs": getattr(state, "joint_attention_kwargs", None),
    }


class _FilterBlock(ModularPipelineBlocks):
    """The block in one loop; `filter` does the work."""

    def __init__(self, filter: ModularQualityFilter, loop: Any, blocks: Sequence[type]) -> None:
        super().__init__()
        self._filter = filter
        self._loop = type(loop).__name__
        expected = [block if isinstance(block, type) else type(block) for block in type(loop).block_classes]
        is_known = type(loop).__module__.split(".")[0] == "diffusers" and self._loop in _ROWS
        self._refused = "" if is_known and list(blocks) == expected else ", ".join(kind.__name__ for kind in blocks)

    @property
    def description(self) -> str:
        return "step within the denoising loop that drops the rows with the worst previews"

    @property
    def inputs(self) -> list[InputParam]:
        """With the defaults that they have in diffusers' blocks: others would change the pipeline's."""
        return [
            InputParam("prompt"),
            InputParam("batch_size"),
            InputParam("generator"),
            InputParam("num_images_per_prompt", default=1),
            InputParam("eta", default=0.0),
        ]

    @torch.no_grad()
    def __call__(self, components: Any, block_state: Any, i: int, t: Any) -> tuple[Any, Any]:
        if self._refused:
            raise UnsupportedPipelineError(
                f"Expected one of diffusers' loops {', '.join(_ROWS)} with its own blocks, got {self._loop} with "
                f"{self._refused}: which of its fields have rows is not known. {_REMEDY}"
            )
        self._filter.before_step(self._loop, block_state, i)
        return components, block_state


def denoising_loops(pipe: Any) -> Iterator[Any]:
    """All loops among the blocks of a modular pipeline, the very ones that it runs."""
    yield from _loops(getattr(pipe, "_blocks", None) or pipe.blocks)  # from 0.37 on `blocks` is a copy


def _loops(block: Any) -> Iterator[Any]:
    """All denoising loops within a block."""
    if isinstance(block, LoopSequentialPipelineBlocks):
        yield block
        return
    for part in getattr(block, "sub_blocks", None) or {}:
        yield from _loops(block.sub_blocks[part])
