"""What the command line shows: aligned tables, JSON, progress, a closing line."""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from ..ranking import RankedPicture, Ranking, order_by_score
from ..records.formats import Record
from ..report.decimals import decimals_for
from ..report.names import readable
from ..scorers.scorer import ScorerInfo
from .scoring_run import ScoringRun, score_pictures

if TYPE_CHECKING:
    from ..generation.calibration.measure import Calibration
    from ..scorers.installed import InstalledModel
    from .extraction_run import Extracted

ERRORS_SHOWN = 10  # of those that the output holds anyway

Show = Callable[[Sequence[Record]], None]


def score_with_progress(
    run: ScoringRun, paths: Iterable[Path], total: int, outputs: Sequence[Show], *, if_interrupted: str = ""
) -> int:
    """Scores pictures batch by batch, shows progress on a terminal, and prints a closing line on stderr.

    Args:
        run: The scorer and what it needs.
        paths: The pictures.
        total: How many they are.
        outputs: What every batch is handed to.
        if_interrupted: What to add for somebody who pressed Ctrl-C.

    Returns:
        The number of pictures that could not be scored.
    """
    if not total:
        click.echo("Nothing left to score.", err=True)
        return 0
    done = errors = 0
    started = time.monotonic()
    with _progress_bar(total) as bar:
        try:
            for batch in score_pictures(run, paths):
                for output in outputs:
                    output(batch)
                done += len(batch)
                errors += sum(record.error is not None for record in batch)
                bar.update(len(batch))
        except KeyboardInterrupt:
            bar.close()
            click.echo(f"Interrupted: {done} of {total} pictures are done.{if_interrupted}", err=True)
            raise
    info = run.scorer.info
    pace = f", {done / (time.monotonic() - started):.1f} a second" if done else ""
    failed = f"; {errors} failed" if errors else ""
    click.echo(f"{done - errors} of {total} pictures scored by {_described(info)}{pace}{failed}.", err=True)
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
            click.echo(f"Interrupted: {done} of {total} pictures are done. Run it again to go on.", err=True)
            raise
    failed = f"; {errors} failed" if errors else ""
    click.echo(f"{done - errors} of {total} pictures have their vectors{failed}.\n{closing}", err=True)
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
            click.echo(f"Ended early: {done} of {total} prompts are done.{kept}", err=True)
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


def model_list(models: "Iterable[InstalledModel]") -> str:
    """Models one below the other, a line for each fact."""
    blocks = []
    for model in models:
        facts = {**asdict(model), "size": _size(model.size)}
        blocks.append("\n".join(f"{key.replace('_', ' '):<12}{value}" for key, value in facts.items() if value))
    return "\n\n".join(blocks)


def rank_with_progress(
    run: ScoringRun, sources: Sequence[Path], *, top_k: int | None = None, min_score: float | None = None
) -> tuple[Ranking, list[Record]]:
    """Scores all pictures, then ranks them; the records lie in the order of the ranking's indexes."""
    records: list[Record] = []
    score_with_progress(run, sources, len(sources), [records.extend])
    pictures = [
        RankedPicture(i, math.nan if r.score is None else r.score, r.percentile, r.error, r.path)
        for i, r in enumerate(records)
    ]
    return order_by_score(pictures, top_k=top_k, min_score=min_score), records


@contextmanager
def score_lines(info: ScorerInfo) -> Iterator[Show]:
    """Prints a line per picture as it is scored."""
    table = _ScoreTable(info)
    _print_above_progress(table.header)

    def show(batch: Sequence[Record]) -> None:
        _print_above_progress("\n".join(table.line(r.path, r.score, r.percentile, r.error) for r in batch))

    yield show


@contextmanager
def json_records(info: ScorerInfo) -> Iterator[Show]:
    """Prints `{"model": {...}, "records": [...]}` as records come; whole JSON even if they end early."""
    count = 0

    def show(batch: Sequence[Record]) -> None:
        nonlocal count
        lines = [json.dumps({"index": i, **asdict(record)}) for i, record in enumerate(batch, start=count)]
        _print_above_progress(("," if count else "") + "\n" + ",\n".join(lines), newline=False)
        count += len(lines)

    _print_above_progress(f'{{"model": {json.dumps(model_facts(info))}, "records": [', newline=False)
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
        failed = [record for record in batch if record.error is not None]
        for record in failed[: max(ERRORS_SHOWN - count, 0)]:
            _print_above_progress(f"{readable(record.path)}: {readable(record.error or '')}", to_stderr=True)
        if count <= ERRORS_SHOWN < count + len(failed):
            _print_above_progress("Further errors are in the records.", to_stderr=True)
        count += len(failed)

    yield show


def ranking_table(ranking: Ranking, info: ScorerInfo, *, is_selection: bool) -> str:
    """The ranking, best first; with a column for what is kept where there was a selection."""
    table = _ScoreTable(info)
    lines = [f"RANK  {'VERDICT   ' if is_selection else ''}{table.header}"]
    for verdict, pictures in _groups(ranking).items():
        for picture in pictures:
            place = "-" if verdict == "failed" else len(lines)
            line = table.line(picture.path or "", picture.score, picture.percentile, picture.error)
            lines.append(f"{place:>4}  {f'{verdict:<10}' if is_selection else ''}{line}")
    return "\n".join(lines)


def ranking_json(ranking: Ranking, records: Sequence[Record], info: ScorerInfo) -> str:
    """The ranking for programs, one picture a line."""
    parts = [f'"model": {json.dumps(model_facts(info))}']
    for verdict, pictures in _groups(ranking).items():
        lines = [json.dumps({"index": p.index, **asdict(records[p.index])}) for p in pictures]
        parts.append(f'"{verdict}": [{",".join(chr(10) + line for line in lines)}]')
    return "{" + ",\n".join(parts) + "}"


def _groups(ranking: Ranking) -> dict[str, Sequence[RankedPicture]]:
    return {"kept": ranking.kept, "rejected": ranking.rejected, "failed": ranking.failed}


class _ScoreTable:
    """Columns as wide as the range of scores needs, so that a line can be printed before all are known."""

    def __init__(self, info: ScorerInfo) -> None:
        span = info.high - info.low
        is_bounded = math.isfinite(span) and span > 0
        self._decimals = decimals_for(span)
        ends = (info.low, info.high) if is_bounded else (-99.0, 99.0)
        self._width = max(len("SCORE"), *(len(f"{end:.{self._decimals}f}") for end in ends))
        self.header = f"{'SCORE':>{self._width}}  BETTER THAN  PICTURE"

    def line(self, path: str, score: float | None, percentile: float | None, error: str | None) -> str:
        number = "-" if score is None or math.isnan(score) else f"{score:.{self._decimals}f}"
        # Rounded down: nothing is better than 100 % of the pictures.
        better_than = "-" if percentile is None else f"{math.floor(percentile)} %"
        note = f"  ({readable(error)})" if error else ""
        return f"{number:>{self._width}}  {better_than:>11}  {readable(path)}{note}"


def model_facts(info: ScorerInfo) -> dict[str, Any]:
    """What `--json` says about the model."""
    names = (
        "name",
        "revision",
        "low",
        "high",
        "trained_on",
        "needs_prompt",
        "relative",
        "description",
        "targets",
        "target",
    )
    facts = {name: getattr(info, name) for name in names}
    for end in ("low", "high"):  # JSON has no infinity
        facts[end] = facts[end] if math.isfinite(facts[end]) else None
    return facts


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


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
