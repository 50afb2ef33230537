"""The command line: parse, call, print.

Imports nothing heavy before a command runs, so that `ma-agiqa --help` comes at once.
"""

import json
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import filterfalse
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from .ranking import Ranking
    from .records import Record
    from .scoring_run import ScoringRun

PROGRAM = "ma-agiqa"
SOME_FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
EXIT_CODES = """\b
Exit codes:
  0    all done
  1    some pictures could not be scored: each has its error, the others are done
  2    wrong usage, missing path or model, no pictures
  130  interrupted: what was scored is written"""

_Command = TypeVar("_Command", bound=Callable[..., Any])


class _NamedPath(click.Path):
    """Refuses "", a shell variable that was never set: `Path` would take it for the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("Expected a path, got an empty one.", param, ctx)
        return super().convert(value, param, ctx)


_PATH: Any = _NamedPath(path_type=Path)
# Only consumed here: `run` looks for it itself, since parsing is one of the things that can fail.
_debug_option = click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else on stdout.")
_paths_argument = click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=_PATH)
_report_option = click.option("--report", type=_PATH, metavar="F.html", help="Write a report to look at.")


def main() -> None:
    """The console command."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open to the end
        # Any file name can be printed, whatever the terminal's encoding.
        getattr(sys, name).reconfigure(errors="backslashreplace")
    code = run(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done; taking torch down takes a moment
    if code == INTERRUPTED:  # an ordinary exit waits for threads that still decode and score
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Runs a command line and returns the exit code; a user's mistake becomes one line on stderr."""
    try:
        return cli.main(list(arguments), PROGRAM, standalone_mode=False) or 0
    except click.Abort:  # Ctrl-C
        return INTERRUPTED
    except (click.ClickException, OSError, ValueError, ImportError) as error:
        if "--debug" in arguments:
            traceback.print_exception(error)
        _notice(_message(error))
        return WRONG_USAGE


def _message(error: Exception) -> str:
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        return error.format_message() + (f" Try '{context.command_path} --help'." if context else "")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + ("" if error.filename is None else f": {error.filename}")
    return str(error)


def _with(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Several options as one decorator, shown in this order."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


# Where and how models compute: what all commands that load one share.
_computing_options = _with(
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps."),
    click.option(
        "--dtype",
        default="auto",
        show_default=True,
        type=click.Choice(["auto", "float32", "float16", "bfloat16"]),
        help="Precision.",
    ),
    click.option("--quantization", type=click.Choice(["int8", "nf4"]), help="A smaller language model, less exact."),
    click.option("--device-map", type=click.Choice(["auto"]), help="Spread a language model that does not fit."),
    click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="Pictures at a time."),
    click.option("--local-files-only", is_flag=True, help="Download nothing."),
    _debug_option,
)
# Which scorer: what all commands that score share.
_model_options = _with(
    click.option(
        "--model", default="lite", show_default=True, help="lite, a .safetensors file or folder, a Hub id, clip:MODEL."
    ),
    click.option("--semantic", metavar="MODEL", help="Semantic model: folder or Hub id; default: the scorer's own."),
    click.option("--cache", type=_PATH, metavar="DIR", help="Cache of semantic vectors."),
    _computing_options,
)
# What `score` and `rank` share.
_scoring_options = _with(
    click.option("--prompts", type=_PATH, metavar="FILE", help="CSV or JSONL with path,prompt."),
    _model_options,
)


@click.group(
    invoke_without_command=True,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name=PROGRAM)
@_debug_option
@click.pass_context
def cli(context: click.Context) -> None:
    """Judge the quality of pictures: score them, rank them, keep the best."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(WRONG_USAGE)


@cli.command()
@_debug_option
def demo() -> int:
    """Rank real photographs and degraded copies of them.

    All of it is carried in the package. The pictures and the report go to ./ma-agiqa-demo.
    """
    from .demo import write_demo_pictures
    from .scoring_run import ScoringOptions, prepare
    from .terminal import rank_with_progress, ranking_table

    folder = Path("ma-agiqa-demo")
    report = folder / "report.html"
    scoring = prepare(ScoringOptions())
    ranking, records = rank_with_progress(scoring, write_demo_pictures(folder / "pictures"))
    click.echo(ranking_table(ranking, scoring.scorer.info, is_selection=False))
    judged = _judged(ranking, records, is_selection=False)
    _write_report(report, scoring, judged, title="Photographs and their degraded copies")
    click.echo(f"\nReport: {report.absolute()}\nNext:   {PROGRAM} rank YOUR_FOLDER --top 5 --report report.html")
    return SOME_FAILED if ranking.failed else 0


@cli.command(epilog=EXIT_CODES)
@_paths_argument
@click.option("--out", type=_PATH, metavar="F", help="Write records to a .csv, .jsonl or .parquet file.")
@click.option("--resume", is_flag=True, help="Go on with --out; pictures with an error are tried again.")
@_json_option
@_report_option
@_scoring_options
def score(
    paths: Sequence[Path], out: Path | None, resume: bool, as_json: bool, report: Path | None, **options: Any
) -> int:
    """Score pictures, and the pictures in folders.

    One record per picture: path, score, percentile, width, height, model, error. The percentile says how
    many of the pictures the model was calibrated on score lower: better than 83 %.
    """
    from .folders import find_pictures
    from .record_writer import check_output, open_records
    from .records import read_records

    if resume and out is None:
        raise click.UsageError("Expected --out F beside --resume, got none.", click.get_current_context())
    if out is not None:
        check_output(out)
    total, all_listed = _survey(paths, report)

    from .scoring_run import ScoringOptions, prepare
    from .terminal import error_lines, json_records, score_lines, score_with_progress

    scoring = prepare(ScoringOptions(**options))
    info = scoring.scorer.info
    if info.relative:
        raise ValueError(f"Expected a scorer that judges each picture alone, got {info.name}. Use {PROGRAM} rank.")
    records: list[Record] = []
    with ExitStack() as opened:
        writer = None if out is None else open_records(out, scoring.identity, resume=resume)
        show = json_records(info) if as_json else score_lines(info) if out is None else error_lines()
        outputs = [opened.enter_context(show)]
        pictures = find_pictures(paths)
        if writer is not None:
            outputs.insert(0, opened.enter_context(writer).write)
            total -= sum(map(writer.holds, find_pictures(paths))) if resume else 0
            pictures = filterfalse(writer.holds, pictures)
        elif report is not None:
            outputs.append(records.extend)
        kept = f" They are in {out}; go on with --resume." if out is not None else ""
        errors = score_with_progress(scoring, pictures, total, outputs, if_interrupted=kept)
    if out is not None:
        click.echo(f"Records: {out}", err=True)
    if report is not None:
        written = records if out is None else read_records(out)
        _write_report(report, scoring, ((record, None) for record in written))
    return SOME_FAILED if errors or not all_listed else 0


@cli.command(epilog=EXIT_CODES)
@_paths_argument
@click.option("--top", type=click.IntRange(min=1), metavar="K", help="Keep the best K.")
@click.option("--min-score", type=float, metavar="X", help="Keep those that score at least X.")
@click.option("--copy-best", type=_PATH, metavar="DIR", help="Copy those kept into a folder.")
@_json_option
@_report_option
@_scoring_options
def rank(
    paths: Sequence[Path],
    top: int | None,
    min_score: float | None,
    copy_best: Path | None,
    as_json: bool,
    report: Path | None,
    **options: Any,
) -> int:
    """Rank pictures, best first, and say which to keep.

    BETTER THAN is the share of the pictures the model was calibrated on that score lower. Sources are
    never deleted, moved or overwritten.
    """
    from .folders import copy_to_folder, find_pictures

    if min_score is not None and math.isnan(min_score):
        raise click.BadParameter("Expected a number, got nan.", param_hint="'--min-score'")
    if copy_best is not None:
        copy_best.mkdir(parents=True, exist_ok=True)
    _, all_listed = _survey(paths, report)
    sources = list(find_pictures(paths))

    from .scoring_run import ScoringOptions, prepare
    from .terminal import rank_with_progress, ranking_json, ranking_table

    scoring = prepare(ScoringOptions(**options))
    info = scoring.scorer.info
    if info.relative and min_score is not None:
        raise ValueError(f"Expected --top, got --min-score: scores of {info.name} mean nothing beyond this group.")
    ranking, records = rank_with_progress(scoring, sources, top_k=top, min_score=min_score)
    is_selection = top is not None or min_score is not None
    if as_json:
        click.echo(ranking_json(ranking, records, info))
    else:
        click.echo(ranking_table(ranking, info, is_selection=is_selection))
    if copy_best is not None:
        for picture in ranking.kept:
            copy_to_folder(sources[picture.index], copy_best)
        click.echo(f"Copied to {copy_best}: {len(ranking.kept)}", err=True)
    if report is not None:
        _write_report(report, scoring, _judged(ranking, records, is_selection), threshold=min_score)
    return SOME_FAILED if ranking.failed or not all_listed else 0


@cli.command()
@click.argument("published", metavar="PUBLISHED.pt", type=_PATH)
@click.argument("out", metavar="OUT.safetensors", type=_PATH)
@click.option("--trained-on", metavar="NAME", help="Data set of the labels.  [default: AGIQA-3K, as published]")
@_debug_option
def convert(published: Path, out: Path, trained_on: str | None) -> None:
    """Turn the authors' checkpoint into one of ours.

    The pickle is read as data: nothing in it is executed.
    """
    from .checkpoint import convert_file, read_facts

    config = convert_file(published, out, trained_on=trained_on)
    semantic = f" --semantic {read_facts(out).semantic_model or 'FOLDER'}" if config.semantic_dim else ""
    click.echo(f"Checkpoint: {out}\nNext:       {PROGRAM} rank YOUR_FOLDER --model {out}{semantic}")


@cli.command(epilog=EXIT_CODES)
@_paths_argument
@click.option("--semantic", required=True, metavar="MODEL", help="Semantic model: folder or Hub id.")
@click.option("--cache", required=True, type=_PATH, metavar="DIR", help="Where the vectors go.")
@_computing_options
def extract(paths: Sequence[Path], semantic: str, cache: Path, batch_size: int | None, **options: Any) -> int:
    """Fill a cache with the semantic vectors of pictures.

    They are what a language model says about a picture, and nearly all of the time that scoring it takes.
    Scoring with the same --semantic and --cache then costs no language model. Pictures that are in the
    cache already are not asked about again: an interrupted run goes on where it was.
    """
    from .folders import find_pictures

    total, all_listed = _survey(paths, None)

    from .extraction_run import extract_pictures
    from .semantic import SemanticExtractor
    from .terminal import extract_with_progress

    extractor = SemanticExtractor(semantic, cache=cache, **options)
    extracted = extract_pictures(extractor, find_pictures(paths), batch_size)
    errors = extract_with_progress(extracted, total, f"Vectors: {cache}")
    return SOME_FAILED if errors or not all_listed else 0


@cli.command(epilog=EXIT_CODES)
@click.argument("pipeline", metavar="PIPELINE")
@click.option("--prompts", required=True, type=_PATH, metavar="FILE", help="Plain text, one prompt a line.")
@click.option("--n", default=8, show_default=True, type=click.IntRange(min=2), help="Candidates of each prompt.")
@click.option("--steps", type=click.IntRange(min=2), help="Inference steps.  [default: the pipeline's]")
@click.option("--guidance", type=float, help="Guidance scale.  [default: the pipeline's]")
@click.option("--width", type=click.IntRange(min=8), help="Of the pictures.  [default: the pipeline's]")
@click.option("--height", type=click.IntRange(min=8), help="Of the pictures.  [default: the pipeline's]")
@click.option(
    "--target-share",
    default=0.9,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the gain to keep.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the first candidate.")
@click.option(
    "--preview", default="auto", show_default=True, help="auto, vae, tiny; a tiny autoencoder's folder or id."
)
@click.option("--observe", metavar="MODEL", help="A second scorer that only watches.")
@click.option("--out", type=_PATH, metavar="F.json", help="Write all of it as JSON.")
@click.option("--plot", type=_PATH, metavar="F.png", help="Draw the curves.")
@_json_option
@_model_options
def calibrate(
    pipeline: str,
    prompts: Path,
    n: int,
    target_share: float,
    seed: int,
    preview: str,
    observe: str | None,
    out: Path | None,
    plot: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Find out where a pipeline's candidates can be dropped early.

    PIPELINE is a folder or Hub id of a diffusers pipeline. For every prompt N candidates are generated to the
    end, and a preview of each is scored on the way; the table says how well that foretells the winner, and
    which prune_at keeps the wanted share of what best-of-N gains. Twenty prompts like yours are a fair start.
    """
    from .prompt_file import read_prompt_lines

    for file, ending in ((out, ".json"), (plot, ".png")):
        if file is not None and file.suffix.lower() != ending:
            raise ValueError(f"Expected a file ending in {ending}, got {file}.")
        if file is not None and not file.parent.is_dir():
            raise FileNotFoundError(f"Expected an existing folder for {file.name}, got {file.parent}. Create it first.")
    texts = read_prompt_lines(prompts)
    names = {"steps": "num_inference_steps", "guidance": "guidance_scale", "width": "width", "height": "height"}
    given = {name: options.pop(option) for option, name in names.items()}

    from .batching import is_out_of_memory
    from .generation.calibration import Calibration
    from .generation.pipeline_files import load_pipeline
    from .scorer import resolve_device, resolve_dtype
    from .scoring_run import ScoringOptions, load
    from .terminal import calibrate_with_progress

    scoring = ScoringOptions(**options)
    device = resolve_device(scoring.device)
    scorer = load(scoring)
    calibration = Calibration(
        load_pipeline(
            pipeline,
            device=device,
            dtype=resolve_dtype(scoring.dtype, device),
            local_files_only=scoring.local_files_only,
        ),
        scorer,
        texts,
        n=n,
        target_share=target_share,
        seed=seed,
        preview=preview,
        observe=None if observe is None else load(scoring, observe),
        batch_size=scoring.batch_size,
        local_files_only=scoring.local_files_only,
        pipe_kwargs={name: value for name, value in given.items() if value is not None},
    )
    try:
        calibrate_with_progress(calibration, out=out, plot=plot, as_json=as_json)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ValueError(
            f"Expected memory for one candidate at a time on {str(device)!r}, got too little. Use --dtype float16, or "
            "a smaller --width and --height."
        ) from error


@cli.command()
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=_PATH)
@_json_option
@_debug_option
def models(paths: Sequence[Path], as_json: bool) -> None:
    """Show the models on this machine and where they came from.

    That is the scorer in the package, checkpoints among PATHs (files or folders; default: the working
    directory), and what is in the Hub's cache.
    """
    from dataclasses import asdict

    from .inventory import installed_models

    if missing := [path for path in paths if not path.exists()]:
        raise ValueError(f"Expected files or folders, got {missing[0]}: no such file or folder.")
    found = list(installed_models(paths or [Path()]))
    if as_json:
        click.echo(json.dumps({"models": [asdict(model) for model in found]}, indent=1))
        return
    from .terminal import model_list

    click.echo(model_list(found))


