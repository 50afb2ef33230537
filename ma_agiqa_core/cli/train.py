"""The command that trains a model: train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .labelled import labels_options, say_unlabelled, take_labelled_sets
from .options import PATH, PROGRAM, debug_option, device_options, local_files_only_option, together

EXIT_CODES = """\b
Exit codes:
  0    success
  2    wrong usage, unusable data or a full disk; the last state and model are kept
  130  interrupted; --resume continues from the last state"""

# By the names of the fields of `TrainingSettings`.
_protocol_options = together(
    click.option("--epochs", type=click.IntRange(min=1), metavar="N", help="Number of epochs."),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        metavar="S",
        help="Seed for initial weights, picture order and augmentation.",
    ),
    click.option(
        "--batch-size", "batch", type=click.IntRange(min=1), metavar="N", help="Pictures per step, over all processes."
    ),
    click.option("--learning-rate", type=float, metavar="R", help="Adam's learning rate."),
    click.option("--weight-decay", type=float, metavar="W", help="Adam's weight decay."),
    click.option("--schedule", type=click.Choice(["published", "cosine", "constant"]), help="Learning rate schedule."),
    click.option("--warmup", type=click.IntRange(min=0), metavar="N", help="Steps of linear learning rate warm-up."),
    click.option("--mixed-precision", type=click.Choice(["no", "bf16", "fp16"]), help="Mixed precision training."),
    click.option(
        "--accumulate", type=click.IntRange(min=1), metavar="N", help="Split each step into N parts to save memory."
    ),
    click.option("--rank-loss", type=float, metavar="W", help="Weight of the pairwise ranking loss."),
    click.option("--ema", type=float, metavar="D", help="Decay of the moving average of the weights, e.g. 0.999."),
    click.option(
        "--layer-decay",
        type=float,
        metavar="D",
        help="Learning rate of each backbone block relative to the next one.",
    ),
    click.option("--freeze-backbone", is_flag=True, default=None, help="Freeze the backbone."),
    click.option("--scale-rate", is_flag=True, default=None, help="Multiply the learning rate by batch size / 8."),
    click.option(
        "--published-validation",
        is_flag=True,
        default=None,
        help="Leave the last, partial batch out of validation, as published.",
    ),
    click.option("--save-every", type=click.IntRange(min=1), metavar="N", help="Save the state every N steps."),
)


@click.command(epilog=EXIT_CODES)
@labels_options
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder for the model and its metrics.")
@click.option(
    "--split",
    default="70/10/20",
    show_default=True,
    metavar="SPLIT",
    help="Train, validation and test: shares, prompt:70/10/20, generator:NAME or a column.",
)
@click.option(
    "--split-seed", default=20, show_default=True, type=click.IntRange(min=0), metavar="S", help="Seed for --split."
)
@click.option(
    "--preset",
    default="ma-agiqa",
    show_default=True,
    type=click.Choice(["ma-agiqa", "tiny"]),
    help="Preset for all settings.",
)
@click.option(
    "--features",
    metavar="FEATURES",
    help="What describes pictures in the place of a vision transformer that is trained: lite, or clip:DIR, siglip:DIR "
    "or dinov2:DIR with a model's folder.  [default: the preset's]",
)
@click.option(
    "--semantic",
    metavar="MODEL",
    help="Semantic model: a folder or Hub id; none trains the visual expert alone.  [default: the preset's]",
)
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(["semantic_content", "coherence", "alignment"]),
    help="Train without one expert, for an ablation. Repeat for more.",
)
@click.option("--cache", type=PATH, metavar="DIR", help="Folder for cached semantic vectors.  [default: in --out]")
@click.option("--picture-cache", type=PATH, metavar="DIR", help="Folder for cached pictures, decoded and resized once.")
@click.option("--resume", is_flag=True, help="Resume the run in --out.")
@_protocol_options
@device_options("Precision of the language model.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Number of threads that decode pictures.")
@local_files_only_option
@debug_option
def train(
    out: Path,
    split: str,
    split_seed: int,
    preset: str,
    semantic: str | None,
    without: Sequence[str],
    cache: Path | None,
    picture_cache: Path | None,
    resume: bool,
    device: str,
    dtype: str,
    quantization: str | None,
    device_map: str | None,
    workers: int | None,
    local_files_only: bool,
    **options: Any,
) -> None:
    """Train a model on human scores.

    Writes model.safetensors (the epoch with the best validation SRCC + PLCC), metrics.json, predictions.csv and
    curves.png. The preset ma-agiqa follows the paper; tiny trains a small network on lite's features in a minute on
    a CPU. The result is compared with the mean of the labels, with lite and with ridge regression. Several scores
    (--score-column quality=A --score-column alignment=B) or several data sets train one model with one head per
    target. To train on several GPUs or machines: accelerate launch -m ma_agiqa_core.cli train ...
    """
    from ..atomic_write import check_can_write_in

    check_can_write_in(out)
    sets = take_labelled_sets(options, split)

    from ..labels.joined import merge_sets
    from ..labels.splits import make_split
    from ..training.settings import preset as preset_settings

    settings = preset_settings(preset, **options, left_out=tuple(without))
    labelled, parts = merge_sets(sets, [make_split(labelled, split, split_seed) for labelled in sets])
    say_unlabelled(labelled)

    from ..training.train import train as train_model
    from .train_progress import TerminalProgress, training_table

    with TerminalProgress() as progress:
        result = train_model(
            settings,
            labelled,
            parts,
            out,
            semantic=semantic,
            cache=cache,
            picture_cache=picture_cache,
            resume=resume,
            device=device,
            dtype=dtype,
            quantization=quantization,
            device_map=device_map,
            local_files_only=local_files_only,
            workers=workers,
            progress=progress,
        )
    if result.is_main:
        click.echo(training_table(result))
        following = f"{PROGRAM} rank YOUR_FOLDER --model {result.model}"
        if any(comparison.is_unfit for comparison in result.comparisons.values()):
            following = f"do not rank with it yet: get more labels, or try `{PROGRAM} learn` on the same ratings"
        click.echo(f"\nModel: {result.model}\nNext:  {following}")
