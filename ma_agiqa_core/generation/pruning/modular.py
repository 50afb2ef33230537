"""The filter in diffusers' modular pipelines, which have no callback: a block in their denoising loop.

The block at the front of the loop ends the step before. What the network is given is cut by `RowPruner`'s hooks, as in
the pipelines with a callback; the loop's other variables lie open in its block state. `BatchFilter` decides.

Known are the loops in pipelines/known/modular.py, with their own blocks. Others are refused: each model's loop has
fields of its own, and one that is missed makes other pictures.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import diffusers
import torch
from diffusers.modular_pipelines import LoopSequentialPipelineBlocks, ModularPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline_utils import InputParam

from ...errors import MaAgiqaError, MisusedCallbackError
from ...scorers.scorer import Scorer
from ..pipelines.families import check_exact
from ..pipelines.family import Family
from ..pipelines.known.modular import GUIDERS, MODULAR, family_of_loop
from ..pipelines.schedulers import UnsupportedPipelineError
from ..preview.decoding import Preview, Previewer
from .batch_filter import BatchFilter
from .checks import check_early_scorer, check_options, checked_prompts
from .look_cost import LookTimer
from .row_pruner import RowPruner, Stage
from .rule import PruningStep
from .schedule import PruneSchedule

logger = logging.getLogger(__name__)

_BLOCK = "quality_filter"
_OLDEST = (0, 36)  # before it, Flux's blocks cannot even be built
_REMEDY = "Finish all candidates and choose among the pictures with ma_agiqa_core.rank."


class ModularQualityFilter:
    """Drops the worst rows of a modular pipeline's call on the way; the rows that stay come out as they would have.

    A context manager around one call of the pipeline. Entering puts a block at the front of its denoising loops,
    leaving takes it out again; the call itself needs no further argument.

    Args:
        pipe: A modular pipeline of diffusers with its components, whose loop is in the table
            (`ma-agiqa families`).
        scorer, prune_at, early_scorer, prompts, min_score, preview, local_files_only: As in `QualityFilterCallback`.

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
        prune_at: Mapping[float, int] | Any = None,
        early_scorer: Any = None,
        prompts: str | Sequence[str] | None = None,
        min_score: float | None = None,
        preview: Preview = "auto",
        local_files_only: bool = False,
    ) -> None:
        self._schedule = PruneSchedule.of(prune_at)
        self._min_score = check_options(scorer, bool(self._schedule.stages), min_score, "batch")
        check_early_scorer(early_scorer, scorer, self._schedule)
        self._early_scorer = early_scorer
        self._pipe, self._scorer, self._prompts = pipe, scorer, checked_prompts(prompts)
        self._preview, self._local_files_only = preview, local_files_only
        self._forget()

    def _forget(self) -> None:
        self._filter = BatchFilter(self._pipe, self._scorer, self._schedule, self._prompts, self._min_score)
        self._filter.early_scorer = self._early_scorer
        self._pruner: RowPruner | None = None
        self._previewer: Previewer | None = None
        self._installed: ExitStack | None = None
        self._state: Any = None  # of the loop that is running
        self._timer = LookTimer()

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
        family = _family_of(self._pipe)
        self._pruner = RowPruner(self._pipe, family, self._schedule.fractions, self._on_stage, loop=_StateLoop(self))
        if self._schedule.stages:
            self._previewer = Previewer(self._pipe, family, self._preview, local_files_only=self._local_files_only)
        with ExitStack() as stack:
            stack.enter_context(self._pruner)
            for loop in denoising_loops(self._pipe):
                stack.callback(loop.sub_blocks.pop, _BLOCK, None)
                _put_first(loop, self)
            self._installed = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._restore()
        if kind is None and self.history:
            looks = self._timer.cost(self.history, self.history[0].scores.keys(), self.network_evaluations)
            if looks.advice:
                logger.warning("%s", looks.advice)

    @property
    def state(self) -> Any:
        """Block state of the loop that is running, or None."""
        return self._state

    def before_step(self, state: Any, step: int) -> None:
        """What the block does at the front of each step: at the first it checks the call, then it ends the last one.

        Args:
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
                self._timer = LookTimer()
            else:
                self._end_step(state, step - 1)
        except BaseException:
            self._restore()  # also if the error is caught inside the `with`
            raise

    def _end_step(self, state: Any, step: int) -> None:
        assert self._pruner is not None
        state.latents = self._pruner.end_step(step, {"latents": state.latents})["latents"]

    def _on_stage(self, stage: Stage) -> list[int]:
        assert self._pruner is not None
        assert self._previewer is not None
        with self._timer.looking(len(stage.rows), self.network_evaluations):
            return self._filter.survivors_of_stage(stage, self._pruner.previews(self._previewer))

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
    known = [family for loop in denoising_loops(pipe) if (family := _known(loop)) is not None]
    if not known:
        loops = ", ".join(type(loop).__name__ for loop in denoising_loops(pipe)) or "none"
        raise UnsupportedPipelineError(
            f"Expected a modular pipeline with a denoising loop that is known, got {type(pipe).__name__} with {loops}. "
            f"Known are {', '.join(name for loops in MODULAR for name in loops.loops)} of diffusers. {_REMEDY}"
        )
    family = known[0]
    for part in ("scheduler", "vae", *family.denoisers):
        if getattr(pipe, part, None) is None:
            raise MaAgiqaError(f"Expected a pipeline with its {part}, got none. Call load_components() first.")
    check_exact(pipe, family)
    guider = getattr(pipe, "guider", None)
    if guider is not None and type(guider).__name__ not in GUIDERS:
        raise UnsupportedPipelineError(
            f"Expected one of diffusers' guiders {', '.join(GUIDERS)}, got {type(guider).__name__}, which may mix rows "
            f"or carry them from step to step. {_REMEDY}"
        )
    return family


def _known(loop: Any) -> Family | None:
    is_own = type(loop).__module__.split(".")[0] == "diffusers"
    return family_of_loop(type(loop).__name__) if is_own else None


def _put_first(loop: Any, filter: ModularQualityFilter) -> None:
    blocks = loop.sub_blocks
    others = dict(blocks)
    blocks.clear()
    blocks[_BLOCK] = _FilterBlock(filter, loop, [type(block) for block in others.values()])
    blocks.update(others)


def _call_of(state: Any) -> dict[str, Any]:
    """The call's arguments, under the names that pipelines have for them."""
    prompts = len(state.latents) // (
        state.num_images_per_prompt or 1
    )  # `batch_size` counts rows in some, prompts in others
    return {
        "prompt": [None] * prompts if state.prompt is None else state.prompt,
        "num_images_per_prompt": state.num_images_per_prompt,
        "generator": state.generator,
        "eta": state.eta,
        "cross_attention_kwargs": getattr(state, "cross_attention_kwargs", None),
        "joint_attention_kwargs": getattr(state, "joint_attention_kwargs", None),
    }


