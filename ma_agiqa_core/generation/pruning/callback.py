"""The filter in the denoising loop: previews are scored at given fractions of the steps, and the worst rows dropped.

What stays is the same picture as without the filter; see row_surgery.py for how, and pipelines/families.py for where.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from diffusers.callbacks import PipelineCallback

from ...errors import MisusedCallbackError
from ...scorers.scorer import Scorer
from ..preview.decoding import Preview, Previewer
from .batch_filter import BatchFilter, RowFilter
from .checks import check_early_scorer, check_installed, check_options, checked_prompts
from .look_cost import LookTimer
from .pipeline_loop import pipeline_frame
from .row_pruner import RowPruner, Stage, watched_calls
from .rule import PruningStep
from .schedule import PruneSchedule
from .sequential_filter import SequentialFilter

logger = logging.getLogger(__name__)

_OUTSIDE = "Expected the callback inside its `with`, got a call outside. Write `with ... as callback:`."
_FILTERS = {"batch": BatchFilter, "sequential": SequentialFilter}


class QualityFilterCallback(PipelineCallback):
    """Drops the worst rows of a pipeline call on the way; the rows that stay come out as they would have anyway.

    A context manager around one pipeline call; the object goes into `callback_on_step_end`, alone or among
    others in `MultiPipelineCallbacks`. Leaving restores everything, whatever was raised.

    Args:
        pipe: A pipeline of diffusers.
        scorer: Scores the previews.
        prune_at: How many rows of each prompt survive after these fractions of the scheduler calls that really
            happen: after max(1, round(fraction * calls)), never after the last. None drops nothing. A plan of
            `plan_pruning` or `calibrate` may also drop by margins.
        early_scorer: Judges the previews in place of `scorer`: an `EarlyScorer`, or any scorer.
        prompts: For the scorer: one, one per prompt of the call, or one per row. None takes those of the call.
        min_score: Rows below it go too, but the best of each prompt stays.
        preview: How previews are made, see `Previewer`.
        strategy: "batch", or "sequential": one row per pipeline call and any number of calls inside the `with`.
            Each is a candidate, which is stopped as soon as it cannot be among the best; what the pipeline
            returns for one that was stopped is not a finished picture. `survivors` then counts the calls.
        local_files_only: Never use the network for a preview decoder.

    Attributes:
        network_evaluations: Rows times denoiser calls; a row with guidance counts 2.

    Raises:
        ValueError: Arguments that contradict each other or the scorer.

    Example:
        A tiny random pipeline; a real one comes from `DiffusionPipeline.from_pretrained`.

        >>> import torch
        >>> from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
        >>> _ = torch.manual_seed(0)
        >>> blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
        >>> unet = UNet2DConditionModel(
        ...     8, **blocks, block_out_channels=(32,), cross_attention_dim=8, attention_head_dim=8
        ... )
        >>> scheduler = DDIMScheduler(clip_sample=False, steps_offset=1)
        >>> vae = AutoencoderKL(block_out_channels=(32,))
        >>> pipe = StableDiffusionPipeline(
        ...     vae, None, None, unet, scheduler, None, None, requires_safety_checker=False
        ... )
        >>> pipe.set_progress_bar_config(disable=True)
        >>> call = {"prompt_embeds": torch.randn(1, 4, 8), "guidance_scale": 1.0, "num_inference_steps": 4}
        >>> call |= {"height": 8, "width": 8}

        Of four pictures two are dropped after half of the steps:

        >>> from ma_agiqa_core import CallableScorer
        >>> brightness = CallableScorer(lambda images, prompts: images.mean((1, 2, 3)), name="brightness")
        >>> with QualityFilterCallback(pipe, brightness, prune_at={0.5: 2}, preview="vae") as callback:
        ...     images = pipe(
        ...         **call,
        ...         num_images_per_prompt=4,
        ...         generator=[torch.Generator().manual_seed(seed) for seed in range(4)],
        ...         callback_on_step_end=callback,
        ...         callback_on_step_end_tensor_inputs=callback.tensor_inputs,
        ...     ).images
        >>> len(images), len(callback.survivors), callback.history[0].step
        (2, 2, 1)
        >>> callback.network_evaluations  # 4 rows for two steps, 2 rows for two
        12
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
        strategy: str = "batch",
        local_files_only: bool = False,
    ) -> None:
        super().__init__()
        self._schedule = PruneSchedule.of(prune_at)
        self._min_score = check_options(scorer, bool(self._schedule.stages), min_score, strategy)
        check_early_scorer(early_scorer, scorer, self._schedule)
        self._pipe, self._scorer, self._prompts = pipe, scorer, checked_prompts(prompts)
        self._preview, self._local_files_only = preview, local_files_only
        self._strategy, self._early_scorer = strategy, early_scorer
        self._forget()

    def _forget(self) -> None:
        kind = _FILTERS[self._strategy]
        self._filter: RowFilter = kind(self._pipe, self._scorer, self._schedule, self._prompts, self._min_score)
        self._filter.early_scorer = self._early_scorer
        self._pruner: RowPruner | None = None
        self._previewer: Previewer | None = None
        self._installed: ExitStack | None = None
        self._timer = LookTimer()

    @property
    def tensor_inputs(self) -> list[str]:
        """For `callback_on_step_end_tensor_inputs`.

        Raises:
            RuntimeError: A pipeline that has been given the callback outside of its `with` asks for them.
        """
        if self._installed is None and pipeline_frame(self._pipe) is not None:
            raise MisusedCallbackError(_OUTSIDE)
        return self._filter.tensor_inputs

    @property
    def survivors(self) -> tuple[int, ...]:
        """Original row of each returned picture; with "sequential" the calls whose pictures are kept."""
        return self._filter.survivors(self._pruner.rows if self._pruner is not None else ())

    @property
    def history(self) -> tuple[PruningStep, ...]:
        """What was decided at each step; with "sequential" as if all candidates had been one batch."""
        return tuple(self._filter.history)

    @property
    def network_evaluations(self) -> int:
        return self._pruner.evaluations if self._pruner is not None else 0

    def __enter__(self) -> "QualityFilterCallback":
        """Checks the pipeline and installs what is needed.

        Raises:
            UnsupportedPipelineError: The survivors of this pipeline would be other pictures.
            ValueError: The scheduler's x0 or a preview is not known.
        """
        if self._installed is not None:
            raise MisusedCallbackError(
                "Expected a callback that is not in use, got one inside its own `with`. Make another."
            )
        self._forget()
        family = self._filter.family(self._preview)
        self._pruner = RowPruner(self._pipe, family, self._schedule.fractions, self._on_stage)
        if self._schedule.stages:
            self._previewer = Previewer(self._pipe, family, self._preview, local_files_only=self._local_files_only)
        with ExitStack() as stack:
            stack.enter_context(self._pruner)
            stack.enter_context(watched_calls(self._pipe, self._begin))
            self._installed = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Restores everything.

        Raises:
            RuntimeError: The pipeline was given another callback in place of this one, so that nothing was dropped.
        """
        was_passed_over = self._pruner is not None and self._pruner.was_passed_over
        self._restore()
        if error is None and self._strategy == "batch" and self.history:
            looks = self._timer.cost(self.history, self.history[0].scores.keys(), self.network_evaluations)
            if looks.advice:
                logger.warning("%s", looks.advice)
        if error is None and was_passed_over:
            raise MisusedCallbackError(
                "Expected the callback at the end of the steps, got none: the pipeline was given another one, and "
                "nothing has been dropped. Pass callback_on_step_end=callback, or both in MultiPipelineCallbacks."
            )

    def callback_fn(self, pipeline: Any, step_index: int, timestep: Any, callback_kwargs: dict[str, Any]) -> Any:
        """Called by the pipeline at the end of each step."""
        if self._installed is None or self._pruner is None:
            raise MisusedCallbackError(_OUTSIDE)
        try:
            return self._pruner.end_step(step_index, callback_kwargs)
        except BaseException:
            self._restore()  # also if the error is caught inside the `with`
            raise

    def _begin(self, call: dict[str, Any]) -> None:
        """Refuses a call before its first step; `call`: the pipeline's local variables, its arguments among them."""
        if self._installed is None or self._pruner is None:
            return
        try:
            check_installed(call, self.tensor_inputs)
            self._filter.begin(call)
            self._pruner.begin(call)
            self._timer = LookTimer()
        except BaseException:
            self._restore()
            raise

    def _on_stage(self, stage: Stage) -> list[int]:
        assert self._pruner is not None
        assert self._previewer is not None
        with self._timer.looking(len(stage.rows), self.network_evaluations):
            return self._filter.survivors_of_stage(stage, self._pruner.previews(self._previewer))

    def _restore(self) -> None:
        installed, self._installed = self._installed, None
        if installed is not None:
            installed.close()
