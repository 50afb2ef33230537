"""The loop behind `score` and `rank`: pictures decoded ahead, scored in small batches, out as records.

No picture ends a run: what cannot be read, has no prompt, does not fit into memory or makes the scorer
stumble becomes a record with its error.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from .batching import is_out_of_memory
from .errors import MaAgiqaError, UnusableModelError
from .images import Picture, iterate_pictures
from .prompt_file import read_prompts
from .records import Record, path_key, path_text
from .score_loop import score_again
from .scorer import NO_PROMPT, Scorer, load_scorer

BATCH_SIZE = 8  # small, since a killed run loses the batch it was in
BATCH_PIXELS = 2**25  # 33 megapixels, decoded 100 MB: large pictures come in smaller batches

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ScoringOptions:
    """What `score` and `rank` share on the command line, by the names of the options."""

    model: str = "lite"
    semantic: str | None = None
    cache: Path | None = None
    prompts: Path | None = None
    device: str = "auto"
    dtype: str = "auto"
    quantization: str | None = None
    device_map: str | None = None
    batch_size: int | None = None
    local_files_only: bool = False
    target: str | None = None
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScoringRun:
    """A loaded scorer with all it needs.

    Attributes:
        scorer: What scores.
        identity: Scorer, revision and the settings that change scores: the `model` of every record.
        prompts: By `path_key`; None where the scorer looks at pictures alone.
        batch_size: Pictures per batch.
    """

    scorer: Scorer
    identity: str
    prompts: Mapping[str, str] | None
    batch_size: int


def load(options: ScoringOptions, model: str | None = None) -> Scorer:
    """Loads the scorer, or another one with the same options.

    Raises:
        ValueError: An option is wrong.
        OSError: A file cannot be read.
    """
    return load_scorer(
        options.model if model is None else model,
        semantic=options.semantic,
        cache=options.cache,
        device=options.device,
        dtype=options.dtype,
        quantization=options.quantization,
        device_map=options.device_map,
        local_files_only=options.local_files_only,
        target=options.target,
        without=options.without,
    )


def prepare(options: ScoringOptions, known_prompts: Mapping[str, str] | None = None) -> ScoringRun:
    """Loads the scorer and the prompts.

    Args:
        options: Of the command line.
        known_prompts: By `path_key`, where no file is named.

    Raises:
        ValueError: An option is wrong, or the scorer needs prompts and there are none.
        OSError: A file cannot be read.
    """
    prompts = known_prompts if options.prompts is None else read_prompts(options.prompts)
    scorer = load(options)
    if not scorer.info.needs_prompt:
        prompts = None
    elif not prompts:
        raise MaAgiqaError(f"Expected prompts for {scorer.info.name}, got none. Give --prompts FILE.")
    identity = [f"{scorer.info.name}@{scorer.info.revision}"]
    if options.target is not None and scorer.info.targets[0] != options.target:
        identity.append(f"target={options.target}")
    if options.semantic is not None:
        identity.append(f"semantic={options.semantic}")
    if options.dtype != "auto":
        identity.append(f"dtype={options.dtype}")
    if options.quantization is not None:
        identity.append(f"quantization={options.quantization}")
    if prompts is not None:
        digest = hashlib.sha256(json.dumps(sorted(prompts.items())).encode()).hexdigest()
        identity.append(f"prompts={digest[:16]}")
    return ScoringRun(scorer, ";".join(identity), prompts, options.batch_size or BATCH_SIZE)


def score_pictures(run: ScoringRun, paths: Iterable[Path]) -> Iterator[list[Record]]:
    """Scores pictures in order, a batch at a time."""
    return work_through(_batches(iterate_pictures(paths), run), lambda batch: _score_batch(run, batch))


def work_through(batches: Iterable[Item], work: Callable[[Item], Result]) -> Iterator[Result]:
    """Works in a thread of its own: Ctrl-C reaches the caller at once, however long a batch takes."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="scorer")
    try:
        for batch in batches:
            yield _interruptible(thread.submit(work, batch))
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