def _survey(paths: Sequence[Path], report: Path | None) -> tuple[int, bool]:
    """Counts the pictures and finds out what is wrong before a model is loaded.

    Returns:
        The number of pictures, and whether every folder could be listed.
    """
    from .folders import find_pictures

    if report is not None and report.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"Expected a report ending in .html, got {report}.")
    unlisted: list[OSError] = []
    total = sum(1 for _ in find_pictures(paths, on_error=unlisted.append))
    for error in unlisted:
        _notice(f"left out {error.filename}: {error.strerror}")
    if not total:
        raise ValueError(f"Expected pictures in {', '.join(map(str, paths))}, got none.")
    return total, not unlisted


def _judged(
    ranking: "Ranking", records: "Sequence[Record]", is_selection: bool
) -> "Iterator[tuple[Record, bool | None]]":
    """Every record with whether it is kept; None where nothing was selected."""
    for is_kept, pictures in ((True, ranking.kept), (False, ranking.rejected), (None, ranking.failed)):
        for picture in pictures:
            yield records[picture.index], is_kept if is_selection else None


def _write_report(
    report: Path, scoring: "ScoringRun", judged: "Iterable[tuple[Record, bool | None]]", **settings: Any
) -> None:
    from .report import ReportEntry, write_report

    entries = (
        ReportEntry(r.path, r.score, r.percentile, r.width or 0, r.height or 0, is_kept, r.error)
        for r, is_kept in judged
    )
    write_report(report, entries, model=scoring.scorer.info, **settings)
    click.echo(f"Report: {report}", err=True)


def _notice(message: str) -> None:
    """One line on stderr, whatever is in the file names. Needs no other module: it may report a missing one."""
    one_line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)
    click.echo(f"{PROGRAM}: {one_line}", err=True)
