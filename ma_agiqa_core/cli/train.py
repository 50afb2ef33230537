"""The command that trains a model: train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .labelled import labels_options, say_unlabelled, take_labelled_sets
from .options import PATH, PROGRAM, debug_option, together

if TYPE_CHECKING:
    pass

EXIT_CODES = """\b
Exit codes:
  0    all done
  2    wrong usage, data that cannot be trained on, a full disk: the last state and model stay
  130  interrupted: --resume goes on from the last state"""

# By the names of the fields of `TrainingSettings`.
_protocol_options = together(
    click.option("--epochs", type=click.IntRange(min=1), metavar="N", help="How often each picture is seen."),
    click.option("--seed", type=click.IntRange(min=0), metavar="S", help="Of weights, order and augmentation."),
    click.option(
        "--batch-size", "batch", type=click.IntRange(min=1), metavar="N", help="Pictures of one step, in all."
    ),
    click.option("--learning-rate", type=float, metavar="R", help="Of Adam."),
    click.option("--weight-decay", type=float, metavar="W", help="Of Adam."),
    click.option("--schedule", type=click.Choice(["published", "cosine", "constant"]), help="Of the learning rate."),
    click.option("--warmup", type=click.IntRange(min=0), metavar="N", help="Steps in which the rate rises."),
    click.option(
        "--mixed-precision", type=click.Choice(["no", "bf16", "fp16"]), help="Precision of the training steps."
    ),
    click.option(
        "--accumulate", type=click.IntRange(min=1), metavar="N", help="Compute a step in N parts, for memory."
    ),
    click.option("--rank-loss", type=float, metavar="W", help="Weight of a loss on the order of pairs."),
    click.option("--ema", type=float, metavar="D", help="Decay of a moving average of the weights, e.g. 0.999."),
    click.option("--layer-decay", type=float, metavar="D", help="Of the rate, block by block down the backbone."),
    click.option("--freeze-backbone", is_flag=True, default=None, help="The backbone learns nothing."),
    click.option("--scale-rate", is_flag=True, default=None, help="Multiply the rate by batch size / 8."),
    click.option(
        "--published-validation", is_flag=True, default=None, help="Validate without the last, partial batch."
    ),
    click.option("--save-every", type=click.IntRange(min=1), metavar="N", help="Steps between states on disk."),
)


@click.command(epilog=EXIT_CODES)
@labels_options
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder for the model and all that is measured.")
@click.option(
    "--split",
    default="70/10/20",
    show_default=True,
    metavar="SPLIT",
    help="Shares, prompt:70/10/20, generator:NAME or a column.",
)
@click.option("--split-seed", default=20, show_default=True, type=click.IntRange(min=0), help="Of the split's shuffle.")
@click.option("--preset", default="ma-agiqa", show_default=True, type=click.Choice(["ma-agiqa", "tiny"]))
@click.option(
    "--semantic",
    metavar="MODEL",
    help="Semantic model, folder or Hub id; none: the visual expert alone.  [default: the preset's]",
)
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(["semantic_content", "coherence", "alignment"]),
    help="Leave one expert out, for an ablation.",
)
@click.option("--cache", type=PATH, metavar="DIR", help="Cache of semantic vectors.  [default: in --out]")
@click.option("--picture-cache", type=PATH, metavar="DIR", help="Decode and resize pictures once, into this folder.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@_protocol_options
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option(
    "--dtype",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "float32", "float16", "bfloat16"]),
    help="Precision of the language model.",
)
@click.option("--quantization", type=click.Choice(["int8", "nf4"]), help="A smaller language model, less exact.")
@click.option("--device-map", type=click.Choice(["auto"]), help="Spread a language model that does not fit.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Threads that decode pictures.")
@click.option("--local-files-only", is_flag=True, help="Download nothing.")
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

    Writes model.safetensors, the best epoch by SRCC + PLCC of validation, and metrics.json, predictions.csv and
    curves.png. The preset ma-agiqa is the paper's protocol; tiny is a small network that starts from nothing and
    learns in minutes on a processor. Several scores (--score-column quality=A --score-column alignment=B), and
    several sets, train one model with a head for each target. For several graphics cards or machines:
    accelerate launch -m ma_agiqa_core.cli train ...
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
        click.echo(f"\nModel: {result.model}\nNext:  {PROGRAM} rank YOUR_FOLDER --model {result.model}")
