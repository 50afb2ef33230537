"""The door through which all scorers are loaded, and the table of their families.

A new family is its module and its row in `FAMILIES`: what lists or loads scorers takes it from there.
"""

import os
import stat
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any

import torch

from ..arguments.options import check_paths, expanded, shown
from ..compute.caller_state import as_loaded
from ..errors import MaAgiqaError, MissingFileError
from .family import OF_SEMANTIC_MODELS, Family, Request
from .scorer import Scorer

_PICKLE_SUFFIXES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"}
_PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")  # bare, and torch's zip


def _lite_weights() -> Path:
    from .lite import LITE_WEIGHTS

    return LITE_WEIGHTS


def _module(name: str) -> Callable[[Request], Scorer]:
    """The `load` of a family's module, which is imported when the first of its scorers is loaded."""

    def load(request: Request) -> Scorer:
        return import_module(name, __package__).load(request)

    return load


def _is_student(facts: Mapping[str, str]) -> bool:
    return facts.get("ma_agiqa.kind") == "lite" and facts.get("ma_agiqa.network") == "student"


def _is_clip(facts: Mapping[str, str]) -> bool:
    from .clip_files import MODEL_CLASSES

    return facts.get("model_type") in MODEL_CLASSES


FAMILIES: tuple[Family, ...] = (
    Family(
        name="lite",
        model="lite, or FILE.safetensors",
        scores="technical quality: sharpness, noise, artefacts",
        needs_prompt=False,
        licence="Apache-2.0",
        size="1.7 MB, carried in the package",
        detects=lambda facts: facts.get("ma_agiqa.kind") == "lite" and not _is_student(facts),
        load=_module(".lite"),
        carried=_lite_weights,
        refuses=OF_SEMANTIC_MODELS,
    ),
    Family(
        name="student",
        model="FILE.safetensors, made by `ma-agiqa distill`",
        scores="what its teacher scores",
        needs_prompt=False,
        licence="yours; see also its teacher's",
        size="3.3 MB",
        detects=_is_student,
        load=_module(".lite"),
    ),
    Family(
        name="learned",
        model="FILE.safetensors, made by `ma-agiqa learn`",
        scores="how well a picture fits the taste of whoever made the picks",
        needs_prompt=False,
        licence="yours",
        size="9 kB, and the folder of its features, if they are a model's",
        detects=lambda facts: facts.get("ma_agiqa.kind") == "learned",
        load=_module(".learned"),
    ),
    Family(
        name="ma-agiqa",
        model="FILE.safetensors, a folder with model.safetensors, or OWNER/NAME",
        scores="mean opinion scores of quality; of alignment and authenticity where the checkpoint was trained for it",
        needs_prompt=None,
        licence="none stated by its authors",
        size="16.1 GB of mPLUG-Owl2, and the checkpoint",
        detects=lambda facts: facts.get("ma_agiqa.kind") == "ma-agiqa",
        load=_module(".ma_agiqa"),
        agreement="AGIQA-3K: SRCC .8939, PLCC .9273 (Wang et al. 2024)",
    ),
    Family(
        name="clip",
        model="clip:FOLDER or clip:OWNER/NAME",
        scores="how well a picture fits its prompt: CLIPScore, PickScore, SigLIP",
        needs_prompt=True,
        licence="see the model's page",
        size="0.6 GB (CLIP ViT-B/32) to 3.9 GB (PickScore)",
        agreement="PickScore: preference accuracy 61.6 on ImageReward's set, 70.5 on Pick-a-Pic, 79.8 on HPDv2 "
        "(Ma et al. 2025, HPSv3)",
        detects=_is_clip,
        load=_module(".clip"),
        by_name=True,
        repository="openai/clip-vit-base-patch32",
        memory="1 to 5 GB",
        refuses=OF_SEMANTIC_MODELS,
    ),
    Family(
        name="imagereward",
        model="imagereward, imagereward:FOLDER, :FILE or :OWNER/NAME",
        scores="what people like, and whether it fits its prompt",
        needs_prompt=True,
        licence="Apache-2.0",
        size="1.8 GB",
        detects=lambda facts: facts.get("ma_agiqa.kind") == "imagereward",
        load=_module(".judges.imagereward"),
        by_name=True,
        repository="THUDM/ImageReward",
        agreement="preference accuracy 65.1 on ImageReward's set, 61.1 on Pick-a-Pic, 74.0 on HPDv2 (Ma et al. 2025, "
        "HPSv3)",
        memory="2.5 GB",
        files=("ImageReward.pt", "ImageReward.safetensors"),
        refuses=OF_SEMANTIC_MODELS,
    ),
    Family(
        name="hpsv2",
        model="hpsv2, hpsv2:FOLDER, :FILE or :OWNER/NAME",
        scores="which picture of a prompt people prefer: HPSv2.1, and HPSv2.0",
        needs_prompt=True,
        licence="Apache-2.0",
        size="2.0 GB",
        detects=lambda facts: facts.get("ma_agiqa.kind") == "hpsv2",
        load=_module(".judges.hpsv2"),
        by_name=True,
        repository="xswu/HPSv2",
        agreement="preference accuracy 65.7 on ImageReward's set, 63.8 on Pick-a-Pic, 83.3 on HPDv2 (Ma et al. 2025, "
        "HPSv3)",
        memory="5 GB",
        files=("HPS_v2.1_compressed.pt", "HPS_v2.1_compressed.safetensors", "HPS_v2_compressed.pt"),
        refuses=OF_SEMANTIC_MODELS,
    ),
    Family(
        name="laion-aesthetic",
        model="laion-aesthetic, laion-aesthetic:FOLDER, :FILE or :OWNER/NAME",
        scores="how much people like a picture, whatever it shows",
        needs_prompt=False,
        licence="Apache-2.0 (the head's repository), MIT (CLIP)",
        size="3.7 MB, and 1.7 GB of CLIP ViT-L/14",
        detects=lambda facts: facts.get("ma_agiqa.kind") == "laion-aesthetic",
        load=_module(".judges.laion_aesthetic"),
        by_name=True,
        repository="trl-lib/ddpo-aesthetic-predictor",
        memory="2 GB",
        files=("sac+logos+ava1-l14-linearMSE.pth", "sac+logos+ava1-l14-linearMSE.safetensors", "aesthetic-model.pth"),
        refuses=OF_SEMANTIC_MODELS,
    ),
    Family(
        name="aesthetic-v2.5",
        model="aesthetic-v2.5:FILE or :FOLDER, a file that you bring",
        scores="how much people like a picture, whatever it shows",
        needs_prompt=False,
        licence="AGPL-3.0 (head: never shipped or fetched), Apache-2.0 (SigLIP)",
        size="a few MB, and 3.5 GB of SigLIP so400m",
        detects=lambda facts: facts.get("ma_agiqa.kind") == "aesthetic-v2.5",
        load=_module(".judges.aesthetic_v2_5"),
        by_name=True,
        memory="3 GB",
        files=("aesthetic_predictor_v2_5.pth", "aesthetic_predictor_v2_5.safetensors"),
        refuses=OF_SEMANTIC_MODELS,
    ),
    Family(
        name="qrealign",
        model="qrealign, qrealign:FOLDER or qrealign:OWNER/NAME",
        scores="quality or aesthetics (target), 0 to 1",
        needs_prompt=False,
        licence="Apache-2.0",
        size="1.7 GB (Mini) to 18 GB (Pro)",
        detects=lambda facts: False,
        load=_module(".judges.qrealign"),
        by_name=True,
        repository="q-future/Q-ReAlign-Mini-0.8B",
        agreement="generated pictures: SRCC .811 (Mini), .829 (Lite), .843 (Pro), by its authors",
        memory="1.7 GB (Mini) to 18 GB (Pro) in bfloat16",
    ),
    Family(
        name="vqascore",
        model="vqascore, vqascore:FOLDER or vqascore:OWNER/NAME, any image-text model",
        scores="whether a picture shows what its prompt says: the probability of the answer Yes, 0 to 1",
        needs_prompt=True,
        licence="the model's",
        size="16.6 GB (Qwen2.5-VL-7B)",
        detects=lambda facts: False,
        load=_module(".judges.vqascore"),
        by_name=True,
        repository="Qwen/Qwen2.5-VL-7B-Instruct",
        memory="17 GB in bfloat16, 7 GB in nf4 (Qwen2.5-VL-7B); nothing more by `pipeline_judge`",
    ),
    Family(
        name="hpsv3",
        model="hpsv3, hpsv3:FOLDER or hpsv3:OWNER/NAME",
        scores="which picture of a prompt people prefer; no fixed range",
        needs_prompt=True,
        licence="MIT",
        size="16.5 GB",
        detects=lambda facts: False,
        load=_module(".judges.hpsv3"),
        by_name=True,
        repository="MizzenAI/HPSv3",
        agreement="preference accuracy 66.8 (ImageReward's set), 72.8 (Pick-a-Pic), 85.4 (HPDv2), 76.9 (HPDv3)",
        memory="17 GB in bfloat16, 7 GB in nf4",
        files=("HPSv3.safetensors",),
    ),
    Family(
        name="deqa",
        model="deqa, deqa:FOLDER or deqa:OWNER/NAME",
        scores="technical quality, 1 to 5",
        needs_prompt=False,
        licence="MIT",
        size="16.4 GB",
        detects=lambda facts: False,
        load=_module(".judges.deqa"),
        by_name=True,
        repository="zhiyuanyou/DeQA-Score-Mix3",
        agreement="KonIQ: .94 (You et al. 2025)",
        memory="16.1 GB in bfloat16, 4.9 GB in nf4",
    ),
    Family(
        name="qalign",
        model="qalign, qalign:FOLDER or qalign:OWNER/NAME",
        scores="quality or aesthetics (target), 0 to 1",
        needs_prompt=False,
        licence="see the model's page; its code: S-Lab License 1.0, non-commercial",
        size="16.4 GB",
        detects=lambda facts: False,
        load=_module(".judges.qalign"),
        by_name=True,
        repository="q-future/one-align",
        agreement="generated pictures: SRCC .738 (Q-ReAlign's authors)",
        memory="16.1 GB in bfloat16, 4.9 GB in nf4",
    ),
)


