"""The commands that measure a scorer and distill it into a small one: evaluate, distill."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import MaAgiqaError
from .labelled import labels_options, say_unlabelled, take_labelled_sets
from .options import (
    EXIT_CODES,
    PATH,
    PROGRAM,
    SCORERS,
    SOME_FAILED,
    behind_model_options,
    check_outputs,
    json_option,
    list_pictures,
    notice,
    prompts_option,
    say_missing_prompts,
    scoring_options,
)

if TYPE_CHECKING:
    from ..evaluation.evaluate import Evaluation
    from ..labels.labelled_set import LabelledSet
    from .scoring_run import ScoringRun

_PARTS = ("train", "val", "test")


@click.command(epilog=EXIT_CODES)
@labels_options
@click.option(
    "--split", metavar="SPLIT", help="Evaluate one part only: 70/10/20, prompt:70/10/20, generator:NAME or a column."
)
@click.option(
    "--part", default="test", show_default=True, type=click.Choice(_PARTS), help="Part of --split to evaluate."
)
@click.option(
    "--seed",
    default=20,
    show_default=True,
    type=click.IntRange(min=0),
    metavar="S",
    help="Seed for --split and the bootstrap.",
)
@click.option(
    "--resamples",
    default=1000,
    show_default=True,
    type=click.IntRange(min=0),
    metavar="N",
    help="Bootstrap resamples; 0 disables intervals.",
)
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(["semantic_content", "coherence", "alignment", "visual"]),
    help="Disable one expert of an MA-AGIQA checkpoint; --semantic none disables all that use a language model.",
)
@click.option(
    "--plot", type=PATH, metavar="F.png", help="Plot scores against labels with the fitted curve: .png, .svg or .pdf."
)
@click.option("--row", type=click.Choice(["markdown", "latex"]), help="Print table rows for a paper instead.")
@json_option
@scoring_options
def evaluate(
    split: str | None,
    part: str,
    seed: int,
    resamples: int,
    plot: Path | None,
    row: str | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Measure how well a scorer agrees with human scores.

    Reports SRCC and KRCC of the raw scores, and PLCC and RMSE after a 4-parameter logistic fit, each with a 95 %
    bootstrap interval: overall, per generator where a column names it, and within prompts that several pictures
    share. Repeat --labels and --images to evaluate more data sets, each on its own.
    """
    if row and as_json:
        raise click.UsageError("Expected --row or --json, got both.", click.get_current_context())
    check_outputs(plot, endings=(".png", ".svg", ".pdf"))
    sets = take_labelled_sets(options, split)
    if split is not None:
        sets = [_part(labelled, split, part, seed) for labelled in sets]

    from ..evaluation.scatter_plot import draw_scatter
    from ..evaluation.text import evaluation_text, latex_rows, markdown_rows
    from ..records.prompts import read_prompts
    from ..records.record import path_key
    from .scoring_run import ScoringOptions, prepare
    from .tables import model_facts

    prompts = {path_key(picture.path): picture.prompt for s in sets for picture in s.pictures if picture.prompt}
    if (file := options.pop("prompts")) is not None:
        given = read_prompts(file)
        say_missing_prompts(given, (picture.path for s in sets for picture in s.pictures), file)
        prompts |= given
    asked, target = ScoringOptions(**options), options["target"] or sets[0].targets[0]
    scoring = prepare(asked, prompts)
    if asked.target is None and target != scoring.scorer.info.target and target in scoring.scorer.info.targets:
        scoring = prepare(replace(asked, target=target), prompts)  # what the labels are of
    info = scoring.scorer.info
    if others := [name for name in sets[0].targets if name != target]:
        notice(f"evaluating {target}; evaluate {' and '.join(others)} in a separate run")
    if asked.target is None and info.target and target not in info.targets:
        notice(f"{info.name} cannot score {target}; its {info.target} is compared with these labels")
    info.require_scale("to be compared with labels")
    evaluations = [_measured(scoring, labelled, target, prompts, resamples=resamples, seed=seed) for labelled in sets]
    if as_json:
        figures = [evaluation.to_dict() for evaluation in evaluations]
        facts = figures[0] if len(figures) == 1 else {"sets": figures}
        click.echo(json.dumps({"model": model_facts(info), **facts}, indent=1, allow_nan=False))
    elif row:
        click.echo((markdown_rows if row == "markdown" else latex_rows)(info.name, evaluations))
    else:
        trained_on = f" (trained on {info.trained_on})" if info.trained_on else ""
        click.echo("\n\n".join(evaluation_text(e, f"{info.name}{trained_on}") for e in evaluations))
    if plot is not None:
        draw_scatter(evaluations, plot, model=info.name)
        click.echo(f"Plot: {plot}", err=True)
    return SOME_FAILED if any(evaluation.failed for evaluation in evaluations) else 0


