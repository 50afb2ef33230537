"""The command that learns somebody's taste: learn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from ..errors import MaAgiqaError
from .options import EXIT_CODES, PATH, PROGRAM, SOME_FAILED, check_outputs, debug_option, json_option

# By the beginning of --features; `scorers.picture_features.load` says the same, and imports torch.
_FEATURES = "lite, or clip:DIR, siglip:DIR or dinov2:DIR with a model's folder"


@click.command(epilog=EXIT_CODES)
@click.argument("picks", metavar="[PICKS]...", nargs=-1, type=PATH)
@click.option(
    "--liked", multiple=True, type=PATH, metavar="DIR", help="Folder of pictures that you kept. Repeat for more."
)
@click.option(
    "--disliked", multiple=True, type=PATH, metavar="DIR", help="Folder of pictures that you rejected. Repeat for more."
)
@click.option("--out", required=True, type=PATH, metavar="F.safetensors", help="File for the scorer.")
@click.option(
    "--features", default="lite", show_default=True, metavar="FEATURES", help=f"What is learned on: {_FEATURES}."
)
@click.option(
    "--prior",
    default="lite",
    show_default=True,
    type=click.Choice(["lite", "none"]),
    help="Scorer to start from; picks move its ranking step by step.",
)
@click.option("--name", metavar="NAME", help="Name of the scorer.  [default: the file's]")
@click.option(
    "--images",
    multiple=True,
    type=PATH,
    metavar="DIR",
    help="Folder to search for pictures that moved. Repeat for more.",
)
@click.option(
    "--seed",
    default=20,
    show_default=True,
    type=click.IntRange(min=0),
    metavar="S",
    help="Seed for the held-out parts.",
)
@click.option("--device", default="auto", show_default=True, metavar="DEVICE", help="Device for the features.")
@json_option
@debug_option
def learn(
    picks: Sequence[Path],
    liked: Sequence[Path],
    disliked: Sequence[Path],
    out: Path,
    features: str,
    prior: str,
    name: str | None,
    images: Sequence[Path],
    seed: int,
    device: str,
    as_json: bool,
) -> int:
    """Learn a scorer of your own taste from your picks.

    PICKS are files: a picks.json (from a report, or the ComfyUI node Mark Images), a CSV with the columns better and
    worse, or a CSV with path and rating; a column prompt helps. Folders of kept and rejected pictures come with --liked
    and --disliked. Several sources add up. It prints how often the scorer agrees with picks that were held out, beside
    lite on the same pairs. Use the result as --model, in load_scorer, in best_of_n, or in ComfyUI.
    """
    check_outputs(out, endings=(".safetensors",))
    if not picks and not liked and not disliked:
        raise MaAgiqaError("Expected picks, got none. Name a picks.json or a CSV, or --liked DIR and --disliked DIR.")

    from ..picks.pick import Picks
    from ..picks.sources import marks_of_folders, read_source

    said, bases = Picks(), list[Path]()
    for source in picks:
        said += read_source(source)
        bases.append(source.parent)
    said += marks_of_folders(liked, disliked)

    from ..learning.learn import learn_from
    from ..learning.text import learned_text
    from .tables import model_facts
    from .terminal import going_through

    learned = learn_from(
        said,
        bases=bases,
        features=features,
        prior=prior,
        name=name or out.stem,
        search=images,
        device=device,
        seed=seed,
        progress=going_through,
    )
    learned.scorer.save(out)
    if as_json:
        lost = {"missing": learned.gathered.missing, "unreadable": learned.gathered.unreadable}
        facts = {"evidence": dict(learned.scorer.facts.evidence), **lost, "beats_lite": learned.beats_lite}
        click.echo(json.dumps({"out": str(out), "model": model_facts(learned.scorer.info), **facts}, indent=1))
    else:
        click.echo(learned_text(learned))
        click.echo(f"Next:     {PROGRAM} rank YOUR_FOLDER --model {out}")
    return SOME_FAILED if learned.gathered.missing or learned.gathered.unreadable else 0
