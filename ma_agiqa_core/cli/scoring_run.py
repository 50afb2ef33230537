"""The loop behind `score` and `rank`: pictures decoded ahead, scored in groups, out as records.

No picture ends a run: what cannot be read, has no prompt, does not fit into memory or is refused by the scorer becomes
a record with its error. Any other exception is a bug: it ends the run with its traceback, after what was scored.
"""

import hashlib
import json
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

from ..compute.work_groups import work_in_groups
from ..errors import MaAgiqaError
from ..pictures.inputs import Picture, iterate_pictures
from ..pictures.prefetch import prefetch
from ..pictures.prompts import NO_PROMPT
from ..records.picture_state import PictureState, picture_state
from ..records.prompts import read_prompts
from ..records.record import Judged, Record, path_key, path_text, valid_text
from ..scorers.families import named_family
from ..scorers.identity import scorer_identity
from ..scorers.load import load_scorer
from ..scorers.outcomes import tolerant_outcomes
from ..scorers.picture_scorer import Outcome
from ..scorers.scorer import Scorer, ScorerInfo
from ..scorers.watching import watched

READERS = 2  # threads that read files to tell them from others of the same name


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
    """A loaded scorer, or several, with all they need.

    Attributes:
        scorer: What scores; of several the first, by which records are sorted.
        identity: What was loaded, see `scorer_identity`: the `model` of every record.
        prompts: By `path_key`; None where the scorer looks at pictures alone.
        batch_size: Pictures at a time; None leaves it to the scorer.
        others: Further scorers of the same pictures, which are decoded once.
    """

    scorer: Scorer
    identity: str
    prompts: Mapping[str, str] | None
    batch_size: int | None
    others: tuple[Scorer, ...] = ()

    @property
    def scorers(self) -> tuple[Scorer, ...]:
        return (self.scorer, *self.others)

    @property
    def names(self) -> tuple[str, ...]:
        """What the columns of several scorers are called; none where there is only one."""
        return judge_names(self.scorers) if self.others else ()

    @property
    def infos(self) -> dict[str, ScorerInfo]:
        """What the scorers say of themselves, by the names of their columns."""
        return {name: scorer.info for name, scorer in zip(judge_names(self.scorers), self.scorers, strict=True)}

    @property
    def former_identity(self) -> str | None:
        """The `model` of records from before each had its prompt: a digest of all prompts stood in it."""
        if self.prompts is None:
            return None
        digest = hashlib.sha256(json.dumps(sorted(self.prompts.items())).encode()).hexdigest()
        return f"{self.identity};prompts={digest[:16]}"

    def prompt_of(self, path: Path) -> str | None:
        """What a picture is scored with; empty where it has none, None where none is needed."""
        return None if self.prompts is None else self.prompts.get(path_key(path), "").strip()


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


def judge_names(scorers: Sequence[Scorer]) -> tuple[str, ...]:
    """A name for each: its own, with its revision where several have the same, numbered where that is the same too."""
    names = [valid_text(scorer.info.name) for scorer in scorers]
    pinned = [f"{name}@{scorer.info.revision}" for name, scorer in zip(names, scorers, strict=True)]
    found = [long if names.count(name) > 1 else name for name, long in zip(names, pinned, strict=True)]
    return tuple(
        f"{name} ({found[: place + 1].count(name)})" if found.count(name) > 1 else name
        for place, name in enumerate(found)
    )


def prepare_several(models: Sequence[str], options: ScoringOptions, percentiles: Sequence[Path] = ()) -> ScoringRun:
    """Loads several scorers of the same pictures, and the prompts that some of them need.

    Args:
        models: The first one is what records are sorted by.
        options: Of the command line; each scorer gets those that its family takes.
        percentiles: Files of `ma-agiqa percentiles`, for any of them.

    Raises:
        ValueError: An option is wrong, a file of percentiles is of none of them, or one needs prompts and there are
            none.
        OSError: A file cannot be read.
    """
    from ..scorers.scaled_scorer import with_percentiles

    if len(models) > 1 and options.target is not None:
        raise MaAgiqaError(f"Expected --target beside one --model, got {options.target!r} for {len(models)}.")
    prompts = None if options.prompts is None else read_prompts(options.prompts)
    scorers = with_percentiles(
        [load(options if len(models) == 1 else _taken_by(model, options), model) for model in models], percentiles
    )
    if without := [scorer.info.name for scorer in scorers if scorer.info.needs_prompt and not prompts]:
        raise MaAgiqaError(f"Expected prompts for {' and '.join(without)}, got none. Give --prompts FILE.")
    if not any(scorer.info.needs_prompt for scorer in scorers):
        prompts = None
    identity = " + ".join(scorer_identity(scorer) for scorer in scorers)
    return ScoringRun(scorers[0], identity, prompts, options.batch_size, tuple(scorers[1:]))