@click.command(epilog=EXIT_CODES)
@click.option(
    "--teacher",
    "model",
    metavar="MODEL",
    help=f"Teacher scorer: {SCORERS}.",
)
@click.option(
    "--previews",
    type=PATH,
    metavar="DIR",
    help="Folder of `calibrate --save-previews`, in place of --teacher and --images: teaches a scorer of previews.",
)
@click.option(
    "--images",
    multiple=True,
    type=PATH,
    metavar="DIR",
    help="Folder of pictures like those you will score. Repeat for more folders.",
)
@click.option("--out", required=True, type=PATH, metavar="F.safetensors", help="File for the small scorer.")
@click.option(
    "--seed",
    default=20,
    show_default=True,
    type=click.IntRange(min=0),
    metavar="S",
    help="Seed for choosing the held-out fifth.",
)
@json_option
@prompts_option
@behind_model_options
def distill(previews: Path | None, images: Sequence[Path], out: Path, seed: int, as_json: bool, **options: Any) -> int:
    """Distill a large scorer into a small, fast one on your own pictures.

    The teacher scores the pictures once; a small scorer like lite learns to put them in the same order. A fifth of
    the pictures is held out to measure how well the student agrees with the teacher; the result is printed and
    saved in the file. Start with a few hundred pictures. Do not expect much on pictures of another kind.

    With --previews, a small scorer learns to tell from an unfinished picture what the finished one will score: for
    pruning, as early_scorer. It is written only if it does so better than the judge itself, on prompts held out.
    """
    check_outputs(out, endings=(".safetensors",))
    if previews is not None:
        if options["model"] or images:
            raise MaAgiqaError("Expected --previews alone, got --teacher or --images too. The folder has the scores.")
        return _distill_previews(previews, out, as_json)
    for option, given in (("--teacher", options["model"]), ("--images", images)):
        if not given:
            raise click.UsageError(f"Missing option '{option}'.")
    if out.exists() and Path(options["model"]).exists() and out.samefile(options["model"]):
        raise MaAgiqaError(f"Expected another file than the teacher's, got {out} for both. It would be lost.")
    pictures, all_listed = list_pictures(images)

    from ..training.distillation.distill import check_distillation, distilled_text, follow
    from .scoring_run import ScoringOptions, prepare
    from .tables import model_facts
    from .terminal import progress_over

    scoring = prepare(ScoringOptions(**options))
    teacher = scoring.scorer.info
    check_distillation(teacher, out, len(pictures))
    if teacher.needs_prompt:
        notice(f"{teacher.name} reads prompts, but its student cannot: it learns only what is visible.")
    say_missing_prompts(scoring.prompts, pictures, options["prompts"])
    scores = _scores(scoring, pictures)
    with progress_over(len(pictures)):
        distilled = follow(teacher, pictures, scores, out, seed=seed)
    if as_json:
        facts = {"taught_on": distilled.taught, "failed": distilled.failed, "parts": distilled.parts}
        click.echo(
            json.dumps(
                {"out": str(out), "teacher": model_facts(teacher), "held_out": distilled.held_out.to_dict(), **facts},
                indent=1,
                allow_nan=False,
            )
        )
    else:
        click.echo(distilled_text(distilled, teacher))
        click.echo(f"Next:     {PROGRAM} rank YOUR_FOLDER --model {out}")
    return SOME_FAILED if distilled.failed or not all_listed else 0


def _distill_previews(folder: Path, out: Path, as_json: bool) -> int:
    from ..training.distillation.early import distill_previews, early_text

    early = distill_previews(folder, out)
    if as_json:
        facts = {"out": str(out), "judge": early.judge, "pipeline": early.pipeline, "held_out": early.measured}
        click.echo(json.dumps(facts, indent=1, allow_nan=False))
    else:
        click.echo(early_text(early, out))
        click.echo('Next:     best_of_n(..., early_scorer=load_early_scorer("' + str(out) + '"))')
    return 0


def _scores(scoring: ScoringRun, pictures: Sequence[Path]) -> list[float]:
    """Of all pictures, with progress and a line for each error; NaN where there is none."""
    from ..records.record import Record
    from .terminal import error_lines, score_with_progress

    records: list[Record] = []
    with error_lines() as show:
        score_with_progress(scoring, pictures, [records.extend, show])
    return [math.nan if record.score is None else record.score for record in records]


def _part(labelled: LabelledSet, split: str, part: str, seed: int) -> LabelledSet:
    from ..labels.splits import make_split

    rows = getattr(make_split(labelled, split, seed), part)
    if not rows:
        raise MaAgiqaError(f"Expected pictures in the {part} part of {labelled.name}, got none with --split {split}.")
    return replace(labelled, name=f"{labelled.name} {part}", pictures=tuple(labelled.pictures[row] for row in rows))


def _measured(
    scoring: ScoringRun, labelled: LabelledSet, target: str, prompts: Mapping[str, str], **bootstrap: int
) -> Evaluation:
    from ..evaluation.evaluate import evaluate as measure
    from ..records.record import path_key

    say_unlabelled(labelled)
    target = target if target in labelled.targets else labelled.targets[0]
    pictures = [picture for picture in labelled.pictures if target in picture.scores]
    return measure(
        _scores(scoring, [picture.path for picture in pictures]),
        [picture.scores[target] for picture in pictures],
        name=labelled.name,
        generators=[picture.generator for picture in pictures],
        prompts=[prompts.get(path_key(picture.path)) for picture in pictures],
        **bootstrap,
    )
