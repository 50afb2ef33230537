"""The commands that score pictures: demo, score, rank."""

import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from itertools import filterfalse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .options import (
    EXIT_CODES,
    PATH,
    PROGRAM,
    SOME_FAILED,
    NoPicturesError,
    check_report,
    debug_option,
    json_option,
    judging_options,
    list_pictures,
    paths_argument,
    report_option,
    say_missing_prompts,
    sources_argument,
)
from .scale import CountOrShare, as_count

if TYPE_CHECKING:
    from ..ranking import Ranking
    from ..records.record import Record
    from .scoring_run import ScoringRun


@click.command()
@debug_option
def demo() -> int:
    """Rank sample photographs and degraded copies of them.

    Needs no download: photographs and scorer are part of the package. Pictures and report go to ./ma-agiqa-demo.
    """
    from ..demo import write_demo_pictures
    from .scoring_run import ScoringOptions, prepare
    from .tables import ranking_table
    from .terminal import rank_with_progress

    folder = Path("ma-agiqa-demo")
    report = folder / "report.html"
    check_report(report)
    scoring = prepare(ScoringOptions())
    ranking, records = rank_with_progress(scoring, write_demo_pictures(folder / "pictures"))
    click.echo(ranking_table(ranking, scoring.infos, is_selection=False))
    _write_report(report, scoring, records, title="Photographs and their degraded copies")
    click.echo(f"\nReport: {report.absolute()}\nNext:   {PROGRAM} rank YOUR_FOLDER --top 5 --report report.html")
    return SOME_FAILED if ranking.failed else 0


