"""Scores whole data sets into Parquet parts, resumed by key."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..arguments.options import shown
from ..errors import MaAgiqaError, PictureError
from ..records.output_lock import only_writer
from ..scorers.scorer import Scorer
from .judges import JudgeSettings, as_models
from .parts import PartWriter
from .run import EngineRun, Results
from .sources.finding import find_shards
from .sources.names import needs_network
from .sources.objects import is_daft, is_ray
from .sources.shard import Columns

logger = logging.getLogger(__name__)

ENGINES = ("auto", "local", "ray", "daft")


@dataclass(frozen=True)
class DatasetScores:
    """What a run did.

    Attributes:
        out: The folder with the parts.
        scored: Pictures that got a score from every judge in this run.
        failed: Those that did not; their rows have an `error`.
        already: Pictures that were in the parts before.
        seconds: Of this run.
    """

    out: Path
    scored: int
    failed: int
    already: int
    seconds: float


def score_dataset(
    source: Any,
    model: str | Scorer | Sequence[str | Scorer] = ("lite",),
    *,
    id: str | None = None,
    prompts: str | os.PathLike[str] | Mapping[str, str] | None = None,
    out: str | os.PathLike[str] = "scores/",
    engine: str = "auto",
    on_error: str = "row",
    picture: str | None = None,
    workers: int | None = None,
    gpus: float | None = None,
    batch_size: int | None = None,
    percentiles: Sequence[str | os.PathLike[str]] = (),
    save_every: float = 10.0,
    on_progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> DatasetScores:
    """Scores all pictures of a source into Parquet parts; what is in the parts already is left out.

    A run that was ended in any way is resumed by the same call, on any engine: rows are told by their key, and each key
    is in the parts once. Rows with an error are tried again.

    Args:
        source: Pictures, folders and patterns; WebDataset tars; Parquet files and Lance data sets with a column of
            paths, URLs or bytes; URLs of object stores that fsspec opens, of all these; a list of them; a
            `ray.data.Dataset`, a Daft DataFrame, a data set of Hugging Face's `datasets`.
        model: For `load_scorer`; several judges share one decoding.
        id: The column that names each row of a table. None takes the picture's path or URL, or the row's place.
        prompts: For judges that need them: by key; a file with the columns path and prompt; or the name of a column.
            None takes the column `prompt`, and the texts in a tar.
        out: The folder of the parts.
        engine: "local", "ray" or "daft"; "auto" is that of the source, and else local.
        on_error: "row" gives a picture without a score a row with its error; "raise" ends the run at the first.
        picture: The column of pictures in a table; None looks for one.
        workers: How many. None takes one for each graphics card, and one on a machine without.
        gpus: Of each worker on Ray.
        batch_size: Pictures at a time at most; None leaves it to the judges.
        percentiles: Files of `ma-agiqa percentiles`, for any of the judges.
        save_every: Seconds of work that a kill may cost; a hundredth of the time so far, if that is longer.
        on_progress: Called with the number of pictures done and of those that failed.
        options: More arguments of `load_scorer`, such as `device` or `local_files_only`.

    Raises:
        FileNotFoundError: The source does not exist.
        FileExistsError: Another process writes these parts.
        ImportError: A package is missing; the message holds its `pip install` line.
        PictureError: A picture has no score, and `on_error` is "raise".
        ValueError: A wrong option, other judges than the parts were made with, nothing to score.

    Example:
        >>> import numpy as np
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> Path("in").mkdir()
        >>> for shade in (10, 200):
        ...     Image.new("RGB", (32, 32), (shade, shade, shade)).save(f"in/{shade}.png")
        >>> done = score_dataset("in", ["lite"], out="scores", device="cpu")
        >>> done.scored, done.failed, done.already
        (2, 0, 0)
        >>> score_dataset("in", ["lite"], out="scores", device="cpu").already
        2
    """
    _check(engine, on_error, workers)
    if options.get("local_files_only"):
        _check_offline(source)
    started = time.monotonic()
    out = Path(out)
    models = as_models(model)
    column, known = _prompts(prompts)
    columns = Columns(id, column, picture)
    out.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(out):
        parts = PartWriter(out, save_every)
        already = len(parts.done)
        settings = JudgeSettings(models, options, batch_size, tuple(map(Path, percentiles)), parts.expected)
        run = EngineRun(settings, columns, tuple(parts.keys()), known, workers, gpus)
        try:
            for rows, facts in _results(source, run, _engine(source, engine)):
                new = parts.add(rows, facts)
                if on_progress is not None:
                    on_progress(parts.scored + parts.failed, parts.failed)
                failed = next((row for row in new if row.error is not None), None)
                if on_error == "raise" and failed is not None:
                    raise PictureError(parts.scored + parts.failed - 1, failed.key, failed.error or "")
        finally:
            parts.save()
    return DatasetScores(out, parts.scored, parts.failed, already, time.monotonic() - started)


def _results(source: Any, run: EngineRun, engine: str) -> Results:
    if engine == "ray":
        from .engines.on_ray import run_on_ray

        return run_on_ray(source, run)
    if engine == "daft":
        from .engines.on_daft import run_on_daft

        return run_on_daft(source, run)
    from .engines.local import run_locally

    return run_locally(find_shards(source, run.columns, _say_unlisted), run)


def _say_unlisted(error: OSError) -> None:
    logger.warning("left out %s: %s", error.filename, error.strerror)


def _engine(source: Any, engine: str) -> str:
    if engine != "auto":
        return engine
    return "ray" if is_ray(source) else "daft" if is_daft(source) else "local"


def _check(engine: str, on_error: str, workers: int | None) -> None:
    if engine not in ENGINES:
        raise MaAgiqaError(f"Expected engine {', '.join(map(repr, ENGINES))}, got {shown(engine)}.")
    if on_error not in ("row", "raise"):
        raise MaAgiqaError(f"Expected on_error 'row' or 'raise', got {shown(on_error)}.")
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise MaAgiqaError(f"Expected workers of at least 1, or None, got {shown(workers)}.")


def _check_offline(source: Any) -> None:
    places = [source] if isinstance(source, str) else source if isinstance(source, list | tuple) else []
    for place in places:
        if isinstance(place, str) and needs_network(place):
            raise MaAgiqaError(f"Expected sources on this machine, as no network is allowed, got {place}. Allow it.")


def _prompts(prompts: str | os.PathLike[str] | Mapping[str, str] | None) -> tuple[str | None, Mapping[str, str]]:
    """The column, and those by key."""
    if prompts is None or isinstance(prompts, Mapping):
        return None, prompts or {}
    if isinstance(prompts, str) and not os.path.exists(prompts) and not _looks_like_table(prompts):  # noqa: PTH110
        return prompts, {}
    from ..records.prompts import read_prompts

    return None, read_prompts(Path(prompts))


def _looks_like_table(name: str) -> bool:
    from ..records.spreadsheets import TABLE_SUFFIXES

    return Path(name).suffix.lower() in TABLE_SUFFIXES
