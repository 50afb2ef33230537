"""What a scorer is, what it says about itself, and the one door through which all of them are loaded."""

import bisect
import math
import os
import re
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch

from ..arguments.numbers import checked_quantiles, whole_number
from ..arguments.options import check_paths, dtype_advice, expanded, listed_prompts, shown
from ..compute.caller_state import as_loaded
from ..errors import MaAgiqaError, MissingFileError
from ..pictures.inputs import PictureInput

Pictures: TypeAlias = PictureInput | Sequence[PictureInput]
"""One picture, a sequence of pictures or, alone, one float tensor (B, 3, H, W) RGB in [0, 1]."""

Prompts: TypeAlias = str | Sequence[str] | None
"""One prompt for all pictures, one for each, or none."""

NO_PROMPT = "no prompt for this picture"
"""The reason of a picture that has none, where one is needed."""

_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")

_LOADABLE = (
    "Loadable are 'lite', a .safetensors checkpoint (or a folder with model.safetensors), a Hub id such as "
    "'owner/name', and 'clip:' with the folder or Hub id of a CLIP model. Make a checkpoint of the published file with "
    "`ma-agiqa convert`."
)
_CLIP = "clip:"
_PICKLE_SUFFIXES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"}
_PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")  # bare, and torch's zip


@dataclass(frozen=True)
class ScorerInfo:
    """What a scorer says about itself.

    Attributes:
        name: Short name, e.g. "lite".
        revision: Which weights and settings; another revision may give other scores.
        low: Lower end of the score range.
        high: Upper end; higher is better.
        trained_on: The data behind the scores.
        needs_prompt: Every picture must come with the prompt it was made from.
        relative: Scores compare the pictures of one `score` call and mean nothing outside it.
        quantiles: Scores at evenly spaced shares, 0 % to 100 %, of the pictures that the scorer was
            calibrated on, ascending; empty if it was not calibrated.
        description: One line for people.
        targets: What the model behind it can score, e.g. "quality", "alignment", "authenticity": `load_scorer` takes
            one of them as `target`. Empty if that is not known.
        target: The one of them that it scores; None if that is not known.

    Raises:
        ValueError: An empty score range, or quantiles that are not ascending finite numbers.
    """

    name: str
    revision: str
    low: float
    high: float
    trained_on: str
    needs_prompt: bool = False
    relative: bool = False
    quantiles: tuple[float, ...] = ()
    description: str = ""
    targets: tuple[str, ...] = ()
    target: str | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise MaAgiqaError(f"Expected low < high, got {self.low} and {self.high}.")
        object.__setattr__(self, "quantiles", checked_quantiles(self.quantiles))

    def percentile(self, score: float) -> float | None:
        """The share of the calibration pictures that score lower, 0 to 100, linear between the quantiles.

        Returns:
            None if the scorer was not calibrated, or `score` is NaN.

        Raises:
            ValueError: The scorer is relative.
        """
        if self.relative:
            raise MaAgiqaError(
                f"Expected a scorer with a scale of its own, got {self.name}, whose scores only compare the "
                "pictures of one call and have no percentile. Use combine='calibrated' or a single scorer."
            )
        score = float(score)  # one element of what `score` returns is a tensor, and so would the result be
        if not self.quantiles or math.isnan(score):
            return None
        below = bisect.bisect_left(self.quantiles, score)
        not_above = bisect.bisect_right(self.quantiles, score)
        if below < not_above:  # exactly on one or more quantiles: the middle of them
            place = (below + not_above - 1) / 2
        elif below in (0, len(self.quantiles)):
            place = 0 if below == 0 else len(self.quantiles) - 1
        else:
            left, right = self.quantiles[below - 1 : below + 1]
            place = below - 1 + (score - left) / (right - left)
        return 100 * place / (len(self.quantiles) - 1)