@click.command(epilog=EXIT_CODES)
@sources_argument
@click.option(
    "--out",
    type=PATH,
    metavar="F",
    help="Write the records to a .csv, .jsonl or .parquet file, or with --engine to a folder.",
)
@click.option(
    "--resume", is_flag=True, help="Resume --out: skip pictures it has a score for, retry those with an error."
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "local", "ray", "daft"]),
    help="Score a data set into a folder of Parquet parts, resumed by key.",
)
@click.option("--id", "id_column", metavar="COLUMN", help="With --engine: the column that names each row of a table.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="With --engine: how many at the same time.")
@json_option
@report_option
@judging_options
def score(
    paths: Sequence[Path],
    out: Path | None,
    resume: bool,
    as_json: bool,
    report: Path | None,
    models: Sequence[str],
    percentiles: Sequence[Path],
    engine: str | None,
    id_column: str | None,
    workers: int | None,
    **options: Any,
) -> int:
    """Score pictures and folders of pictures; with --engine also tars, Parquet, Lance and URLs of object stores.

    Each picture gets one record: path, score, percentile, width, height, model, error. The percentile is the share
    of the scorer's calibration pictures that score lower, as in "better than 83 %".

    With several --model every scorer has columns of its own beside these, which are the first one's: NAME score, NAME
    percentile and NAME error.
    """
    from ..records.output_lock import only_writer
    from ..records.record import read_records
    from ..records.writer import check_output, open_records
    from ..scale.sources.names import is_for_engines

    if resume and out is None:
        raise click.UsageError("Expected --out F beside --resume, got none.", click.get_current_context())
    check_report(report)
    if engine is not None or any(is_for_engines(str(path)) for path in paths):
        from .scale import score_on_engine

        return score_on_engine(
            paths,
            out,
            engine=engine,
            id_column=id_column,
            workers=workers,
            as_json=as_json,
            report=report,
            options={**options, "model": models, "percentiles": percentiles},
        )
    if out is not None:
        check_output(out)
    pictures, all_listed = list_pictures(paths)
    records: list[Record] = []
    with ExitStack() as opened:
        if out is not None:
            opened.enter_context(only_writer(out))

        from .scoring_run import ScoringOptions, prepare_several
        from .terminal import error_lines, json_records, score_lines, score_with_progress

        scoring = prepare_several(models, ScoringOptions(**options), percentiles)
        for scorer in scoring.scorers:
            scorer.info.require_scale("to score pictures one by one", f"Use {PROGRAM} rank.")
        say_missing_prompts(scoring.prompts, pictures, options["prompts"])
        writer = None
        if out is not None:
            writer = open_records(
                out,
                scoring.identity,
                resume=resume,
                former=scoring.former_identity,
                pictures=pictures,
                prompt_of=scoring.prompt_of,
                judges=scoring.names,
            )
        show = json_records(scoring) if as_json else score_lines(scoring) if out is None else error_lines()
        outputs = [opened.enter_context(show)]
        if writer is not None:
            outputs.insert(0, opened.enter_context(writer).write)
            pictures = list(filterfalse(writer.holds, pictures))
        elif report is not None:
            outputs.append(records.extend)
        kept = f" They are in {out}; continue with --resume." if out is not None else ""
        errors = score_with_progress(scoring, pictures, outputs, if_interrupted=kept)
    if out is not None:
        click.echo(f"Records: {out}", err=True)
    if report is not None:
        written = records if out is None else read_records(out)
        _write_report(report, scoring, written)
    return SOME_FAILED if errors or not all_listed else 0


@click.command(epilog=EXIT_CODES)
@paths_argument
@click.option("--top", type=CountOrShare(), metavar="K", help="Keep the best K, or a share of all, such as 1%.")
@click.option("--min-score", type=float, metavar="X", help="Keep pictures that score at least X.")
@click.option("--copy-best", type=PATH, metavar="DIR", help="Copy the kept pictures to this folder.")
@json_option
@report_option
@judging_options
def rank(
    paths: Sequence[Path],
    top: float | None,
    min_score: float | None,
    copy_best: Path | None,
    as_json: bool,
    report: Path | None,
    models: Sequence[str],
    percentiles: Sequence[Path],
    **options: Any,
) -> int:
    """Rank pictures, best first, and select which to keep; of a folder of parts without scoring again.

    With several --model the first one ranks; the table, the records and the report also show what the others say.

    BETTER THAN is the share of the scorer's calibration pictures that score lower. Your pictures are never deleted,
    moved or overwritten. Pictures in the --copy-best folder are not ranked: they are copies from an earlier run.
    """
    from ..atomic_write import check_can_write_in
    from ..pictures.folders import copy_to_folder
    from ..scale.parts import holds_parts
    from .scale import rank_of_parts

    if min_score is not None and math.isnan(min_score):
        raise click.BadParameter("Expected a number, got nan.", param_hint="'--min-score'")
    if copy_best is not None:
        copy_best.mkdir(parents=True, exist_ok=True)
        check_can_write_in(copy_best)
    check_report(report)
    try:
        sources, all_listed = list_pictures(paths, leave_out=copy_best)
    except NoPicturesError:
        if len(paths) > 1 or not holds_parts(paths[0]):
            raise
        is_named = click.get_current_context().get_parameter_source("models") == ParameterSource.COMMANDLINE
        return rank_of_parts(
            paths[0],
            top=top,
            min_score=min_score,
            copy_best=copy_best,
            as_json=as_json,
            report=report,
            judge=models[0] if is_named else None,
        )

    from .scoring_run import ScoringOptions, prepare_several, watch_lines
    from .tables import ranking_json, ranking_table
    from .terminal import rank_with_progress

    scoring = prepare_several(models, ScoringOptions(**options), percentiles)
    info = scoring.scorer.info
    if min_score is not None:
        info.require_scale("for --min-score", "Use --top.")
    say_missing_prompts(scoring.prompts, sources, options["prompts"])
    ranking, records = rank_with_progress(scoring, sources, top_k=as_count(top, len(sources)), min_score=min_score)
    is_selection = top is not None or min_score is not None
    if as_json:
        click.echo(ranking_json(ranking, records, scoring.infos))
    else:
        click.echo(ranking_table(ranking, scoring.infos, is_selection=is_selection))
    if copy_best is not None:
        before = set(copy_best.iterdir())
        source_of = dict(zip(records, sources, strict=True))
        copies = {copy_to_folder(source_of[record], copy_best) for record in ranking.kept}
        there = f", {len(copies & before)} of which were already there" if copies & before else ""
        others = f"; {len(before - copies)} other files were already there" if before - copies else ""
        click.echo(f"Copied to {copy_best}: {len(ranking.kept)}{there}{others}", err=True)
    watched = watch_lines(scoring, records)
    for line in watched:
        click.echo(line, err=True)
    if report is not None:
        _write_report(report, scoring, ranking if is_selection else records, threshold=min_score, notes=watched)
    return SOME_FAILED if not all_listed or not all(record.is_whole for record in records) else 0


def _write_report(
    report: Path, scoring: "ScoringRun", pictures: "Iterable[Record] | Ranking[Record]", **settings: Any
) -> None:
    from ..report import write_report

    judges = dict(zip(scoring.names, (scorer.info for scorer in scoring.scorers), strict=False))
    write_report(report, pictures, model=scoring.scorer.info, judges=judges, **settings)
    click.echo(f"Report: {report}", err=True)
