"""Pictures in, semantic vectors out: from the cache where a picture was seen before, else from the language model."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..compute.batching import run_in_batches
from ..compute.caller_state import as_loaded
from ..compute.devices import precision_setting, resolve_device, resolve_dtype
from ..compute.own_lock import OwnLock
from ..compute.progress import tick
from ..errors import MaAgiqaError, UnusableModelError
from ..model_files.hub import commit_of
from ..model_files.transformers_folder import (
    MPLUG_OWL2,
    check_shards,
    display_name,
    fingerprint,
    image_text_kind,
    model_folder,
    read_json,
)
from ..pictures.groups import picture_groups
from ..pictures.inputs import Picture, PictureError, Pictures, as_picture_list
from ..pictures.prompts import NO_PROMPT, Prompts, check_score_options, prompt_fault, resolve_prompts
from ..preprocess import to_bytes
from .cache import SemanticCache
from .pending_questions import OpenQuestion, asked_together
from .quantization import quantization_library
from .questions import QUESTIONS, names_prompt, with_prompt

logger = logging.getLogger(__name__)

_PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)  # the most exact first


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
    """Asks a large multimodal model the questions about pictures.

    The model is loaded when the first picture comes that is not in the cache: with all of them there, it is
    never loaded at all. Copies and pickles leave it out and load it again when they need it: its weights are large,
    and may be quantized or spread over devices.

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
        questions: By name; the published two by default. Where one has "{prompt}" in it, the prompt that a picture
            was generated from is put there: see `questions_for`.

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
        for name, question in self.questions.items():
            if prompt_fault(question) is not None:
                raise MaAgiqaError(f"Expected whole characters in the question of {name}, got {question!r}.")
        self._config = read_json(self.folder / "config.json")
        self._check_files()
        self._cache = None if cache is None else SemanticCache(Path(cache))
        self._loading = OwnLock()
        self._model: SemanticModel | None = None
        self._placement: Placement | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_model": None, "_placement": None}

    def hand_over(self, placement: Placement) -> None:
        """Leaves it to `placement` where the language model is; to be called before the first picture.

        Raises:
            ValueError: There is a `device_map`, which is another way to say the same.
        """
        if self.device_map is not None:
            raise MaAgiqaError(
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

    @property
    def settings(self) -> tuple[str, ...]:
        """The model, its precision and quantization, and a digest of the questions, for `scorer_identity`."""
        asked = json.dumps(sorted(self.questions.items())).encode()
        return (
            f"semantic={self.name}@{self.revision}{self._library}",
            *(f"semantic-{setting}" for setting in precision_setting(self.dtype)),
            *([f"quantization={self.quantization} by {self._quantized_by}"] if self.quantization else []),
            f"questions={hashlib.sha256(asked).hexdigest()[:12]}",
        )

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
                except (MaAgiqaError, OSError, ImportError, MemoryError, RuntimeError) as error:
                    raise UnusableModelError(str(error) or repr(error)) from error
            return self._model

    @property
    def needs_prompt(self) -> bool:
        """Whether a question holds the prompt that a picture was generated from."""
        return any(map(names_prompt, self.questions.values()))

    @as_loaded(float32_by_default=False)
    def extract(
        self,
        images: Pictures,
        batch_size: int | None = None,
        on_error: str = "raise",
        prompts: Prompts = None,
    ) -> dict[str, Tensor]:
        """Semantic vectors of pictures.

        Args:
            images: As for `Scorer.score`.
            batch_size: How many at a time at most; changes speed and memory, not vectors.
            on_error: "raise", or "nan" for rows of NaN where a picture has no vectors.
            prompts: What the pictures were generated from, one for all or one for each; only needed if
                `needs_prompt`.

        Returns:
            {"semantic_content": (N, D), "coherence": (N, D)} float32 on the CPU, in input order; so for every
            question.

        Raises:
            OSError: The cache cannot be written.
            PictureError: A picture cannot be read or has no finite vectors, and `on_error` is "raise".
            UnusableModelError: The language model cannot be loaded.
            ValueError: A malformed array or tensor, missing prompts, or a wrong option.
        """
        check_score_options(batch_size, on_error)
        inputs = as_picture_list(images)
        texts = resolve_prompts(prompts, len(inputs), self.needs_prompt)
        result = {
            name: torch.full((len(inputs), self.hidden_size), torch.nan, dtype=torch.float32, device="cpu")
            for name in self.questions
        }
        for group in picture_groups(inputs):
            semantic = self.vectors(group, batch_size, texts and [texts[picture.index] for picture in group])
            for row, (picture, error) in enumerate(zip(group, semantic.errors, strict=True)):
                if error is not None and on_error == "raise":
                    raise PictureError(picture.index, picture.path, error)
                for name, vectors in semantic.vectors.items():
                    result[name][picture.index] = vectors[row]
        return result

    @as_loaded(float32_by_default=False)
    def vectors(
        self,
        pictures: Sequence[Picture],
        batch_size: int | None = None,
        prompts: Sequence[str | None] | None = None,
        *,
        names: Collection[str] | None = None,
    ) -> SemanticVectors:
        """Semantic vectors of decoded pictures.

        A picture that cannot be read, has no prompt where one is needed, or gets no finite vectors, has a reason.

        Args:
            pictures: Decoded.
            batch_size: How many at a time at most.
            prompts: What they were generated from.
            names: Of the questions to ask; None asks all.
        """
        chosen = {name: text for name, text in self.questions.items() if names is None or name in names}
        need_prompt = any(map(names_prompt, chosen.values()))
        rows: list[dict[str, str]] = []  # of every picture: a key for each question, none if it cannot be read
        known: dict[str, Tensor] = {}
        still_open: dict[str, OpenQuestion] = {}
        unusable = [
            _prompt_error(prompts[row] if prompts else None) if need_prompt else None for row in range(len(pictures))
        ]
        for number, picture in enumerate(pictures):
            questions = with_prompt(chosen, prompts[number] if prompts else None)
            keys = {} if picture.pixels is None or unusable[number] else self._keys(picture.pixels, questions)
            rows.append(keys)
            new = {name: key for name, key in keys.items() if key not in known and key not in still_open}
            if picture.pixels is None or not new:
                continue  # the same picture twice is asked about once
            recalled = self._recall(new, picture.pixels, questions)
            known |= {new[name]: vector for name, vector in recalled.items()}
            pixels = to_bytes(picture.pixels) if len(recalled) < len(new) else picture.pixels
            for name, key in new.items():
                if name not in recalled:
                    still_open[key] = OpenQuestion(number, name, questions[name], pixels)
        tick(len(pictures) - len({question.picture for question in still_open.values()}))
        failures = self._ask_about(still_open, known, batch_size)
        errors = [
            picture.error or fault or next((failures[key] for key in keys.values() if key in failures), None)
            for picture, keys, fault in zip(pictures, rows, unusable, strict=True)
        ]
        nothing = torch.full((self.hidden_size,), torch.nan, dtype=torch.float32, device="cpu")
        return SemanticVectors(
            {
                name: torch.stack(
                    [nothing if error else known[keys[name]] for keys, error in zip(rows, errors, strict=True)]
                )
                for name in chosen
            },
            errors,
        )

    def _ask_about(
        self, still_open: Mapping[str, OpenQuestion], known: dict[str, Tensor], batch_size: int | None
    ) -> dict[str, str]:
        """Asks what is not known yet, into `known` and the cache; returns by key why there is no vector."""
        failures: dict[str, str] = {}
        for questions, asked in asked_together(still_open).items():
            pixels = [still_open[keys[0]].pixels for keys in asked]
            for keys, vectors in zip(asked, self._ask(pixels, dict(questions), batch_size), strict=True):
                if (reason := self._failure(vectors)) is not None:
                    failures |= dict.fromkeys(keys, reason)
                    continue
                for key, vector in zip(keys, vectors.values(), strict=True):
                    known[key] = vector
                    if self._cache is not None:
                        self._cache.put(key, vector)
        return failures

    def _identity(self, dtype: torch.dtype) -> str:
        """What the answers depend on besides picture and question: the model's files and its precision."""
        precision = str(dtype).removeprefix("torch.")
        quantized = f";{self.quantization} by {self._quantized_by}" if self.quantization else ""
        return f"{self._fingerprint};{precision}{quantized}{self._library}"

    def _keys(self, pixels: Tensor, questions: Mapping[str, str], dtype: torch.dtype | None = None) -> dict[str, str]:
        """Without a cache they only tell pictures apart: the model's files need not be read for that."""
        identity = "" if self._cache is None else self._identity(dtype or self.dtype)
        return SemanticCache.keys(pixels, identity, questions)

    def _recall(self, keys: Mapping[str, str], pixels: Tensor, questions: Mapping[str, str]) -> dict[str, Tensor]:
        """Those vectors of a picture that were made before, in this precision or in one that serves as well."""
        if self._cache is None:
            return {}
        found = self._kept(keys)
        for dtype in _PRECISIONS if self._asked_dtype == "auto" else ():
            missing = {name: questions[name] for name in keys if name not in found}
            if missing and dtype != self.dtype:
                found |= self._kept(self._keys(pixels, missing, dtype))
        return found

    def _kept(self, keys: Mapping[str, str]) -> dict[str, Tensor]:
        """What the cache has of these."""
        assert self._cache is not None  # asked by `_recall`
        vectors = {name: self._cache.get(key) for name, key in keys.items()}
        return {name: v for name, v in vectors.items() if v is not None and len(v) == self.hidden_size}

    def _ask(
        self, pixels: list[Tensor], questions: Mapping[str, str], batch_size: int | None
    ) -> list[dict[str, Tensor]]:
        """The language model's answers, a picture each."""
        if self._cache is not None:
            self._cache.check_writable()  # before the model is loaded
        model = self.model
        self._check_precision(model.network)
        if self._placement is not None:
            self._placement.before_use(model.network, self.quantization is not None)

        def ask(batch: Sequence[Tensor]) -> dict[str, Tensor]:
            answers = model.features(batch, questions)
            tick(len(batch))
            return answers

        answers = run_in_batches(
            pixels,
            ask,
            device=self.device,
            what=("semantic", self.folder, self.dtype, self.quantization),
            batch_size=batch_size,
        )
        return [{name: answers[name][row] for name in questions} for row in range(len(pixels))]

    def _check_precision(self, network: nn.Module) -> None:
        """A vector is kept under the precision that it was made in; some weights may be of a higher one."""
        found = {str(weights.dtype) for weights in network.parameters() if weights.is_floating_point()}
        if self.quantization is None and str(self.dtype) not in found:
            raise UnusableModelError(
                f"Expected the language model {self.name!r} in {self.dtype}, as it was loaded, got "
                f"{' and '.join(sorted(found))}. Load it with dtype={'/'.join(sorted(found)).replace('torch.', '')!r} "
                "instead of changing it afterwards."
            )

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

    @as_loaded()
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


def _prompt_error(prompt: str | None) -> str | None:
    """Why a question cannot be asked with this prompt in it."""
    return prompt_fault(prompt) if prompt else NO_PROMPT