class _StateLoop:
    """The variables of the loop that is running, for `RowPruner`: the fields of its block state."""

    def __init__(self, filter: ModularQualityFilter) -> None:
        self._filter = filter

    def read(self) -> dict[str, Any]:
        state = self._filter.state
        return {} if state is None else dict(state.as_dict())

    def write(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            setattr(self._filter.state, name, value)


class _FilterBlock(ModularPipelineBlocks):
    """The block in one loop; `filter` does the work."""

    def __init__(self, filter: ModularQualityFilter, loop: Any, blocks: Sequence[type]) -> None:
        super().__init__()
        self._filter = filter
        self._loop = type(loop).__name__
        expected = [block if isinstance(block, type) else type(block) for block in type(loop).block_classes]
        self._refused = (
            "" if _known(loop) is not None and list(blocks) == expected else ", ".join(kind.__name__ for kind in blocks)
        )

    @property
    def description(self) -> str:
        return "step within the denoising loop that drops the rows with the worst previews"

    @property
    def inputs(self) -> list[InputParam]:
        """With the defaults that they have in diffusers' blocks: others would change the pipeline's."""
        return [
            InputParam("prompt"),
            InputParam("generator"),
            InputParam("num_images_per_prompt", default=1),
            InputParam("eta", default=0.0),
        ]

    @torch.no_grad()
    def __call__(self, components: Any, block_state: Any, i: int, t: Any) -> tuple[Any, Any]:
        if self._refused:
            raise UnsupportedPipelineError(
                f"Expected a denoising loop of diffusers that is known, with its own blocks, got {self._loop} with "
                f"{self._refused}: which of its fields have rows is not known. {_REMEDY}"
            )
        self._filter.before_step(block_state, i)
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
