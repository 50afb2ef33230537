"""What commands share: options and arguments, exit codes, and the list of pictures made before a scorer is loaded."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from ..errors import MaAgiqaError

PROGRAM = "ma-agiqa"
SOME_FAILED, WRONG_USAGE, BUG, INTERRUPTED = 1, 2, 70, 130
EXIT_CODES = """\b
Exit codes:
  0    success
  1    some pictures could not be scored; each has an error message, the others are done
  2    wrong usage, a missing path or model, or no pictures
  70   a bug in ma-agiqa; the traceback is shown
  130  interrupted; finished results are saved
  141  the program reading the output has closed it, as head does"""
# What people keep beside pictures, or take for them, and why it is not read.
NOT_READ = {
    ".3fr .arw .cr2 .cr3 .crw .dng .erf .iiq .kdc .mef .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl .sr2 .srf .srw "
    ".x3f": "camera raw, not read: develop them first",
    ".ai .emf .eps .pdf .ps .svg .svgz .wmf": "drawings, not read: export them as PNG",
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .webm .wmv": "video, not read: export frames",
    ".7z .bz2 .gz .rar .tar .tgz .xz .zip": "archives, not read: unpack them",
    ".cur .dcx .dds .icns .ico .msp .pcx .psd .rgb .sgi .xbm .xpm": "read only when named one by one",
    ".exr .hdr .kra .xcf": "not read: export them as PNG",
}

_Command = TypeVar("_Command", bound=Callable[..., Any])


class _NamedPath(click.Path):
    """Refuses "", a shell variable that was never set: `Path` would take it for the working directory; and NUL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("Expected a path, got an empty one.", param, ctx)
        if "\0" in str(value):
            self.fail(f"Expected a path, got {value!r} with a NUL character.", param, ctx)
        return super().convert(value, param, ctx)


