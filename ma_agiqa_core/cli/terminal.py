"""What the command line shows while it works: records as they come, progress, a closing line."""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from ..compute.interrupts import interrupts_held
from ..compute.progress import watching
from ..ranking import Ranking, order_by_score
from ..records.record import Record, as_row
from ..report.names import readable
from ..scorers.scorer import ScorerInfo
from .scoring_run import ScoringRun, score_pictures
from .tables import errors_of, facts_json, score_table_of

if TYPE_CHECKING:
    from ..generation.calibration.measure import Calibration
    from .extraction_run import Extracted

ERRORS_SHOWN = 10  # of those that the output holds anyway

Show = Callable[[Sequence[Record]], None]


def score_with_progress(
    run: ScoringRun, paths: Sequence[Path], outputs: Sequence[Show], *, if_interrupted: str = ""
) -> int:
    """Scores pictures batch by batch, shows progress on a terminal, and prints a closing line on stderr.

    Args:
        run: The scorer and what it needs.
        paths: The pictures.
        outputs: What every batch is handed to.
        if_interrupted: What to add for somebody who pressed Ctrl-C.

    Returns:
        The number of pictures that could not be scored.
    """
    if not (total := len(paths)):
        click.echo("Nothing left to score.", err=True)
        return 0
    done = errors = 0
    started = time.monotonic()
    with _progress_bar(total) as bar:
        try:
            for batch in score_pictures(run, paths):
                with interrupts_held():  # else more were written than are counted
                    for output in outputs:
                        output(batch)
                    done += len(batch)
                    errors += sum(not record.is_whole for record in batch)
                bar.update(len(batch))
        except KeyboardInterrupt:
            bar.close()
            click.echo(f"Interrupted: {done} of {total} pictures are done.{if_interrupted}", err=True)
            raise
    pace = f", {done / (time.monotonic() - started):.1f} a second" if done else ""
    failed = f"; {errors} failed" if errors else ""
    described = " and ".join(_described(scorer.info) for scorer in run.scorers)
    click.echo(f"{done - errors} of {total} pictures scored by {described}{pace}{failed}.", err=True)
    return errors


def extract_with_progress(batches: "Iterable[Sequence[Extracted]]", total: int, closing: str) -> int:
    """Shows progress and errors while vectors are made, and prints closing lines on stderr.

    Returns:
        The number of pictures that have no vectors.
    """
    done = errors = 0
    with _progress_bar(total) as bar:
        try:
            for batch in batches:
                for picture in batch:
                    if picture.error is not None:
                        errors += 1
                        line = f"{readable(picture.path)}: {readable(picture.error)}"
                        _print_above_progress(line, to_stderr=True)
                done += len(batch)
                bar.update(len(batch))
        except KeyboardInterrupt:
            bar.close()
            click.echo(f"Interrupted: {done} of {total} pictures are done. Run it again to resume.", err=True)
            raise
    failed = f"; {errors} failed" if errors else ""
    click.echo(f"{done - errors} of {total} pictures have semantic vectors{failed}.\n{closing}", err=True)
    return errors


def calibrate_with_progress(calibration: "Calibration", *, out: Path | None, plot: Path | None, as_json: bool) -> None:
    """Calibrates prompt by prompt, prints the report, and writes it.

    Whatever ends it early: what the finished prompts say is written to `out` and `plot` all the same.
    """
    total = len(calibration.prompts)
    with _progress_bar(total, "prompts") as bar:
        try:
            for _ in calibration.run():
                bar.update()
        except BaseException:
            bar.close()
            done = len(calibration.done)
            kept = _save_calibration(calibration, out, plot) if done else ""
            click.echo(f"Stopped early: {done} of {total} prompts are done.{kept}", err=True)
            raise
    report = calibration.report()
    click.echo(json.dumps(report.to_dict()) if as_json else str(report))
    if kept := _save_calibration(calibration, out, plot):
        click.echo(kept.strip(), err=True)


def _save_calibration(calibration: "Calibration", out: Path | None, plot: Path | None) -> str:
    report = calibration.report()
    if out is not None:
        report.save(out)
    if plot is not None:
        report.plot(plot)
    written = [str(path) for path in (out, plot) if path is not None]
    return f" Written: {', '.join(written)}" if written else ""


def going_through(paths: Sequence[Path]) -> Iterator[Path]:
    """The paths one by one, with progress as they are taken."""
    with _progress_bar(len(paths)) as bar:
        for path in paths:
            yield path
            bar.update()


@contextmanager
def progress_over(pictures: int) -> Iterator[None]:
    """A progress bar that goes on with every picture that a network has seen."""
    with _progress_bar(pictures) as bar, watching(bar.update):
        yield


def rank_with_progress(
    run: ScoringRun, sources: Sequence[Path], *, top_k: int | None = None, min_score: float | None = None
) -> tuple[Ranking[Record], list[Record]]:
    """Scores all pictures, then ranks their records; also returns them in the order of the sources."""
    records: list[Record] = []
    score_with_progress(run, sources, [records.extend])
    scores = [math.nan if record.score is None else record.score for record in records]
    return order_by_score(records, scores, top_k=top_k, min_score=min_score), records


@contextmanager
def score_lines(run: ScoringRun) -> Iterator[Show]:
    """Prints a line per picture as it is scored."""
    table = score_table_of(run.infos)
    _print_above_progress(table.header)

    def show(batch: Sequence[Record]) -> None:
        _print_above_progress("\n".join(map(table.line, batch)))

    yield show


@contextmanager
def json_records(run: ScoringRun) -> Iterator[Show]:
    """Prints `{"model": {...}, "records": [...]}` as records come; whole JSON even if they end early."""
    count = 0

    def show(batch: Sequence[Record]) -> None:
        nonlocal count
        lines = [json.dumps({"index": i, **as_row(record)}) for i, record in enumerate(batch, start=count)]
        _print_above_progress(("," if count else "") + "\n" + ",\n".join(lines), newline=False)
        count += len(lines)

    _print_above_progress(f'{{{facts_json(run.infos)}, "records": [', newline=False)
    try:
        yield show
    finally:
        _print_above_progress("\n]}")


@contextmanager
def error_lines() -> Iterator[Show]:
    """Prints the first errors on stderr, for a run whose records go to a file."""
    count = 0

    def show(batch: Sequence[Record]) -> None:
        nonlocal count
        failed = [record for record in batch if not record.is_whole]
        for record in failed[: max(ERRORS_SHOWN - count, 0)]:
            _print_above_progress(f"{readable(record.path)}: {readable(errors_of(record))}", to_stderr=True)
        if count <= ERRORS_SHOWN < count + len(failed):
            _print_above_progress("Further errors are in the records.", to_stderr=True)
        count += len(failed)

    yield show


def _described(info: ScorerInfo) -> str:
    is_bounded = math.isfinite(info.low) and math.isfinite(info.high)
    return f"{info.name} ({f'{info.low:g} to {info.high:g}, ' if is_bounded else ''}higher is better)"


def _print_above_progress(text: str, *, newline: bool = True, to_stderr: bool = False) -> None:
    with tqdm.external_write_mode():
        click.echo(text, nl=newline, err=to_stderr)


def _progress_bar(total: int, unit: str = "pictures") -> Any:
    return tqdm(
        total=total,
        unit=f" {unit}",
        bar_format="{percentage:3.0f} % |{bar}| {n_fmt} of {total_fmt}, {remaining} left, {rate_noinv_fmt}",
        leave=False,
        dynamic_ncols=True,
        disable=None,  # unless stderr is a terminal
    )