@runtime_checkable
class Scorer(Protocol):
    """Anything with `.info` and `.score` ranks, filters and joins an ensemble."""

    @property
    def info(self) -> ScorerInfo: ...

    def score(
        self,
        images: Pictures,
        prompts: Prompts = None,
        batch_size: int | None = None,
        on_error: str = "raise",
    ) -> torch.Tensor:
        """Scores pictures.

        Args:
            images: One picture, a sequence of pictures, or one tensor (B, 3, H, W) RGB in [0, 1].
            prompts: One for all, or one per picture; required if `info.needs_prompt`.
            batch_size: How many at a time; changes speed and memory, not scores.
            on_error: "raise", or "nan" to score an unreadable picture NaN.

        Returns:
            (N,) float32 on the CPU, in input order, higher is better.

        Raises:
            PictureError: A picture cannot be read and `on_error` is "raise".
            UnusableModelError: A model that is loaded at its first use cannot be loaded.
            ValueError: A malformed array or tensor, missing prompts or a wrong option.
        """
        ...


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
) -> Scorer:
    """Loads a scorer. Files are data: pickles are refused, nothing in a checkpoint is executed.

    Args:
        model: "lite" (carried in the package), a .safetensors file, a folder with model.safetensors, or a Hub
            id (`owner/name`, `owner/name@revision`) of a repository with model.safetensors. "clip:" with the
            folder or Hub id of a CLIP, SigLIP or PickScore of transformers, which needs prompts.
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

    Raises:
        FileNotFoundError: There is no such file or folder, or a Hub model is not here and cannot be downloaded.
        ValueError: An unknown model, a file that is no checkpoint, or an option that does not apply.
    """
    model = _as_named(model)
    without = (without,) if isinstance(without, str) else tuple(without)
    check_paths(semantic=semantic, cache=cache)
    unfit = {"semantic": semantic, "quantization": quantization, "device_map": device_map, "without": without or None}
    if isinstance(model, str) and model.startswith(_CLIP):
        folder = model.removeprefix(_CLIP).strip()
        return _of_target(_load_clip(folder, device, dtype, revision, local_files_only, unfit), target)
    from ..model_files.hub import hub_file, is_hub_id
    from .lite import LITE_WEIGHTS

    if model != "lite" and is_hub_id(model) and not _looks_like_path(str(model)):
        path = hub_file(str(model), "model.safetensors", revision=revision, local_files_only=local_files_only)
        revision = None
    else:
        path = LITE_WEIGHTS if model == "lite" else _checkpoint_path(model)
    kind = _checkpoint_kind(path)
    scorer: Scorer
    if kind == "lite":
        scorer = _load_lite(path, device, dtype, unfit)
    elif kind == "ma-agiqa":
        from .ma_agiqa import MaAgiqaScorer

        scorer = MaAgiqaScorer.from_file(
            path,
            semantic=semantic,
            cache=cache,
            device=device,
            dtype=dtype,
            quantization=quantization,
            device_map=device_map,
            local_files_only=local_files_only,
            target=target,
            without=without,
        )
    else:
        raise MaAgiqaError(
            f"Expected a checkpoint of kind 'ma-agiqa' or 'lite' in {str(path)!r}, got {kind!r}. {_LOADABLE}"
        )
    if revision is not None and revision != scorer.info.revision:
        raise MaAgiqaError(f"Expected revision {revision!r}, got {scorer.info.revision!r} in {str(path)!r}.")
    return _of_target(scorer, target)


def _as_named(model: Any) -> str | Path:
    """What the caller means: a path object that leads nowhere and spells a name is that name."""
    if isinstance(model, str):
        return model
    if not isinstance(model, os.PathLike) or not isinstance(text := os.fspath(model), str):
        raise MaAgiqaError(f"Expected a model by its name, path or Hub id, got {shown(model)}. {_LOADABLE}")
    is_name = (text == "lite" or text.startswith(_CLIP)) and not os.path.lexists(text)
    return PurePath(text).as_posix() if is_name else Path(text)


def _of_target(scorer: Scorer, target: str | None) -> Scorer:
    if target is not None and target != scorer.info.target:
        raise MaAgiqaError(
            f"Expected a target of {scorer.info.name}, {', '.join(scorer.info.targets)}, got {target!r}."
        )
    return scorer


