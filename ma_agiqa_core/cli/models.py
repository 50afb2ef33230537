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
@click.option("--trained-on", metavar="NAME", help="Data set of the labels.  [default: AGIQA-3K, as published]")
@debug_option
def convert(published: Path, out: Path, trained_on: str | None) -> None:
    """Turn the authors' checkpoint into one of ours.

    The pickle is read as data: nothing in it is executed.
    """
    from ..atomic_write import check_can_write

    check_can_write(out)

    from ..checkpoint import convert_file, read_facts

    config = convert_file(published, out, trained_on=trained_on)
    semantic = f" --semantic {read_facts(out).semantic_model or 'FOLDER'}" if config.semantic_dim else ""
    click.echo(f"Checkpoint: {out}\nNext:       {PROGRAM} rank YOUR_FOLDER --model {out}{semantic}")


@click.command(epilog=EXIT_CODES)
@paths_argument
@click.option("--semantic", required=True, metavar="MODEL", help="Semantic model: folder or Hub id.")
@click.option("--cache", required=True, type=PATH, metavar="DIR", help="Where the vectors go.")
@click.option("--prompts", type=PATH, metavar="FILE", help="Table with path,prompt: vectors for alignment, too.")
@computing_options
def extract(
    paths: Sequence[Path], semantic: str, cache: Path, prompts: Path | None, batch_size: int | None, **options: Any
) -> int:
    """Fill a cache with the semantic vectors of pictures.

    They are what a language model says about a picture, and nearly all of the time that scoring it takes.
    Scoring with the same --semantic and --cache then costs no language model. Pictures that are in the
    cache already are not asked about again: an interrupted run goes on where it was.
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
@json_option
@debug_option
def models(paths: Sequence[Path], as_json: bool) -> None:
    """Show the models on this machine and where they came from.

    That is the scorer in the package, checkpoints among PATHs (files or folders; default: the working
    directory), and what is in the Hub's cache.
    """
    from dataclasses import asdict

    from ..scorers.installed import installed_models

    if missing := [path for path in paths if not path.exists()]:
        raise MaAgiqaError(f"Expected files or folders, got {missing[0]}: no such file or folder.")
    found = list(installed_models(paths or [Path()]))
    if as_json:
        click.echo(json.dumps({"models": [asdict(model) for model in found]}, indent=1))
        return
    from .tables import model_list

    click.echo(model_list(found))
