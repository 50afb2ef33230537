"""What `score` and `rank` do with data sets and parts: an engine scores, parts are ranked."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import MaAgiqaError
from .options import SOME_FAILED, notice

if TYPE_CHECKING:
    from ..scale.ranking import PartsRanking

OUT = Path("scores")
_OF_LOADING = ("semantic", "cache", "device", "dtype", "quantization", "device_map", "local_files_only", "target")


class CountOrShare(click.ParamType):
    """A whole number from 1 on, or a share such as 1%."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        """An int, or a float of 0 to 1."""
        if not isinstance(value, str):
            return value
        text = value.strip()
        try:
            if text.endswith("%"):
                share = float(text[:-1]) / 100
                if not 0 < share <= 1:
                    raise ValueError
                return share
            count = int(text)
        except ValueError:
            self.fail(f"Expected a whole number, or a share such as 1%, got {value!r}.", param, ctx)
        if count < 1:
            self.fail(f"Expected at least 1, got {count}.", param, ctx)
        return count


def as_count(top: int | float | None, total: int) -> int | None:
    """How many of `total` are meant."""
    return max(1, round(top * total)) if isinstance(top, float) else top


def score_on_engine(
    sources: Sequence[str | Path],
    out: Path | None,
    *,
    engine: str | None,
    id_column: str | None,
    workers: int | None,
    as_json: bool,
    report: Path | None,
    options: dict[str, Any],
) -> int:
    """Scores sources into parts, with progress on a terminal."""
    from tqdm import tqdm

    from ..scale.dataset import score_dataset

    out = OUT if out is None else out
    if out.suffix.lower() in (".csv", ".jsonl", ".parquet"):
        raise MaAgiqaError(f"Expected a folder for the parts of an engine's run, got {out}. Name one, such as scores/.")
    models = [options["model"]] if isinstance(options["model"], str) else list(options["model"])
    prompts = options["prompts"]
    known = {name: options[name] for name in _OF_LOADING if options.get(name) is not None}
    with tqdm(unit=" pictures", leave=False, dynamic_ncols=True, disable=None) as bar:

        def show(done: int, failed: int) -> None:
            bar.set_postfix_str(f"{failed} failed" if failed else "")
            bar.update(done - bar.n)

        try:
            done = score_dataset(
                [str(source) for source in sources],
                models,
                id=id_column,
                prompts=None if prompts is None else str(prompts),
                out=out,
                engine=engine or "auto",
                workers=workers,
                batch_size=options["batch_size"],
                percentiles=options.get("percentiles", ()),
                on_progress=show,
                **known,
            )
        except KeyboardInterrupt:
            bar.close()
            notice(f"interrupted; what is done is in {out}; run it again to continue")
            raise
    pace = f", {(done.scored + done.failed) / done.seconds:.1f} a second" if done.seconds else ""
    before = f"; {done.already} were there before" if done.already else ""
    failed = f"; {done.failed} failed" if done.failed else ""
    click.echo(f"{done.scored} pictures scored by {', '.join(map(str, models))}{pace}{failed}{before}.", err=True)
    click.echo(f"Parts: {done.out}", err=True)
    if as_json:
        click.echo(json.dumps({**asdict(done), "out": str(done.out)}))
    if report is not None:
        from ..scale.ranking import rank_parts

        _write_report(report, rank_parts(done.out), threshold=None, is_selection=False)
    return SOME_FAILED if done.failed else 0


def rank_of_parts(
    folder: Path,
    *,
    top: int | float | None,
    min_score: float | None,
    copy_best: Path | None,
    as_json: bool,
    report: Path | None,
    judge: str | None,
) -> int:
    """Ranks the pictures of a folder of parts by what a judge said."""
    from ..pictures.folders import copy_to_folder
    from ..records.record import path_from_text
    from ..scale.ranking import rank_parts
    from .tables import ranking_json, ranking_table

    is_selection = top is not None or min_score is not None
    ranked = rank_parts(
        folder,
        top_k=top if isinstance(top, int) else None,
        top_share=top if isinstance(top, float) else None,
        min_score=min_score,
        judge=judge,
    )
    ranking, infos = ranked.ranking, {ranked.info.name: ranked.info}
    if as_json:
        records = [*ranking.kept, *ranking.rejected, *ranking.failed]
        click.echo(ranking_json(ranking, records, infos))
    else:
        click.echo(ranking_table(ranking, infos, is_selection=is_selection))
    counts = f"{ranked.kept} kept, {ranked.rejected} rejected, {ranked.failed} failed"
    click.echo(f"{ranked.kept + ranked.rejected + ranked.failed} pictures in {folder}: {counts}.", err=True)
    if copy_best is not None:
        missing = 0
        for record in ranking.kept:
            source = Path(path_from_text(record.path))
            if source.is_file():
                copy_to_folder(source, copy_best)
            else:
                missing += 1
        elsewhere = f"; {missing} are no files of this machine" if missing else ""
        click.echo(f"Copied to {copy_best}: {ranked.kept - missing}{elsewhere}", err=True)
    if report is not None:
        _write_report(report, ranked, threshold=min_score, is_selection=is_selection)
    return SOME_FAILED if ranked.failed else 0


def _write_report(report: Path, ranked: "PartsRanking", *, threshold: float | None, is_selection: bool) -> None:
    from ..report import write_report

    sample = ranked.sample
    total = ranked.kept + ranked.rejected
    shown = len(sample.kept) + len(sample.rejected)
    title = "Pictures ranked by quality"
    if shown < total:
        title += f": {shown} of {total}, evenly over the ranks"
    pictures = sample if is_selection else [*sample.kept, *sample.rejected, *sample.failed]
    write_report(report, pictures, model=ranked.info, threshold=threshold, title=title)
    click.echo(f"Report: {report}", err=True)
