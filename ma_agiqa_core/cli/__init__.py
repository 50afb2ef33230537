"""The command line: parse, call, print.

Imports nothing heavy before a command runs, so that `ma-agiqa --help` comes at once.
"""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from ..errors import MaAgiqaError
from . import evaluation, families, generation, learn, models, percentiles, scoring, train
from .options import BUG, EXIT_CODES, INTERRUPTED, PROGRAM, SOME_FAILED, WRONG_USAGE, debug_option, notice
from .streams import READER_LEFT, ReaderLeftError, end_as_reader_left, flush_streams, open_streams, writing_to_reader

__all__ = ["BUG", "INTERRUPTED", "PROGRAM", "SOME_FAILED", "WRONG_USAGE", "cli", "main", "run"]


def main() -> None:
    """The console command."""
    open_streams()
    code = run(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done; taking torch down takes a moment
    flush_streams()
    if code == READER_LEFT:
        end_as_reader_left()
    if code == INTERRUPTED:  # an ordinary exit waits for threads that still decode and score
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Runs a command line and returns the exit code; a user's mistake becomes one line on stderr."""
    try:
        with writing_to_reader():
            return _run(arguments)
    except ReaderLeftError:
        return READER_LEFT


def _run(arguments: Sequence[str]) -> int:
    try:
        return cli.main(list(arguments), PROGRAM, standalone_mode=False) or 0
    except click.Abort:  # Ctrl-C
        return INTERRUPTED
    except ReaderLeftError:
        raise
    except (click.ClickException, MaAgiqaError, OSError) as error:
        if "--debug" in arguments:
            traceback.print_exception(error)
        notice(_message(error))
        return WRONG_USAGE
    except Exception as error:  # not the user's mistake: all there is to know about it
        traceback.print_exception(error)
        notice("this is a bug in ma-agiqa, or in a library that it uses. Please report it with the lines above.")
        return BUG


def _message(error: Exception) -> str:
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        return error.format_message() + (f" Try '{context.command_path} --help'." if context else "")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + ("" if error.filename is None else f": {error.filename}")
    return str(error)


class _Commands(click.Group):
    """Click makes its own end of a reader that left, exit code 1, unless it is told before."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        with writing_to_reader():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with writing_to_reader():
            return super().invoke(ctx)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name=PROGRAM)
@debug_option
@click.pass_context
def cli(context: click.Context) -> None:
    """Score the quality of pictures, rank them, and keep the best."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(WRONG_USAGE)


for command in (
    scoring.demo,
    scoring.score,
    scoring.rank,
    models.convert,
    models.extract,
    models.models,
    percentiles.percentiles,
    generation.calibrate,
    families.families,
    train.train,
    evaluation.evaluate,
    evaluation.distill,
    learn.learn,
):
    cli.add_command(command)
