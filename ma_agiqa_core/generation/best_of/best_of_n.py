"""Best of N: many candidates from many seeds, the poor ones dropped early, the best returned."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

from ...arguments.numbers import plain
from ...errors import MaAgiqaError
from ...records.png_metadata import PictureMetadata, save_picture
from ...scorers.scorer import Scorer
from ...scorers.watching import Watch, all_of, as_observers, watched
from ..pipelines.rows_of_a_call import pictures_per_row, rows_argument
from ..planning.plan import PruningPlan
from ..pruning.look_cost import LookCost
from ..pruning.rule import PruningStep
from ..pruning.schedule import PruneSchedule
from .batches import BatchLimit, Request, best, finished_scores, generate_in_batches
from .finished import as_pil
from .processes import Processes
from .request import (
    Options,
    argument_of,
    arguments_per_prompt,
    budgeted,
    check_pipeline,
    check_reproducible,
    check_scale,
    check_scorers,
    checked_frames,
    found_preview,
    prompt_list,
    try_early_scorer,
)
from .sequential import generate_sequentially

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BestOfN:
    """The best candidates of one prompt, best first. Candidate i has the seed `seed + i`.

    Attributes:
        images: As the pipeline makes them; PIL unless another `output_type` was asked for. Of several frames
            (`num_frames`) each is a whole video: a list of PIL pictures, or (F, H, W, 3) or (F, 3, H, W).
        scores: Of the finished pictures.
        seeds: Giving the pipeline alone one of these makes that picture again.
        history: What was dropped when, candidates numbered from 0 across all batches, processes and rounds.
        network_evaluations: Rows times calls of the denoising network, in all processes; a row with guidance
            counts 2. Batches that ran out of memory are not counted.
        met_min_score: Whether all of these reach `min_score`; True without one.
        observed: The scores of `observe` for these pictures; a tuple for each scorer where it is a list; None without.
        paths: The files written; empty without `save_dir`, and in all processes but the first.
        watch: What each of `observe` says of choosing by the scorer, among the finished candidates: its share of its
            own gain.
    """

    images: tuple[Any, ...]
    scores: tuple[float, ...]
    seeds: tuple[int, ...]
    history: tuple[PruningStep, ...]
    network_evaluations: int
    met_min_score: bool
    observed: tuple[float, ...] | tuple[tuple[float, ...], ...] | None = None
    paths: tuple[Path, ...] = ()
    watch: tuple[Watch, ...] = ()


class NoneGoodEnoughError(MaAgiqaError, RuntimeError):
    """No candidate reached `min_score`, and this was to be an error.

    Attributes:
        result: What would have been returned.
    """

    def __init__(self, message: str, result: BestOfN) -> None:
        super().__init__(message)
        self.result = result


@overload
def best_of_n(pipe: Any, scorer: Scorer, prompt: str | None, **options: Any) -> BestOfN: ...
@overload
def best_of_n(pipe: Any, scorer: Scorer, prompt: Sequence[str], **options: Any) -> list[BestOfN]: ...
def best_of_n(
    pipe: Any,
    scorer: Scorer,
    prompt: str | Sequence[str] | None,
    *,
    n: int = 8,
    keep: int = 1,
    prune_at: Mapping[float, int] | PruningPlan | None = None,
    budget: int | None = None,
    early_scorer: Any = None,
    seed: int = 0,
    batch_size: int | None = None,
    min_score: float | None = None,
    max_rounds: int = 1,
    on_none: str = "best",
    observe: Scorer | Sequence[Scorer] | None = None,
    preview: Any = "auto",
    strategy: str = "batch",
    frames: Sequence[int] = (0,),
    save_dir: str | Path | None = None,
    local_files_only: bool = False,
    **pipe_kwargs: Any,
) -> BestOfN | list[BestOfN]:
    """Makes n candidates and returns the best.

    Pruning goes across all candidates, in whatever batches they are made. Under `accelerate launch` the candidates
    are spread over the processes, each with its `pipe` on its own GPU; all return the same.

    Args:
        pipe: A diffusers pipeline.
        scorer: What chooses. It is given PIL pictures: previews, and then the finished ones.
        prompt: One, or a list: every prompt has the same seeds, and a list of results comes back. Where the pipeline
            is given `prompt_embeds` instead, this is only what the scorer is told, or None.
        n: Candidates per round.
        keep: How many to return.
        prune_at: Fractions of the steps with the number of candidates that survive them, e.g. {0.4: 4, 0.7: 2}.
            None finishes all, which works with every pipeline. A plan of `plan_pruning` or `calibrate` may also drop
            by margins; `keep` candidates stay even then.
        budget: With a plan as `prune_at`: as many network evaluations as this many finished candidates take, spent on
            more of them that are pruned, in place of n; never more.
        early_scorer: Judges the previews in place of `scorer`: an `EarlyScorer`, or any scorer.
        seed: Candidate i begins with `torch.Generator("cpu").manual_seed(seed + i)`.
        batch_size: Candidates at a time. None begins with 16 on cuda, 4 elsewhere, and halves where memory runs out.
            Always one at a time where the pipeline would mix up the rows of a batch.
        min_score: What the finished pictures are to reach. Previews are not held to it: they are blurred.
        max_rounds: With `min_score`: n more candidates, with the seeds that follow, until `keep` of them reach it,
            at most this often.
        on_none: If none reaches `min_score`: "best" returns the best all the same, with `met_min_score` False;
            "raise" raises.
        observe: A second scorer, or several, that only watch: they score all finished candidates, and the result says
            how much of its own gain each gets. The log warns where choosing costs one of them.
        preview: How previews are made, as in `QualityFilterCallback`.
        strategy: "batch", or "sequential": one candidate at a time, stopped when it cannot be among the best.
        frames: Of a video, the frames that finished candidates are judged by, counted from 0: their mean score.
            Previews are judged by the first.
        save_dir: Folder for the best, as PNGs that carry score, seed and settings.
        local_files_only: Never use the network for a preview decoder.
        pipe_kwargs: Further arguments of the pipeline. Lists of texts as long as `prompt` are split up, one
            text for each prompt.

    Raises:
        UnsupportedPipelineError: In this pipeline, or with this scheduler, rows cannot be dropped exactly.
        NoneGoodEnoughError: `on_none` is "raise" and no candidate reaches `min_score`.
        ValueError: A wrong argument or scorer; raised before the first denoising step.

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

        The best of four, of which two are dropped after half of the steps:

        >>> import numpy as np
        >>> from ma_agiqa_core import CallableScorer
        >>> contrast = CallableScorer(lambda images, prompts: [float(np.std(image)) for image in images], name="std")
        >>> result = best_of_n(pipe, contrast, None, n=4, prune_at={0.5: 2}, preview="vae", **call)
        >>> len(result.images), result.seeds[0] in result.history[0].kept, result.network_evaluations
        (1, True, 12)
    """
    if budget is not None:
        prune_at = budgeted(prune_at, budget)
        n = prune_at.n
    options = Options(
        n=n,
        keep=keep,
        schedule=PruneSchedule.of(prune_at),
        seed=seed,
        batch_size=batch_size,
        min_score=min_score,
        max_rounds=max_rounds,
        on_none=on_none,
        strategy=strategy,
    )
    prompts, in_list = prompt_list(prompt)
    check_pipeline(pipe, pipe_kwargs, is_pruned=bool(options.schedule.stages))
    count_name, per_row = rows_argument(pipe, pipe_kwargs), pictures_per_row(pipe, pipe_kwargs)
    check_reproducible(pipe, pipe_kwargs)
    judged = checked_frames(pipe, pipe_kwargs, frames, save_dir)
    preview = found_preview(pipe, preview, options, local_files_only=local_files_only)
    calls = arguments_per_prompt(prompts, {"output_type": "pil", **pipe_kwargs}, in_list)
    requests = [
        Request(
            pipe=pipe,
            scorer=scorer,
            prompt=text,
            arguments=call,
            rows_argument=count_name,
            per_row=per_row,
            schedule=options.schedule,
            preview=preview,
            seed=options.seed,
            early_scorer=early_scorer,
            frames=judged,
        )
        for text, call in zip(prompts, calls, strict=True)
    ]
    check_scale(scorer, options)
    observers = as_observers(observe)
    check_scorers(scorer, observers, prompts)
    try_early_scorer(early_scorer, scorer, options.schedule, prompts)
    folder = None if save_dir is None else Path(save_dir)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    processes = Processes()
    limit = BatchLimit.of(pipe, options.batch_size if count_name else 1)
    results = []
    looks = LookCost()
    for number, request in enumerate(requests):
        try:
            result, look_cost = _choose(
                request, options, limit, observers, processes, is_list=isinstance(observe, list | tuple)
            )
            _check_reached(result, options, request.prompt)
            if folder is not None and processes.index == 0:
                prefix = f"prompt{number:03d}-" if in_list else ""
                result = replace(result, paths=_save(result, request, folder, prefix))
        except Exception as error:
            processes.tell_failure(error)
            raise
        results.append(result)
        looks += look_cost
    if looks.advice:
        logger.warning("%s", looks.advice)
    _tell_watches([result.watch for result in results])
    return results if in_list else results[0]


def _choose(
    request: Request,
    options: Options,
    limit: BatchLimit,
    observers: Sequence[Scorer],
    processes: Processes,
    *,
    is_list: bool,
) -> tuple[BestOfN, LookCost]:
    generate = generate_sequentially if options.strategy == "sequential" else generate_in_batches
    scores: dict[int, float] = {}
    pictures: dict[int, Any] = {}  # this process's, of those that are ahead so far
    history: list[PruningStep] = []
    seen: list[dict[int, float]] = [{} for _ in observers]
    evaluations = 0
    looks = LookCost()
    for start in range(0, options.n * options.max_rounds, options.n):
        made = generate(request, range(start, start + options.n), limit, processes)
        history += made.history
        evaluations += made.evaluations
        looks += made.look_cost
        scores |= finished_scores(request, request.scorer, made.pictures, processes)
        for observer, found in zip(observers, seen, strict=True):
            found |= finished_scores(request, observer, made.pictures, processes)
        ahead = best(scores, options.keep)
        pictures = {number: picture for number, picture in (pictures | made.pictures).items() if number in ahead}
        if options.min_score is None or min(scores[number] for number in ahead) >= options.min_score:
            break
    chosen = sorted(ahead, key=lambda number: (-scores[number], number))
    watch = (
        watched(request.scorer.info.name, observer.info.name, [(list(scores.values()), [found[n] for n in scores])])
        for observer, found in zip(observers, seen, strict=True)
    )
    everyones = {number: picture for part in processes.exchange(pictures) for number, picture in part.items()}
    result = BestOfN(
        images=tuple(everyones[number] for number in chosen),
        scores=tuple(scores[number] for number in chosen),
        seeds=tuple(request.seed + number for number in chosen),
        history=tuple(history),
        network_evaluations=evaluations,
        met_min_score=options.min_score is None or scores[chosen[-1]] >= options.min_score,
        observed=_observed(seen, chosen, is_list=is_list),
        watch=tuple(watch),
    )
    return result, looks


def _observed(
    seen: Sequence[Mapping[int, float]], chosen: Sequence[int], *, is_list: bool
) -> tuple[float, ...] | tuple[tuple[float, ...], ...] | None:
    """What the observers say of the chosen, in the form that `observe` was given in."""
    scores = tuple(tuple(found[number] for number in chosen) for found in seen)
    return scores if is_list else scores[0] if scores else None


def _tell_watches(watches: Sequence[tuple[Watch, ...]]) -> None:
    """Over all prompts, a line for each scorer that watched, and a warning where choosing costs it."""
    for of_one in zip(*watches, strict=True):
        watch = all_of(of_one)
        logger.log(logging.WARNING if watch.costs else logging.INFO, "%s", watch)


def _check_reached(result: BestOfN, options: Options, prompt: str | None) -> None:
    if options.min_score is None or result.scores[0] >= options.min_score:
        return
    message = (
        f"Expected one of {options.n * options.max_rounds} candidates to reach min_score = {options.min_score:g}, got "
        f"{result.scores[0]:g} as the best{f' for {prompt!r}' if prompt else ''}. Lower min_score, or raise n or "
        "max_rounds."
    )
    if options.on_none == "raise":
        raise NoneGoodEnoughError(message, result)
    logger.warning(message)


def _save(result: BestOfN, request: Request, folder: Path, prefix: str) -> tuple[Path, ...]:
    info = request.scorer.info
    paths = []
    for place, (image, score, seed) in enumerate(zip(result.images, result.scores, result.seeds, strict=True), start=1):
        metadata = PictureMetadata(
            score=score,
            percentile=info.percentile_if_known(score),
            model=info.name,
            revision=info.revision,
            rank=place,
            index=seed - request.seed,
            seed=seed,
            pipeline=type(request.pipe).__name__,
            steps=plain(argument_of(request.pipe, request.arguments, "num_inference_steps")),
            guidance=plain(argument_of(request.pipe, request.arguments, "guidance_scale")),
            prompt=request.prompt,
        )
        paths.append(save_picture(as_pil(image), _unused(folder / f"{prefix}rank{place}-seed{seed}.png"), metadata))
    return tuple(paths)


def _unused(path: Path) -> Path:
    """This path, or the next one with a number: pictures of an earlier run stay."""
    candidates = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    return next(one for one in itertools.chain([path], candidates) if not one.exists())