def family_of(facts: Mapping[str, str]) -> Family | None:
    """The family of a model, by what its files say: see `Family.detects`."""
    return next((family for family in FAMILIES if family.detects(facts)), None)


def family_of_folder(folder: Path) -> Family | None:
    """The family whose model a folder is: by its files' names, by its config.json, or by the name of the folder that
    it is in, as in imagereward/MINE; None for a folder of anything else."""
    from ..model_files.transformers_folder import complete_kind

    by_files = (family for family in FAMILIES if any((folder / name).is_file() for name in family.files))
    if (family := next(by_files, None)) is not None:
        return family
    if (kind := complete_kind(folder)) is None:
        return None
    by_place = (family for family in FAMILIES if family.by_name and family.name == folder.parent.name)
    return family_of({"model_type": kind}) or next(by_place, None)


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
    from .percentiles import ScaledScorer, read_percentiles

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


def named_family(model: str) -> Family | None:
    """The family that a `model` for `load_scorer` names; None for files and Hub ids."""
    return next((family for family in FAMILIES if family.names(model)), None)


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
    by_name = [f"'{family.name}:'" for family in FAMILIES if family.by_name]
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
    nearly = [family.name for family in FAMILIES if family.by_name and family.name == name.strip().lower()]
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
        known = ", ".join(repr(family.name) for family in FAMILIES if not family.by_name)
        raise MaAgiqaError(
            f"Expected a checkpoint of one of the families {known} in {str(path)!r}, got the kind "
            f"{metadata.get('ma_agiqa.kind', '')!r}. {_loadable()}"
        )
    return family