def together(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Several options as one decorator, shown in this order."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class _Source(_NamedPath):
    """A path, or a URL, which `Path` would spell otherwise."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if isinstance(value, str) and "://" in value else super().convert(value, param, ctx)


PATH: Any = _NamedPath(path_type=Path)
# Only consumed here: `run` looks for it itself, since parsing is one of the things that can fail.
debug_option = click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print only JSON on stdout.")
paths_argument = click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=PATH)
sources_argument = click.argument("paths", metavar="SOURCE...", nargs=-1, required=True, type=_Source(path_type=Path))
report_option = click.option("--report", type=PATH, metavar="F.html", help="Write an HTML report with all pictures.")
SCORERS = "lite, a .safetensors file or folder, a Hub id, or FAMILY:MODEL"


def _without_network(context: click.Context, parameter: click.Parameter, is_offline: bool) -> bool:
    if is_offline:
        from .offline import no_network

        context.with_resource(no_network())
    return is_offline


local_files_only_option = click.option(
    "--local-files-only",
    "--offline",
    "local_files_only",
    is_flag=True,
    callback=_without_network,
    help="Never download anything, nor open any connection.",
)


def device_options(dtype_help: str) -> Callable[[_Command], _Command]:
    """Where and how precisely models compute."""
    return together(
        click.option(
            "--device",
            default="auto",
            show_default=True,
            metavar="DEVICE",
            help="Device to compute on: auto, cpu, cuda, cuda:1 or mps.",
        ),
        click.option(
            "--dtype",
            default="auto",
            show_default=True,
            type=click.Choice(["auto", "float32", "float16", "bfloat16"]),
            help=dtype_help,
        ),
        click.option(
            "--quantization",
            type=click.Choice(["int8", "nf4"]),
            help="Quantize the language model: less memory, less precise scores.",
        ),
        click.option(
            "--device-map",
            type=click.Choice(["auto"]),
            help="Split a language model that is too large for one device.",
        ),
    )


# What all commands that load a model share.
computing_options = together(
    device_options("Precision of the model."),
    click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="Number of pictures per batch."),
    local_files_only_option,
    debug_option,
)
prompts_option = click.option(
    "--prompts", type=PATH, metavar="FILE", help="Table with the columns path and prompt: CSV, JSONL or XLSX."
)
# What a scorer is loaded with.
behind_model_options = together(
    click.option(
        "--semantic", metavar="MODEL", help="Semantic model: a folder or Hub id.  [default: the scorer's own]"
    ),
    click.option("--cache", type=PATH, metavar="DIR", help="Folder for cached semantic vectors."),
    click.option(
        "--target",
        metavar="T",
        help="Aspect to score: quality, alignment or authenticity.  [default: the scorer's first]",
    ),
    computing_options,
)
# Which scorer: what all commands that score share.
model_options = together(
    click.option("--model", default="lite", show_default=True, metavar="MODEL", help=f"Scorer: {SCORERS}."),
    behind_model_options,
)
# What `evaluate` takes.
scoring_options = together(prompts_option, model_options)
# What `score` and `rank` share: several scorers of the same pictures.
judging_options = together(
    prompts_option,
    click.option(
        "--model",
        "models",
        multiple=True,
        default=["lite"],
        show_default="lite",
        metavar="MODEL",
        help=f"Scorer: {SCORERS}. Repeat for more scorers: pictures are decoded once.",
    ),
    click.option(
        "--percentiles",
        multiple=True,
        type=PATH,
        metavar="F.json",
        help="Percentiles among your own pictures, made by `ma-agiqa percentiles`. Repeat for more scorers.",
    ),
    behind_model_options,
)


class NoPicturesError(MaAgiqaError):
    """There is none where pictures were expected."""


def list_pictures(paths: Sequence[Path], leave_out: Path | None = None) -> tuple[list[Path], bool]:
    """Lists the pictures once, and finds out what is wrong before a model is loaded.

    A path takes about 0.4 kB: a million pictures 0.4 GB.

    Args:
        paths: Files and folders.
        leave_out: A folder whose pictures are not meant.

    Returns:
        The pictures, and whether every folder could be listed.
    """
    from ..pictures.folders import find_pictures

    unlisted: list[OSError] = []
    met: list[Path] = []
    others: Counter[str] = Counter()  # by ending
    pictures = list(
        find_pictures(
            paths,
            on_error=unlisted.append,
            leave_out=leave_out,
            on_left_out=met.append,
            on_other=lambda name: others.update([Path(name).suffix.lower()]),
        )
    )
    for error in unlisted:
        notice(f"left out {error.filename}: {error.strerror}")
    left_out = sum(1 for _ in find_pictures(met))
    if left_out:
        notice(f"left out the pictures in {leave_out} ({left_out}): that is where copies go")
    if not pictures:
        where = ", ".join(map(str, paths))
        if left_out:
            raise MaAgiqaError(f"Expected pictures outside of {leave_out}, got {where}. Copy into another folder.")
        raise NoPicturesError(f"Expected pictures in {where}, got {_in_words(others)}.")
    if readable := Counter({suffix: count for suffix, count in others.items() if _plug_in_for(suffix)}):
        notice(f"left out {_in_words(readable)}")
    return pictures, not unlisted


def say_missing_prompts(prompts: Mapping[str, str] | None, pictures: Iterable[Path], file: Path | None) -> None:
    """Says which pictures and which prompts of --prompts miss each other; nothing if there are none to be read."""
    from ..records.prompts import missing_prompts

    if file is not None and prompts is not None and (said := missing_prompts(prompts, pictures, file)) is not None:
        notice(said)


def _in_words(files: Counter[str]) -> str:
    """What lies where pictures were expected: at most five kinds, the most frequent first."""
    counts = files.most_common()
    shown = [f"{count} {suffix or 'without an ending'}{_why_not_read(suffix)}" for suffix, count in counts[:5]]
    if len(counts) > 5:
        shown.append(f"{sum(count for _, count in counts[5:])} others")
    return ", ".join(shown) or "none"


def _plug_in_for(suffix: str) -> str | None:
    """The package that would read files of this ending."""
    from ..pictures.plug_ins import PLUG_INS

    return next((plug_in.package for plug_in in PLUG_INS if suffix in plug_in.suffixes), None)


def _why_not_read(suffix: str) -> str:
    if package := _plug_in_for(suffix):
        return f" (to read them: pip install {package})"
    return next((f" ({why})" for suffixes, why in NOT_READ.items() if suffix in suffixes.split()), "")


def check_outputs(*files: Path | None, endings: Sequence[str]) -> None:
    """Refuses outputs before the work that fills them: another ending, or what cannot be written."""
    from ..atomic_write import check_can_write

    for file in files:
        if file is not None and file.suffix.lower() not in endings:
            raise MaAgiqaError(f"Expected a file ending in {' or '.join(endings)}, got {file}.")
        if file is not None:
            check_can_write(file)


def check_report(report: Path | None) -> None:
    """`check_outputs` of a report, whose folder is made with it."""
    from ..atomic_write import check_can_write

    if report is not None and report.suffix.lower() not in (".html", ".htm"):
        raise MaAgiqaError(f"Expected a report ending in .html, got {report}.")
    if report is not None:
        check_can_write(report, makes_folder=True)


def notice(message: str) -> None:
    """One line on stderr, whatever is in the file names. Needs no other module: it may report a missing one."""
    one_line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)
    with suppress(OSError):  # nobody reads it, or a full disk takes it: the exit code still says what happened
        click.echo(f"{PROGRAM}: {one_line}", err=True)
