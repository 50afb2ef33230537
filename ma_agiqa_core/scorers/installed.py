"""What is on this machine: scorers in the package, in files and folders and in the Hub's cache, and semantic models."""

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..model_files.digest import file_digest
from ..model_files.transformers_folder import MPLUG_OWL2, complete_kind, fingerprint
from .families import FAMILIES, family_of, family_of_folder
from .family import Family
from .load import load_scorer

logger = logging.getLogger(__name__)

PUBLISHED = "ma-agiqa-agiqa-3k"  # what `ma-agiqa convert` names the authors' checkpoint
SEE_SOURCE = "see where it comes from"
LLAMA_2 = "LLaMA 2 Community License, on which it builds; see its page"


@dataclass(frozen=True)
class InstalledModel:
    """One model on this machine.

    Attributes:
        name: What it calls itself; of a model in the Hub's cache its id.
        kind: "scorer", or "semantic model".
        source: "package", "file", "folder" or "Hub cache".
        file: Its file or folder.
        size: In bytes.
        revision: Which weights: digits of the file's SHA-256, or the Hub's commit.
        licence: As far as it is known.
        description: One line.
        trained_on: The data behind the scores.
        semantic: The semantic model that a scorer needs; None if it needs none.
    """

    name: str
    kind: str
    source: str
    file: str
    size: int
    revision: str
    licence: str
    description: str = ""
    trained_on: str = ""
    semantic: str | None = None


def installed_models(paths: Iterable[Path]) -> Iterator[InstalledModel]:
    """The scorer in the package, what there is among the given paths, and what is in the Hub's cache.

    Args:
        paths: Files, and folders: of checkpoints, or of one model of transformers.
    """
    yield from _carried()
    for path in paths:
        if path.is_dir() and (family := family_of_folder(path)) is not None and family.files:
            yield _published_judge(family, path.resolve().name, "folder", path, path)
            continue
        if path.is_dir() and (kind := complete_kind(path)):
            size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
            yield _image_text_model(kind, path.resolve().name, "folder", path, size, fingerprint(path)[:12])
            continue
        for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
            if (scorer := _scorer_file(file, "file", file.name)) is not None:
                yield scorer
    yield from _hub_cache()


def _carried() -> Iterator[InstalledModel]:
    for family in FAMILIES:
        if family.carried is not None:
            info, file = load_scorer(family.name, device="cpu").info, family.carried()
            yield InstalledModel(
                info.name,
                "scorer",
                "package",
                str(file),
                file.stat().st_size,
                info.revision,
                family.licence,
                info.description,
                info.trained_on,
            )


def _scorer_file(file: Path, source: str, name: str) -> InstalledModel | None:
    """A checkpoint of ours, or None for any other file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as checkpoint:
            metadata = checkpoint.metadata() or {}
        if metadata.get("ma_agiqa.format") != "1" or (family := family_of(metadata)) is None:
            return None
        needed = json.loads(metadata.get("ma_agiqa.semantic", "{}")).get("model")
        size, digest = file.stat().st_size, file_digest(file)
    except (SafetensorError, OSError, ValueError, AttributeError, RecursionError) as error:
        logger.info("left out %s: %s", file, error)
        return None
    return InstalledModel(
        metadata.get("ma_agiqa.name", name),
        "scorer",
        source,
        str(file),
        size,
        digest[:12],
        family.licence if metadata.get("ma_agiqa.name") == PUBLISHED else SEE_SOURCE,
        metadata.get("ma_agiqa.description", f"A {family.name} scorer."),
        metadata.get("ma_agiqa.trained_on", ""),
        needed,
    )


def _hub_cache() -> Iterator[InstalledModel]:
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except (CacheNotFound, OSError):
        return
    for repository in sorted(repositories, key=lambda repository: repository.repo_id):
        for snapshot in sorted(repository.revisions, key=lambda snapshot: snapshot.commit_hash):
            folder = Path(snapshot.snapshot_path)
            weights = folder / "model.safetensors"
            if (family := family_of_folder(folder)) is not None and family.files:
                yield _published_judge(family, repository.repo_id, "Hub cache", folder, repository.repo_id)
            elif weights.is_file() and (scorer := _scorer_file(weights, "Hub cache", repository.repo_id)) is not None:
                yield scorer
            elif kind := complete_kind(folder):
                yield _image_text_model(
                    kind, repository.repo_id, "Hub cache", folder, snapshot.size_on_disk, snapshot.commit_hash
                )


def _published_judge(family: Family, name: str, source: str, folder: Path, model: object) -> InstalledModel:
    files = [folder / file for file in family.files if (folder / file).is_file()]
    return InstalledModel(
        name,
        "scorer",
        source,
        str(folder),
        sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        file_digest(files[0])[:12] if files else fingerprint(folder)[:12],
        family.licence,
        f"Scores {family.scores}. Use --model {family.name}:{model}",
    )


def _image_text_model(kind: str, name: str, source: str, folder: Path, size: int, revision: str) -> InstalledModel:
    family = family_of({"model_type": kind})
    model = name if source == "Hub cache" else folder
    return InstalledModel(
        name,
        "semantic model" if family is None else "scorer",
        source,
        str(folder),
        size,
        revision,
        LLAMA_2 if kind == MPLUG_OWL2 else SEE_SOURCE,
        f"A {kind} image-text model."
        if family is None
        else f"Scores {family.scores}. Use --model {family.name}:{model}",
    )