def _taken_by(model: str, options: ScoringOptions) -> ScoringOptions:
    """Of several scorers' options those that one's family does not refuse."""
    refused = () if (family := named_family(model)) is None else family.refuses
    nothing: dict[str, Any] = {name: () if name == "without" else None for name in refused}
    return replace(options, **nothing)


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
    return ScoringRun(scorer, scorer_identity(scorer), prompts, options.batch_size)


@dataclass(frozen=True)
class _Sighted:
    """A decoded picture, and what its file was just before."""

    picture: Picture
    state: PictureState | None


def score_pictures(run: ScoringRun, paths: Iterable[Path]) -> Iterator[list[Record]]:
    """Scores pictures in order, a group at a time: see `work_in_groups`."""
    return work_in_groups(
        _sighted(paths),
        lambda group: _score_group(run, group),
        pixels_of=lambda sighted: sighted.picture.width * sighted.picture.height,
        size=run.batch_size,
        is_one_group=any(scorer.info.relative for scorer in run.scorers),  # it compares the pictures
    )


def watch_lines(run: ScoringRun, records: Sequence[Record]) -> list[str]:
    """What each judge but the first says of choosing by the first: of the pictures of one prompt, or of all."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.prompt or "", []).append(record)
    chooser, *watchers = run.names or ("",)
    return [
        str(watched(chooser, watcher, [_both_scores(group, place) for group in groups.values()]))
        for place, watcher in enumerate(watchers, start=1)
    ]


def _both_scores(records: Sequence[Record], place: int) -> tuple[list[float], list[float]]:
    chooser, watcher = ([record.judges[judge].score for record in records] for judge in (0, place))
    return [_or_nan(score) for score in chooser], [_or_nan(score) for score in watcher]


def _or_nan(score: float | None) -> float:
    return math.nan if score is None else score


def _sighted(paths: Iterable[Path]) -> Iterator[_Sighted]:
    states: deque[PictureState | None] = deque()

    def noted() -> Iterator[Path]:
        for path, state in prefetch(paths, lambda path: (path, picture_state(path)), READERS):
            states.append(state)
            yield path

    for picture in iterate_pictures(noted()):
        yield _Sighted(picture, states.popleft())


def _score_group(run: ScoringRun, group: Sequence[_Sighted]) -> list[Record]:
    pictures = [sighted.picture for sighted in group]
    prompts = [run.prompt_of(Path(picture.path or "")) for picture in pictures]
    columns = [_column(scorer, pictures, prompts, run.batch_size) for scorer in run.scorers]
    return [
        _record(run, sighted, prompt, outcomes)
        for sighted, prompt, *outcomes in zip(group, prompts, *columns, strict=True)
    ]


def _column(
    scorer: Scorer, pictures: Sequence[Picture], prompts: Sequence[str | None], batch_size: int | None
) -> list[Outcome]:
    """What one scorer says of every picture; one that it needs a prompt for and has none is not shown to it."""
    needed = prompts if scorer.info.needs_prompt else [None] * len(pictures)
    errors = [
        picture.error or (NO_PROMPT if prompt == "" else None) for picture, prompt in zip(pictures, needed, strict=True)
    ]
    is_ready = [error is None for error in errors]
    ready = list(compress(pictures, is_ready))
    texts = [prompt for prompt in compress(needed, is_ready) if prompt is not None]
    outcomes = iter(tolerant_outcomes(scorer, ready, texts or None, batch_size))
    return [next(outcomes) if error is None else error for error in errors]


def _record(run: ScoringRun, sighted: _Sighted, prompt: str | None, outcomes: Sequence[Outcome]) -> Record:
    picture, state = sighted.picture, sighted.state
    names = run.names or (run.scorer.info.name,)
    judges = [_judged(*found) for found in zip(names, run.scorers, outcomes, strict=True)]
    return Record(
        path=path_text(picture.path or ""),
        score=judges[0].score,
        percentile=judges[0].percentile,
        width=picture.width or None,
        height=picture.height or None,
        model=run.identity,
        error=judges[0].error,
        prompt=valid_text(prompt) if prompt else None,
        modified=None if state is None else state.modified,
        digest=None if state is None else state.digest,
        judges=tuple(judges) if run.others else (),
    )


def _judged(name: str, scorer: Scorer, outcome: Outcome) -> Judged:
    if isinstance(outcome, str):
        return Judged(name, None, None, valid_text(outcome))
    percentile = scorer.info.percentile_if_known(outcome)
    return Judged(name, _significant(outcome), None if percentile is None else _significant(percentile), None)


def _significant(value: float) -> float:
    """Seven digits, which is what float32 holds."""
    return float(f"{value:.7g}")