def _load_lite(path: Path, device: str | torch.device, dtype: str | torch.dtype, unfit: dict[str, object]) -> Scorer:
    from .lite import LiteScorer

    for option, value in unfit.items():
        if value is not None:
            raise MaAgiqaError(f"Expected no {option} for a lite scorer, got {value!r}. It has no semantic model.")
    if dtype not in ("auto", "float32", torch.float32):
        raise MaAgiqaError(
            f"Expected dtype 'auto' or 'float32' for a lite scorer, got {str(dtype)!r}.{dtype_advice(dtype)}"
        )
    return LiteScorer.from_file(path, device=resolve_device(device))


def _load_clip(
    model: str,
    device: str | torch.device,
    dtype: str | torch.dtype,
    revision: str | None,
    local_files_only: bool,
    unfit: dict[str, object],
) -> Scorer:
    if not model:
        raise MaAgiqaError(
            f"Expected a folder or Hub id after {_CLIP!r}, got none. Use 'clip:openai/clip-vit-base-patch32'."
        )
    for option, value in unfit.items():
        if value is not None:
            raise MaAgiqaError(f"Expected no {option} for '{_CLIP}{model}', got {value!r}. It has no semantic model.")
    from .clip import ClipScorer

    return ClipScorer.from_pretrained(
        model, device=device, dtype=dtype, revision=revision, local_files_only=local_files_only
    )


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device to compute on: "auto" is cuda (or ROCm), then mps, then cpu.

    Raises:
        ValueError: No such device on this machine.
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if _count("cuda") else "mps" if _count("mps") else "cpu")
    try:
        if not isinstance(device, str | torch.device):  # torch takes a number for a card, and which depends on it
            raise TypeError
        resolved = torch.device(device)
    except (RuntimeError, TypeError):
        number = whole_number(device)
        advice = f" Use 'cuda:{number}' for a card." if number is not None and number >= 0 else ""
        raise MaAgiqaError(
            f"Expected a device such as 'auto', 'cpu' or 'cuda:0', got {shown(device)}.{advice}"
        ) from None
    if (resolved.index or 0) >= (count := _count(resolved.type)):
        raise MaAgiqaError(
            f"Expected a device of this machine, got {str(device)!r}; it has {count} of type {resolved.type!r}. "
            "Use 'auto' or 'cpu'."
        )
    return resolved


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The precision to compute a large model in.

    "auto" is bfloat16 on cuda (float16 on cards without it), float16 on mps and float32 on the CPU.

    Raises:
        ValueError: None of float32, bfloat16 and float16.
    """
    if isinstance(dtype, str) and dtype == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return torch.float16 if device.type == "mps" else torch.float32
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    resolved = known.get(str(dtype).removeprefix("torch."))
    if resolved is None:
        raise MaAgiqaError(
            f"Expected dtype 'auto', 'float32', 'bfloat16' or 'float16', got {str(dtype)!r}.{dtype_advice(dtype)}"
        )
    return resolved


def resolve_prompts(prompts: Prompts, count: int, needs_prompt: bool) -> list[str] | None:
    """One prompt per picture, or None where there are none.

    Args:
        prompts: A string for all, or one for each picture in a list, tuple, array, series or any other iterable with
            an order.
        count: Of the pictures.
        needs_prompt: None and empty ones are refused.

    Raises:
        ValueError: Not one prompt for all or one for each, or a prompt is missing that the scorer needs.
    """
    if prompts is None:
        texts = None
    else:
        texts = [prompts] * count if isinstance(prompts, str) else listed_prompts(prompts)
        if len(texts) != count:
            raise MaAgiqaError(f"Expected one prompt, or one for each of {count} pictures, got {len(texts)}.")
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise MaAgiqaError(f"Expected a prompt for picture {index}, got {shown(text)}. Pass a string.")
        texts = [str.__str__(text) for text in texts]  # numpy.str_ and the like: tokenizers take no subclasses
    if needs_prompt and count:
        if texts is None:
            raise MaAgiqaError("Expected prompts, got None. This scorer needs the prompt of every picture.")
        if missing := [index for index, text in enumerate(texts) if not text.strip()]:
            raise MaAgiqaError(f"Expected a prompt for picture {missing[0]}, got an empty one. This scorer needs it.")
    return texts


def prompt_fault(prompt: str) -> str | None:
    """Why no tokenizer takes a prompt, as the reason of its picture; None if there is nothing wrong with it."""
    if (half := _HALF_CHARACTER.search(prompt)) is None:
        return None
    return (
        f"its prompt has half a character, {half[0]!a} at {half.start()}, as an emoji cut in two leaves: write it again"
    )


def check_score_options(batch_size: int | None, on_error: str) -> None:
    """Refuses options that no scorer's `score` has.

    Raises:
        ValueError: `batch_size` is no whole number, or below 1; an `on_error` that is neither "raise" nor "nan".
    """
    if batch_size is not None and ((number := whole_number(batch_size)) is None or number < 1):
        raise MaAgiqaError(
            f"Expected a batch_size of at least 1, or None, got {shown(batch_size)}. Pass a whole number."
        )
    if not isinstance(on_error, str) or on_error not in ("raise", "nan"):
        raise MaAgiqaError(f"Expected on_error 'raise' or 'nan', got {shown(on_error)}.")


def as_scores(result: Any, count: int, name: str) -> torch.Tensor:
    """What a scorer returned as float32 (count,) on the CPU.

    Raises:
        ValueError: It is not `count` real numbers.
    """
    try:  # a copy, since torch takes no negative strides
        with as_loaded():  # numbers in a list get the default dtype
            returned = torch.as_tensor(result.copy() if isinstance(result, np.ndarray) else result).detach()
    except (TypeError, ValueError, RuntimeError):
        raise MaAgiqaError(f"Expected {count} numbers from {name!r}, got {type(result).__name__}.") from None
    if returned.squeeze().ndim > 1 or returned.numel() != count or returned.is_complex():
        raise MaAgiqaError(f"Expected {count} scores from {name!r}, got {returned.dtype} {tuple(returned.shape)}.")
    return returned.reshape(count).to("cpu", torch.float32)


def _checkpoint_path(model: str | Path) -> Path:
    if not str(model).strip():
        raise MaAgiqaError(f"Expected a known model, got {str(model)!r}. {_LOADABLE}")
    try:
        path = expanded(model)
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        if isinstance(model, str) and not _looks_like_path(model):
            raise MaAgiqaError(f"Expected a known model, got {shown(model)}. {_LOADABLE}{_meant(model)}") from None
        raise MissingFileError(
            f"Expected a checkpoint, got {str(model)!r}: no such file or folder.{_meant(str(model))}"
        ) from None
    except MaAgiqaError:
        raise
    except (OSError, ValueError) as error:  # may not be looked at, or can be no file's name
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise MaAgiqaError(f"Expected a checkpoint, got {shown(str(model), 300)}: {reason}. {_LOADABLE}") from error
    if not is_folder:
        return path
    if not (path / "model.safetensors").is_file():
        raise MaAgiqaError(f"Expected a folder with model.safetensors, got {str(model)!r}. {_LOADABLE}")
    return path / "model.safetensors"


def _meant(model: str) -> str:
    """The name that this is nearly, as advice."""
    text = model.strip()
    if text.rstrip("/\\").replace("\\", "/").rpartition("/")[2].lower() == "lite":
        return " Did you mean 'lite', which is carried in the package?"
    family, colon, rest = text.partition(":")
    return f" Did you mean '{_CLIP}{rest.strip()}'?" if colon and family.strip().lower() == _CLIP[:-1] else ""


def _looks_like_path(model: str) -> bool:
    has_suffix = Path(model).suffix in _PICKLE_SUFFIXES | {".safetensors"}
    return has_suffix or model.startswith((".", "~")) or "\\" in model or Path(model).is_absolute()


def _checkpoint_kind(path: Path) -> str:
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            if path.suffix.lower() in _PICKLE_SUFFIXES or file.read(4).startswith(_PICKLE_STARTS):
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
            f"Expected ma_agiqa.format '1' in the metadata of {str(path)!r}, got {version!r}. {_LOADABLE}"
        )
    return metadata.get("ma_agiqa.kind", "")


def _count(backend: str) -> int:
    if backend == "cpu":
        return 1
    if backend == "mps":
        return int(torch.backends.mps.is_available())
    module = getattr(torch, backend, None)
    return module.device_count() if module and hasattr(module, "device_count") else 0
