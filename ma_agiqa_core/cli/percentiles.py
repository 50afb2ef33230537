"""The command that gives a scorer a scale: percentiles."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .options import (
    EXIT_CODES,
    PATH,
    PROGRAM,
    SOME_FAILED,
    check_outputs,
    list_pictures,
    notice,
    paths_argument,
    say_missing_prompts,
    scoring_options,
)


@click.command(epilog=EXIT_CODES)
@paths_argument
@click.option("--out", required=True, type=PATH, metavar="F.json", help="File for the percentiles.")
@scoring_options
def percentiles(paths: Sequence[Path], out: Path, **options: Any) -> int:
    """Make a scale for a scorer of your own pictures.

    Scores of CLIP-type judges and rewards mean little by themselves. This scores the pictures once and keeps the
    quantiles: with --percentiles F.json every later score comes with "better than 83 % of your pictures". Some hundred
    pictures like those that you will score are enough. The file belongs to this scorer and this revision.
    """
    check_outputs(out, endings=(".json",))
    pictures, all_listed = list_pictures(paths)

    from ..records.record import Record
    from ..scorers.scaled_scorer import ENOUGH, write_percentiles
    from .scoring_run import ScoringOptions, prepare
    from .terminal import error_lines, score_with_progress

    scoring = prepare(ScoringOptions(**options))
    scoring.scorer.info.require_scale("for percentiles")
    say_missing_prompts(scoring.prompts, pictures, options["prompts"])
    records: list[Record] = []
    with error_lines() as show:
        errors = score_with_progress(scoring, pictures, [records.extend, show])
    found = write_percentiles(scoring.scorer, (record.score for record in records if record.score is not None), out)
    if found.pictures < ENOUGH:
        notice(f"only {found.pictures} pictures: percentiles are coarse; a few hundred are better")
    click.echo(f"Percentiles: {out}, of {found.pictures} pictures")
    click.echo(f"Next:        {PROGRAM} score YOUR_FOLDER --model {options['model']} --percentiles {out}")
    return SOME_FAILED if errors or not all_listed else 0