def _batches(pictures: Iterable[Picture], run: ScoringRun) -> Iterator[list[Picture]]:
    batch: list[Picture] = []
    pixels = 0
    for picture in pictures:
        batch.append(picture)
        pixels += picture.width * picture.height
        is_full = len(batch) >= run.batch_size or pixels >= BATCH_PIXELS
        if is_full and not run.scorer.info.relative:  # a relative scorer judges the whole group at once
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _interruptible(future: Future[Result]) -> Result:
    while not wait([future], timeout=0.2).done:  # without a timeout Windows lets no Ctrl-C through
        pass
    return future.result()


def _score_batch(run: ScoringRun, batch: Sequence[Picture]) -> list[Record]:
    prompts = None if run.prompts is None else [_prompt(run.prompts, picture) for picture in batch]
    errors = [picture.error for picture in batch]
    if prompts is not None:
        errors = [error or (None if prompt else NO_PROMPT) for error, prompt in zip(errors, prompts, strict=True)]
    is_ready = [error is None for error in errors]
    images = [_as_array(picture.pixels) for picture in compress(batch, is_ready)]
    outcomes = iter(_score_images(run.scorer, images, prompts and list(compress(prompts, is_ready))))
    return [
        _record(run, picture, next(outcomes) if error is None else error)
        for picture, error in zip(batch, errors, strict=True)
    ]


def _prompt(prompts: Mapping[str, str], picture: Picture) -> str:
    return prompts.get(path_key(picture.path or ""), "").strip()


def _as_array(pixels: torch.Tensor | None) -> np.ndarray:
    """Decoded pixels as `Scorer.score` takes them: (H, W, 3) uint8 RGB."""
    assert pixels is not None  # only such pictures are ready
    return pixels.movedim(0, -1).numpy()


def _score_images(scorer: Scorer, images: Sequence[np.ndarray], prompts: Sequence[str] | None) -> list[float | str]:
    """For each image its score, or the reason why there is none."""
    batch_size = len(images)
    while batch_size:
        try:
            scores = scorer.score(images, prompts, batch_size=batch_size, on_error="nan").tolist()
            return [
                score_again(scorer, images[i], None if prompts is None else prompts[i]) if math.isnan(score) else score
                for i, score in enumerate(scores)
            ]
        except UnusableModelError:  # none of the pictures can be scored
            raise
        except (MemoryError, RuntimeError, ValueError) as error:
            if len(images) == 1:
                return [_reason(error)]
            if scorer.info.relative:
                raise
            batch_size = batch_size // 2 if is_out_of_memory(error) else 0
    alone = [slice(i, i + 1) for i in range(len(images))]
    return [_score_images(scorer, images[i], None if prompts is None else prompts[i])[0] for i in alone]


def _reason(error: Exception) -> str:
    if is_out_of_memory(error):
        return "not enough memory to score it"
    return f"cannot be scored: {' '.join(str(error).split()) or type(error).__name__}"


def _record(run: ScoringRun, picture: Picture, outcome: float | str) -> Record:
    if isinstance(outcome, float) and not math.isfinite(outcome):
        outcome = f"the scorer returned {outcome}"
    score = None if isinstance(outcome, str) else _significant(outcome)
    info = run.scorer.info
    percentile = None if score is None or info.relative else info.percentile(score)
    return Record(
        path=path_text(picture.path or ""),
        score=score,
        percentile=None if percentile is None else _significant(percentile),
        width=picture.width or None,
        height=picture.height or None,
        model=run.identity,
        error=outcome.encode("utf-8", "backslashreplace").decode() if isinstance(outcome, str) else None,
    )


def _significant(value: float) -> float:
    """Seven digits, which is what float32 holds."""
    return float(f"{value:.7g}")
