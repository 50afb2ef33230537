"""The commands about models: convert, extract, models."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..errors import MaAgiqaError
from .options import (
    EXIT_CODES,
    PATH,
    PROGRAM,
    SOME_FAILED,
    computing_options,
    debug_option,
    json_option,
    list_pictures,
    paths_argument,
    say_missing_prompts,
)


@click.command()
@click.argument("published", metavar="PUBLISHED.pt", type=PATH)
@click.argument("out", metavar="OUT.safetensors", type=PATH)
@click.option("--trained-on", metavar="NAME", help="Name of the data set it was trained on.  [default: AGIQA-3K]")
@debug_option
def convert(published: Path, out: Path, trained_on: str | None) -> None:
    """Convert a published checkpoint to .safetensors: MA-AGIQA's, or a judge's.

    Judges: ImageReward.pt, HPS_v2.1_compressed.pt, sac+logos+ava1-l14-linearMSE.pth, aesthetic_predictor_v2_5.pth; a
    folder of pickled shards, as DeQA-Score is published, becomes the folder OUT with the same model. Pickles are read
    as data only; no code in them is executed.
    """
    if published.is_dir():
        from ..model_files.shards_converted import convert_shards

        written = convert_shards(published, out)
        click.echo(f"Model: {out} ({len(written)} {'file' if len(written) == 1 else 'files'} of weights)")
        return
    from ..atomic_write import check_can_write

    check_can_write(out)

    from ..checkpoint import convert_file, read_facts
    from ..scorers.families import FAMILIES
    from ..scorers.judges.convert import convert_judge

    try:
        family = None if trained_on is not None else convert_judge(published, out)
    except MaAgiqaError:
        if any(published.name in family.files for family in FAMILIES):
            raise
        family = None  # what follows says what is wrong with a checkpoint of MA-AGIQA
    if family is not None:
        click.echo(f"Checkpoint: {out}, of {family}\nNext:       {PROGRAM} rank YOUR_FOLDER --model {family}:{out}")
        return
    config = convert_file(published, out, trained_on=trained_on)
    semantic = f" --semantic {read_facts(out).semantic_model or 'FOLDER'}" if config.semantic_dim else ""
    click.echo(f"Checkpoint: {out}\nNext:       {PROGRAM} rank YOUR_FOLDER --model {out}{semantic}")


@click.command(epilog=EXIT_CODES)
@paths_argument
@click.option("--semantic", required=True, metavar="MODEL", help="Semantic model: a folder or Hub id.")
@click.option("--cache", required=True, type=PATH, metavar="DIR", help="Folder to write the vectors to.")
@click.option(
    "--prompts",
    type=PATH,
    metavar="FILE",
    help="Table with the columns path and prompt; adds the vectors for alignment.",
)
@computing_options
def extract(
    paths: Sequence[Path], semantic: str, cache: Path, prompts: Path | None, batch_size: int | None, **options: Any
) -> int:
    """Compute semantic vectors of pictures into a cache.

    The vectors come from a language model, which takes nearly all of the time of scoring a picture. Scoring with
    the same --semantic and --cache then reads them instead of running the model. Pictures already in the cache are
    skipped: an interrupted run resumes where it left off.
    """
    from ..atomic_write import check_can_write_in

    check_can_write_in(cache)
    pictures, all_listed = list_pictures(paths)

    from ..records.prompts import read_prompts
    from ..semantic import SemanticExtractor
    from ..semantic.questions import questions_for
    from .extraction_run import extract_pictures
    from .terminal import extract_with_progress

    texts = None if prompts is None else read_prompts(prompts)
    say_missing_prompts(texts, pictures, prompts)
    questions = questions_for(["quality"] if texts is None else ["quality", "alignment"])
    extractor = SemanticExtractor(semantic, cache=cache, questions=questions, **options)
    extracted = extract_pictures(extractor, pictures, batch_size, texts)
    errors = extract_with_progress(extracted, len(pictures), f"Vectors: {cache}")
    return SOME_FAILED if errors or not all_listed else 0


@click.command()
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=PATH)
@click.option("--all", "all_families", is_flag=True, help="Show every family of scorers that can be loaded.")
@json_option
@debug_option
def models(paths: Sequence[Path], all_families: bool, as_json: bool) -> None:
    """List the models on this machine and where they came from.

    Lists the scorer in the package, the checkpoints in each PATH (a file or folder; default: the working
    directory), and the models in the Hugging Face cache.
    """
    from dataclasses import asdict

    if all_families:
        if paths:
            raise click.UsageError(f"Expected no PATH beside --all, got {paths[0]}.", click.get_current_context())
        _show_families(as_json)
        return

    from ..scorers.installed import installed_models

    if missing := [path for path in paths if not path.exists()]:
        raise MaAgiqaError(f"Expected files or folders, got {missing[0]}: no such file or folder.")
    found = list(installed_models(paths or [Path()]))
    if as_json:
        click.echo(json.dumps({"models": [asdict(model) for model in found]}, indent=1))
        return
    from .tables import model_list

    click.echo(model_list(found))


def _show_families(as_json: bool) -> None:
    from ..scorers.families import FAMILIES

    families = [family.facts() for family in FAMILIES]
    if as_json:
        click.echo(json.dumps({"families": families}, indent=1))
        return
    blocks = (
        "\n".join(f"{key.replace('_', ' '):<15}{_in_words(value)}" for key, value in facts.items())
        for facts in families
    )
    click.echo("\n\n".join(blocks))


def _in_words(value: str | bool | None) -> str:
    return value if isinstance(value, str) else {True: "yes", False: "no", None: "-"}[value]
