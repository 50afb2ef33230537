"""The door through which all scorers are loaded: a name, a file or a folder becomes a scorer of a family."""

import os
import stat
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import torch

from ..arguments.options import check_paths, expanded, shown
from ..compute.caller_state import as_loaded
from ..errors import MaAgiqaError, MissingFileError
from . import families
from .families import family_of, named_family
from .family import Family, Request
from .scorer import Scorer

_PICKLE_SUFFIXES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"}
_PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")  # bare, and torch's zip


@as_loaded()
def load_scorer(
    model: str | os.PathLike[str],
    *,
    semantic: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    quantization: str | None = None,
    device_map: object = None,
    revision: str | None = None,
    local_files_only: bool = False,
    target: str | None = None,
    without: Collection[str] = (),
    percentiles: str | os.PathLike[str] | None = None,
) -> Scorer:
    """Loads a scorer. Files are data: pickles are refused, nothing in a checkpoint is executed.

    Args:
        model: "lite" (carried in the package), a .safetensors file, a folder with model.safetensors, or a Hub
            id (`owner/name`, `owner/name@revision`) of a repository with model.safetensors. Or a family of
            `FAMILIES` by its name, such as "imagereward", for its published weights, and "FAMILY:" with a folder, file
            or Hub id for others; "@" and a revision may follow: "clip:openai/clip-vit-base-patch32@main".
        semantic: Semantic model of an MA-AGIQA checkpoint: its folder, or a Hub id. None takes the one that
            the checkpoint names. "none" silences the experts that read it, and needs no language model.
        cache: Folder of semantic vectors: a picture already seen costs no language model.
        device: "auto" takes cuda, then mps, then cpu.
        dtype: "auto", "float32", "bfloat16" or "float16". "auto" is float32, but for the language model on a
            graphics card bfloat16 (float16 on cards without it, and on mps).
        quantization: Of the language model: None, "int8" or "nf4".
        device_map: Of the language model: None, "auto" or a dict as in accelerate, for cards too small for it.
        revision: The revision that must be loaded: of a file the first digits of its SHA-256, of a Hub id a
            branch, tag or commit, of a CLIP folder the first digits of its files' fingerprint.
        local_files_only: Never use the network. Models already on this machine never do.
        target: What to score, one of `info.targets`: "quality", "alignment" (which needs prompts) or "authenticity".
            None takes the first.
        without: Experts of an MA-AGIQA checkpoint to silence, to measure what they are for: "coherence",
            "semantic_content", "alignment", "visual".
        percentiles: A file that `ma-agiqa percentiles` wrote for this scorer: a scale for scorers without one.

    Raises:
        FileNotFoundError: There is no such file or folder, or a Hub model is not here and cannot be downloaded.
        ValueError: An unknown model, a file that is no checkpoint, or an option that does not apply.

    Example:
        >>> import numpy as np
        >>> scorer = load_scorer("lite", device="cpu")
        >>> scorer.info.low, scorer.info.high
        (0.0, 10.0)
        >>> scores = scorer.score(np.zeros((64, 64, 3), np.uint8))
        >>> scores.shape, scores.dtype
        (torch.Size([1]), torch.float32)
    """
    model = _as_named(model)
    without = (without,) if isinstance(without, str) else tuple(without)
    check_paths(semantic=semantic, cache=cache, percentiles=percentiles)
    _check_weights_have_a_place()
    request = Request(
        str(model),
        semantic=semantic,
        cache=cache,
        device=device,
        dtype=dtype,
        quantization=quantization,
        device_map=device_map,
        revision=revision,
        local_files_only=local_files_only,
        target=target,
        without=without,
    )
    named = named_family(model) if isinstance(model, str) else None
    if named is not None and named.by_name:
        scorer = named.load(_of_named(named.named(request.model), request))
    else:
        scorer = _load_checkpoint(named, model, request)
    if target is not None and target != scorer.info.target:
        raise MaAgiqaError(
            f"Expected a target of {scorer.info.name}, {', '.join(scorer.info.targets)}, got {target!r}."
        )
    if percentiles is None:
        return scorer
    from .scaled_scorer import ScaledScorer, read_percentiles

    return ScaledScorer(scorer, read_percentiles(percentiles))


def _check_weights_have_a_place() -> None:
    """accelerate's context cannot be set aside as `torch.device("meta")` can: it replaces a method of all modules."""
    module = torch.nn.Module()
    module.register_parameter("probe", torch.nn.Parameter(torch.empty(0, device="cpu")))
    if module.get_parameter("probe").is_meta:
        raise MaAgiqaError(
            "Expected modules that keep their weights, got some that put them on the meta device. Load the scorer "
            "outside of accelerate.init_empty_weights."
        )


def _of_named(model: str, request: Request) -> Request:
    """What a family is to load: also of a folder or file the revision may stand behind an @.

    Raises:
        ValueError: Two revisions that contradict each other.
    """
    from ..model_files.hub import is_hub_id

    path, at, pinned = model.rpartition("@")
    if not at or is_hub_id(model) or os.path.lexists(model) or not os.path.lexists(path):
        return replace(request, model=model)
    if request.revision not in (None, pinned):
        raise MaAgiqaError(f"Expected one revision of {path!r}, got {pinned!r} and {request.revision!r}.")
    return replace(request, model=path, revision=pinned)


