"""The filter in diffusers' modular pipelines, which have no callback: a block in their denoising loop.

All that has rows lies open there, in the loop's block state, so nothing has to be reached by hooks: the block at the
front of the loop judges the step before and cuts the fields that `_ROWS` names. The rest (scheduler history, previews,
decisions) is the callback's.

Known are the loops of SDXL and Flux as diffusers has them from 0.36 to 0.42. Others are refused: each model's loop has
fields of its own, and one that is missed makes other pictures.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import diffusers
import torch
from diffusers.modular_pipelines import LoopSequentialPipelineBlocks, ModularPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline_utils import InputParam
from torch import Tensor

from ...errors import MaAgiqaError
from ...scorers.scorer import Scorer
from ..pipelines.families import FAMILIES, Family, check_exact
from ..pipelines.schedulers import UnsupportedPipelineError
from ..preview.decoding import Preview
from .callback import QualityFilterCallback
from .row_pruner import BatchShrink, blended

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


class ModularQualityFilter(QualityFilterCallback):
    """Drops the worst rows of a modular pipeline's call on the way; the rows that stay come out as they would have.

    A context manager around one call of the pipeline. Entering puts a block at the front of its denoising loops,
    leaving takes it out again; the call itself needs no further argument:

        with ModularQualityFilter(pipe, scorer, prune_at={0.4: 3, 0.7: 1}) as filter:
            images = pipe(prompt=..., num_images_per_prompt=8, generator=[...], output="images")

    Args:
        pipe: A StableDiffusionXLModularPipeline or FluxModularPipeline with its components.
        scorer, prune_at, prompts, min_score, preview, local_files_only: As in `QualityFilterCallback`.
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
        super().__init__(
            pipe,
            scorer,
            prune_at=prune_at,
            prompts=prompts,
            min_score=min_score,
            preview=preview,
            local_files_only=local_files_only,
        )

    @property
    def tensor_inputs(self) -> list[str]:
        """None: a modular pipeline takes no callback."""
        return []

    def _forget(self) -> None:
        super()._forget()
        self._loops: list[Any] = []
        self._calls = 0

    def _family(self) -> Family:
        pipe = self._pipe
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
        return replace(family, blended=())  # the block cuts them

    def _wrap_check(self) -> None:
        """Puts the block into the loops; the call is checked by the block, before the first step."""
        assert self._shrink is not None
        self._shrink.remove()
        self._shrink = _LoopShrink(self._pipe, self._shrink.family)
        self._shrink.install()
        for loop in denoising_loops(self._pipe):
            blocks = loop.sub_blocks
            others = dict(blocks)
            blocks.clear()
            blocks[_BLOCK] = _FilterBlock(self, loop, [type(block) for block in others.values()])
            blocks.update(others)
            self._loops.append(loop)
        if not self._loops:
            raise UnsupportedPipelineError(
                f"Expected a denoising loop among the pipeline's blocks, got {type(self._pipe).__name__} without one."
            )

    def _restore(self) -> None:
        super()._restore()
        while self._loops:
            self._loops.pop().sub_blocks.pop(_BLOCK, None)

    def _scheduler_calls(self) -> int:
        return self._calls

    def before_step(self, loop: str, state: Any, step: int) -> None:
        """What the block does at the front of each step: at the first it checks the call, then it ends the last one.

        Args:
            loop: Name of the loop's class.
            state: The loop's block state; its fields with rows are cut.
            step: Index of the step that is about to begin.
        """
        if step == 0:
            self._calls = len(state.timesteps)
            prompt = state.prompt
            self._begin(
                {
                    "callback_on_step_end": self,
                    "prompt": [None] * state.batch_size if prompt is None else prompt,
                    "num_images_per_prompt": state.num_images_per_prompt,
                    "generator": state.generator,
                    "eta": state.eta,
                    "cross_attention_kwargs": getattr(state, "cross_attention_kwargs", None),
                    "joint_attention_kwargs": getattr(state, "joint_attention_kwargs", None),
                }
            )
            return
        shrink = self._shrink
        assert isinstance(shrink, _LoopShrink)
        shrink.state = state
        before = list(shrink.rows) or list(range(len(state.latents)))
        fields = {name: value for name in _ROWS[loop] if (value := getattr(state, name, None)) is not None}
        for name, value in self.callback_fn(self._pipe, step - 1, None, fields).items():
            setattr(state, name, value)
        if shrink.rows != before and isinstance(state.generator, list) and len(state.generator) == len(before):
            state.generator = [state.generator[before.index(row)] for row in shrink.rows]


class _LoopShrink(BatchShrink):
    """Finds what inpainting keeps in the block state instead of local variables."""

    state: Any = None

    def composed(self, x0: Tensor) -> Tensor:
        given, mask = (getattr(self.state, name, None) for name in ("image_latents", "mask"))
        if not isinstance(given, Tensor) or not isinstance(mask, Tensor) or given.shape[1:] != x0.shape[1:]:
            return x0
        return blended(x0, given, mask)


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
