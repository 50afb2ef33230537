"""The loop behind `score` and `rank`: pictures decoded ahead, scored in groups, out as records.

No picture ends a run: what cannot be read, has no prompt, does not fit into memory or is refused by the scorer becomes
a record with its error. Any other exception is a bug: it ends the run with its traceback, after what was scored.
"""

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

from ..compute.work_groups import work_in_groups
from ..errors import MaAgiqaError
from ..pictures.inputs import Picture, iterate_pictures
from ..pictures.prefetch import prefetch
from ..pictures.prompts import NO_PROMPT
from ..records.formats import Record, path_key, path_text, valid_text
from ..records.picture_state import PictureState, picture_state
from ..records.prompts import read_prompts
from ..scorers.identity import scorer_identity
from ..scorers.load import load_scorer
from ..scorers.picture_scorer import Outcome
from ..scorers.scorer import Scorer
from ..scorers.tolerant_outcomes import tolerant_outcomes

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
    """A loaded scorer with all it needs.

    Attributes:
        scorer: What scores.
        identity: What was loaded, see `scorer_identity`: the `model` of every record.
        prompts: By `path_key`; None where the scorer looks at pictures alone.
        batch_size: Pictures at a time; None leaves it to the scorer.
    """

    scorer: Scorer
    identity: str
    prompts: Mapping[str, str] | None
    batch_size: int | None

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
        is_one_group=run.scorer.info.relative,  # it compares the pictures
    )


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
    errors = [
        picture.error or (NO_PROMPT if prompt == "" else None)
        for picture, prompt in zip(pictures, prompts, strict=True)
    ]
    is_ready = [error is None for error in errors]
    ready = list(compress(pictures, is_ready))
    texts = [prompt for prompt in compress(prompts, is_ready) if prompt is not None]
    outcomes = iter(tolerant_outcomes(run.scorer, ready, texts or None, run.batch_size))
    return [
        _record(run, sighted, prompt, next(outcomes) if error is None else error)
        for sighted, prompt, error in zip(group, prompts, errors, strict=True)
    ]


def _record(run: ScoringRun, sighted: _Sighted, prompt: str | None, outcome: Outcome) -> Record:
    picture, state = sighted.picture, sighted.state
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
        error=valid_text(outcome) if isinstance(outcome, str) else None,
        prompt=valid_text(prompt) if prompt else None,
        modified=None if state is None else state.modified,
        digest=None if state is None else state.digest,
    )


def _significant(value: float) -> float:
    """Seven digits, which is what float32 holds."""
    return float(f"{value:.7g}")
