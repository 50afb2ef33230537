"""Pictures in, semantic vectors out: from the cache where a picture was seen before, else from the language model."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..batching import run_in_batches
from ..hub import commit_of
from ..images import Picture, PictureError, as_picture_list
from ..preprocess import to_bytes
from ..score_loop import picture_groups
from ..score_progress import tick
from ..scorer import Pictures, UnusableModelError, check_score_options, resolve_device, resolve_dtype
from .cache import SemanticCache
from .model_files import (
    MPLUG_OWL2,
    check_shards,
    display_name,
    fingerprint,
    image_text_kind,
    model_folder,
    read_json,
)
from .quantization import quantization_library
from .questions import QUESTIONS

logger = logging.getLogger(__name__)

_PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)  # the most exact first
_Keys = tuple[str, ...]  # of a picture in the cache, one for each question


class SemanticModel(Protocol):
    """Who answers: mPLUG-Owl2, or any other image-text model of transformers."""

    @property
    def hidden_size(self) -> int: ...

    @property
    def network(self) -> nn.Module:
        """What holds its weights; it computes wherever these are at each call, unless it was spread by a device map."""
        ...

    def features(self, pictures: Sequence[Tensor], questions: Mapping[str, str]) -> dict[str, Tensor]:
        """By the questions' names: (N, D) float32 on the CPU, from uint8 (3, H, W) RGB of unlike sizes."""
        ...


class Placement(Protocol):
    """A program that shares its devices among many models, and so decides where the language model is at any time."""

    @property
    def device(self) -> torch.device:
        """Where the language model computes when it is used."""
        ...

    def before_loading(self, quantized: bool) -> torch.device:
        """Makes room, and says where the weights are read to; quantized ones cannot be moved from there."""
        ...

    def before_use(self, network: nn.Module, quantized: bool) -> None:
        """Brings the weights to `device`; called whenever pictures are about to be looked at."""
        ...


@dataclass(frozen=True, eq=False)
class SemanticVectors:
    """What the language model says about some pictures.

    Attributes:
        vectors: By question: (N, D) float32 on the CPU; NaN where `errors` has a reason.
        errors: For every picture None, or why it has no vectors, in one line.
    """

    vectors: dict[str, Tensor]
    errors: list[str | None]