def _as_named(model: Any) -> str | Path:
    """What the caller means: a path object that leads nowhere and spells a name is that name."""
    if isinstance(model, str):
        return model
    if not isinstance(model, os.PathLike) or not isinstance(text := os.fspath(model), str):
        raise MaAgiqaError(f"Expected a model by its name, path or Hub id, got {shown(model)}. {_loadable()}")
    is_name = named_family(text) is not None and not os.path.lexists(text)
    return PurePath(text).as_posix() if is_name else Path(text)


def _load_checkpoint(named: Family | None, model: str | Path, request: Request) -> Scorer:
    """A file: the one that a family carries in the package, one on this machine, or one of the Hub's."""
    from ..model_files.hub import hub_file, is_hub_id

    revision = request.revision
    if named is not None and named.carried is not None:
        path = named.carried()
    elif is_hub_id(model) and not _looks_like_path(str(model)):
        path = hub_file(str(model), "model.safetensors", revision=revision, local_files_only=request.local_files_only)
        revision = None
    else:
        path = _checkpoint_path(model)
    family = _checkpoint_family(path)
    scorer = family.load(replace(request, model=str(path)))
    if revision is not None and revision != scorer.info.revision:
        raise MaAgiqaError(f"Expected revision {revision!r}, got {scorer.info.revision!r} in {str(path)!r}.")
    return scorer


def _checkpoint_path(model: str | Path) -> Path:
    if not str(model).strip():
        raise MaAgiqaError(f"Expected a known model, got {str(model)!r}. {_loadable()}")
    try:
        path = expanded(model)
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        if isinstance(model, str) and not _looks_like_path(model):
            raise MaAgiqaError(f"Expected a known model, got {shown(model)}. {_loadable()}{_meant(model)}") from None
        raise MissingFileError(
            f"Expected a checkpoint, got {str(model)!r}: no such file or folder.{_meant(str(model))}"
        ) from None
    except MaAgiqaError:
        raise
    except (OSError, ValueError) as error:  # may not be looked at, or can be no file's name
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise MaAgiqaError(f"Expected a checkpoint, got {shown(str(model), 300)}: {reason}. {_loadable()}") from error
    if not is_folder:
        return path
    if not (path / "model.safetensors").is_file():
        raise MaAgiqaError(f"Expected a folder with model.safetensors, got {str(model)!r}. {_loadable()}")
    return path / "model.safetensors"


def _loadable() -> str:
    by_name = [f"'{family.name}:'" for family in families.FAMILIES if family.by_name]
    return (
        "Loadable are 'lite', a .safetensors checkpoint (or a folder with model.safetensors), a Hub id such as "
        f"'owner/name', and {' or '.join(by_name)} with a folder or Hub id: see `ma-agiqa models --all`. Make a "
        "checkpoint of the published file with `ma-agiqa convert`."
    )


def _meant(model: str) -> str:
    """The name that this is nearly, as advice."""
    text = model.strip()
    if text.rstrip("/\\").replace("\\", "/").rpartition("/")[2].lower() == "lite":
        return " Did you mean 'lite', which is carried in the package?"
    name, colon, rest = text.partition(":")
    nearly = [family.name for family in families.FAMILIES if family.by_name and family.name == name.strip().lower()]
    return f" Did you mean '{nearly[0]}:{rest.strip()}'?" if colon and nearly else ""


def _looks_like_path(model: str) -> bool:
    has_suffix = Path(model).suffix in _PICKLE_SUFFIXES | {".safetensors"}
    return has_suffix or model.startswith((".", "~")) or "\\" in model or Path(model).is_absolute()


def _checkpoint_family(path: Path) -> Family:
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            start = file.read(9)
            is_table = (
                start[8:] == b"{"
            )  # behind the length of a safetensors header, which may look like a pickle's start
            if path.suffix.lower() in _PICKLE_SUFFIXES or (start.startswith(_PICKLE_STARTS) and not is_table):
                raise MaAgiqaError(
                    f"Expected a safetensors checkpoint, got the pickle {str(path)!r}, which could run code. "
                    "Convert the published one with `ma-agiqa convert PUBLISHED.pt OUT.safetensors`."
                )
        with safe_open(path, framework="pt") as checkpoint:
            metadata = checkpoint.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise MaAgiqaError(f"Expected a safetensors checkpoint, got {str(path)!r}: {error}.") from error
    if (version := metadata.get("ma_agiqa.format")) != "1":
        raise MaAgiqaError(
            f"Expected ma_agiqa.format '1' in the metadata of {str(path)!r}, got {version!r}. {_loadable()}"
        )
    if (family := family_of(metadata)) is None:
        known = ", ".join(repr(family.name) for family in families.FAMILIES if not family.by_name)
        raise MaAgiqaError(
            f"Expected a checkpoint of one of the families {known} in {str(path)!r}, got the kind "
            f"{metadata.get('ma_agiqa.kind', '')!r}. {_loadable()}"
        )
    return family