class SemanticExtractor:
    """Asks a large multimodal model the two questions about pictures.

    The model is loaded when the first picture comes that is not in the cache: with all of them there, it is
    never loaded at all.

    Args:
        model: Its folder, or a Hub id (`owner/name`, `owner/name@revision`).
        cache: Folder of vectors of pictures already seen, or None. Vectors are found by the picture's pixels,
            the content of the model's files, its precision and the question, so they are never stale. With
            dtype "auto" those of every unquantized precision are taken, so that what a graphics card made in
            bfloat16 serves a processor too.
        device: "auto" takes cuda, then mps, then cpu.
        dtype: "auto" is bfloat16 on cuda (float16 on cards without it), float16 on mps, float32 on the CPU.
        quantization: None, "int8" or "nf4".
        device_map: None, or "auto" or a dict as in accelerate, for cards that are too small.
        revision: Of a Hub id.
        local_files_only: Never use the network.
        questions: By name; the published two by default.

    Raises:
        FileNotFoundError: There is no such folder, or the Hub's files are not here and cannot be downloaded.
        ImportError: The library for the quantization is not installed.
        ValueError: A folder without config or weights, with damaged files or those of another model, or a wrong
            option.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        cache: str | os.PathLike[str] | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        quantization: str | None = None,
        device_map: Any = None,
        revision: str | None = None,
        local_files_only: bool = False,
        questions: Mapping[str, str] = QUESTIONS,
    ) -> None:
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.device)
        self.quantization, self.device_map = quantization, device_map
        self._quantized_by = quantization_library(quantization) if quantization is not None else None
        self._asked_dtype = dtype
        self.folder = model_folder(model, revision=revision, local_files_only=local_files_only)
        self.name = display_name(model)
        self.questions = dict(questions)
        self._config = read_json(self.folder / "config.json")
        self._check_files()
        self._cache = None if cache is None else SemanticCache(Path(cache))
        self._loading = threading.Lock()
        self._model: SemanticModel | None = None
        self._placement: Placement | None = None

    def hand_over(self, placement: Placement) -> None:
        """Leaves it to `placement` where the language model is; to be called before the first picture.

        Raises:
            ValueError: There is a `device_map`, which is another way to say the same.
        """
        if self.device_map is not None:
            raise ValueError(
                f"Expected no device_map, got {self.device_map!r}. The device is shared with other models."
            )
        self._placement, self.device = placement, placement.device
        self.dtype = resolve_dtype(self._asked_dtype, self.device)

    def drop_model(self) -> None:
        """Lets the language model go; the next picture that needs it loads it again."""
        with self._loading:
            self._model = None

    @property
    def revision(self) -> str:
        """The Hub's commit where it is known, else the fingerprint of the files."""
        return commit_of(self.folder) or self._fingerprint[:12]

    @cached_property
    def hidden_size(self) -> int:
        """The width of the vectors, from the model's config."""
        text = self._config.get("text_config")
        size = (text if isinstance(text, dict) else self._config).get("hidden_size")
        return size if isinstance(size, int) else self.model.hidden_size

    @property
    def model(self) -> SemanticModel:
        """The language model, loaded at the first use.

        Raises:
            UnusableModelError: Its files are damaged or another model's, it does not fit into memory, or a
                package that it needs is not installed.
        """
        with self._loading:
            if self._model is None:
                logger.info("loading %s (%s, %s)", self.name, self.device, self.dtype)
                try:
                    self._model = self._load()
                except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
                    raise UnusableModelError(str(error) or repr(error)) from error
            return self._model

    def extract(self, images: Pictures, batch_size: int | None = None, on_error: str = "raise") -> dict[str, Tensor]:
        """Semantic vectors of pictures.

        Args:
            images: As for `Scorer.score`.
            batch_size: How many at a time at most; changes speed and memory, not vectors.
            on_error: "raise", or "nan" for rows of NaN where a picture has no vectors.

        Returns:
            {"semantic_content": (N, D), "coherence": (N, D)} float32 on the CPU, in input order.

        Raises:
            OSError: The cache cannot be written.
            PictureError: A picture cannot be read or has no finite vectors, and `on_error` is "raise".
            UnusableModelError: The language model cannot be loaded.
            ValueError: A malformed array or tensor, or a wrong option.
        """
        check_score_options(batch_size, on_error)
        inputs = as_picture_list(images)
        result = {name: torch.full((len(inputs), self.hidden_size), torch.nan) for name in self.questions}
        for group in picture_groups(inputs):
            semantic = self.vectors(group, batch_size)
            for row, (picture, error) in enumerate(zip(group, semantic.errors, strict=True)):
                if error is not None and on_error == "raise":
                    raise PictureError(picture.index, picture.path, error)
                for name, vectors in semantic.vectors.items():
                    result[name][picture.index] = vectors[row]
        return result

    def vectors(self, pictures: Sequence[Picture], batch_size: int | None = None) -> SemanticVectors:
        """Semantic vectors of decoded pictures; one that cannot be read, or gets no finite vectors, has a reason."""
        keys = [None if picture.pixels is None else self._keys(picture.pixels) for picture in pictures]
        known: dict[_Keys, dict[str, Tensor]] = {}
        asked: dict[_Keys, Tensor] = {}  # the same picture twice is asked about once
        for key, picture in zip(keys, pictures, strict=True):
            if key is None or picture.pixels is None or key in known or key in asked:
                continue
            if (vectors := self._recall(key, picture.pixels)) is not None:
                known[key] = vectors
            else:
                asked[key] = to_bytes(picture.pixels)
        tick(len(pictures) - len(asked))
        failures: dict[_Keys, str] = {}
        for key, vectors in zip(asked, self._ask(list(asked.values()), batch_size), strict=True):
            if (reason := self._failure(vectors)) is not None:
                failures[key] = reason
                continue
            known[key] = vectors
            if self._cache is not None:
                for name, entry in zip(self.questions, key, strict=True):
                    self._cache.put(entry, vectors[name])
        missing = dict.fromkeys(self.questions, torch.full((self.hidden_size,), torch.nan))
        rows = [known.get(key, missing) if key is not None else missing for key in keys]
        return SemanticVectors(
            {name: torch.stack([row[name] for row in rows]) for name in self.questions},
            [
                picture.error or (failures.get(key) if key else None)
                for key, picture in zip(keys, pictures, strict=True)
            ],
        )

    def _identity(self, dtype: torch.dtype) -> str:
        """What the answers depend on besides picture and question: the model's files and its precision."""
        precision = str(dtype).removeprefix("torch.")
        quantized = f";{self.quantization} by {self._quantized_by}" if self.quantization else ""
        return f"{self._fingerprint};{precision}{quantized}{self._library}"

    def _keys(self, pixels: Tensor, dtype: torch.dtype | None = None) -> _Keys:
        """Without a cache they only tell pictures apart: the model's files need not be read for that."""
        identity = "" if self._cache is None else self._identity(dtype or self.dtype)
        return tuple(SemanticCache.keys(pixels, identity, self.questions).values())

    def _recall(self, keys: _Keys, pixels: Tensor) -> dict[str, Tensor] | None:
        """The vectors of a picture that was seen before, in this precision or in one that serves as well."""
        if self._cache is None:
            return None
        if (vectors := self._kept(keys)) is not None:
            return vectors
        precisions = _PRECISIONS if self._asked_dtype == "auto" else ()
        others = (self._kept(self._keys(pixels, dtype)) for dtype in precisions if dtype != self.dtype)
        return next((vectors for vectors in others if vectors is not None), None)

    def _kept(self, keys: _Keys) -> dict[str, Tensor] | None:
        """What the cache has under a picture's keys, all of it or nothing."""
        assert self._cache is not None  # asked by `_recall`
        vectors = {name: self._cache.get(key) for name, key in zip(self.questions, keys, strict=True)}
        found = {name: v for name, v in vectors.items() if v is not None and len(v) == self.hidden_size}
        return found if len(found) == len(self.questions) else None

    def _ask(self, pixels: list[Tensor], batch_size: int | None) -> list[dict[str, Tensor]]:
        """The language model's answers, a picture each."""
        if not pixels:
            return []
        if self._cache is not None:
            self._cache.check_writable()  # before the model is loaded
        model = self.model
        if self._placement is not None:
            self._placement.before_use(model.network, self.quantization is not None)

        def ask(batch: Sequence[Tensor]) -> dict[str, Tensor]:
            answers = model.features(batch, self.questions)
            tick(len(batch))
            return answers

        answers = run_in_batches(
            pixels,
            ask,
            device=self.device,
            what=("semantic", self.folder, self.dtype, self.quantization),
            batch_size=batch_size,
        )
        return [{name: answers[name][row] for name in self.questions} for row in range(len(pixels))]

    def _failure(self, vectors: Mapping[str, Tensor]) -> str | None:
        """Why these vectors cannot be used, in one line."""
        for name, vector in vectors.items():
            if bad := int((~vector.isfinite()).sum()):
                fix = (
                    "float16 overflows above 65504: use dtype 'bfloat16' or 'float32'"
                    if self.dtype == torch.float16
                    else "the language model's weights may be damaged: download them again"
                )
                return f"its {name} vector has {bad} values of {len(vector)} that are NaN or infinite. {fix}"
        return None

    def _load(self) -> SemanticModel:
        is_quantized = self.quantization is not None
        placement: dict[str, Any] = {
            "device": self.device if self._placement is None else self._placement.before_loading(is_quantized),
            "dtype": self.dtype,
            "quantization": self.quantization,
            "device_map": self.device_map,
        }
        if self._is_owl:
            from .published_mplug_owl2 import PublishedMplugOwl2

            return PublishedMplugOwl2.from_folder(self.folder, **placement)
        from .chat_model import ChatModel

        return ChatModel.from_pretrained(self.folder, **placement)

    def _check_files(self) -> None:
        """Finds missing, cut and strange files now, though the weights are read when they are needed."""
        check_shards(self.folder)
        if self._is_owl:
            from .published_mplug_owl2 import read_all_but_weights

            read_all_but_weights(self.folder)

    @property
    def _is_owl(self) -> bool:
        return image_text_kind(self._config) == MPLUG_OWL2

    @cached_property
    def _library(self) -> str:
        """Of a model of transformers its major version, since that decides how pictures are resized."""
        return "" if self._is_owl else f";transformers {version('transformers').partition('.')[0]}"

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.folder)
