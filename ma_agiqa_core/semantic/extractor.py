"""Pictures in, semantic vectors out: from the cache where a picture was seen before, else from the language model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..compute.caller_state import as_loaded
from ..compute.devices import precision_setting, resolve_device, resolve_dtype
from ..compute.progress import tick
from ..errors import MaAgiqaError
from ..model_files.hub import commit_of
from ..model_files.transformers_folder import display_name, model_folder
from ..pictures.groups import picture_groups
from ..pictures.inputs import Picture, PictureError, Pictures, as_picture_list
from ..pictures.prompts import NO_PROMPT, Prompts, check_score_options, prompt_fault, resolve_prompts
from .cache import SemanticCache
from .lazy_model import DeviceManager, LazyModel, SemanticModel
from .lookup import VectorLookup, group_questions
from .questions import QUESTIONS, names_prompt, with_prompt

_PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)  # the most exact first


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
    """Asks a large multimodal model questions about pictures.

    The model is loaded at the first picture that is not in the cache: if all of them are, it is never loaded. Copies
    and pickles leave it out and load it again when they need it: its weights are large, and may be quantized or spread
    over devices.

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

    Example:
        >>> from ma_agiqa_core.semantic import SemanticExtractor
        >>> extractor = SemanticExtractor("MAGAer13/mplug-owl2-llama2-7b", cache="vectors")  # doctest: +SKIP
        >>> extractor.extract(["a.png", "b.png"])["coherence"].shape  # doctest: +SKIP
        torch.Size([2, 4096])
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
        place = resolve_device(device)
        folder = model_folder(model, revision=revision, local_files_only=local_files_only)
        self._asked_dtype = dtype
        self._lazy = LazyModel(
            folder,
            display_name(model),
            device=place,
            dtype=resolve_dtype(dtype, place),
            quantization=quantization,
            device_map=device_map,
        )
        self.questions = dict(questions)
        for name, question in self.questions.items():
            if prompt_fault(question) is not None:
                raise MaAgiqaError(f"Expected whole characters in the question of {name}, got {question!r}.")
        self._cache = None if cache is None else SemanticCache(Path(cache))

    @property
    def name(self) -> str:
        """The Hub id, or the folder's name."""
        return self._lazy.name

    @property
    def folder(self) -> Path:
        """Where the language model's files are."""
        return self._lazy.folder

    @property
    def device(self) -> torch.device:
        return self._lazy.device

    @property
    def dtype(self) -> torch.dtype:
        return self._lazy.dtype

    @property
    def model(self) -> SemanticModel:
        """The language model, loaded at the first use.

        Raises:
            UnusableModelError: It cannot be loaded; the message says why.
        """
        return self._lazy.get()

    @property
    def is_loaded(self) -> bool:
        """Whether the language model is in memory."""
        return self._lazy.is_loaded

    def drop_model(self) -> None:
        """Releases the language model; the next picture that needs it loads it again."""
        self._lazy.drop()

    def hand_over(self, manager: DeviceManager) -> None:
        """Lets `manager` decide where the language model is; to be called before the first picture.

        Raises:
            ValueError: There is a `device_map`, which is another way to say the same.
        """
        lazy = self._lazy
        if lazy.device_map is not None:
            raise MaAgiqaError(f"Expected no device_map, got {lazy.device_map!r}. The device is shared with others.")
        lazy.manager, lazy.device = manager, manager.device
        lazy.dtype = resolve_dtype(self._asked_dtype, manager.device)

    @property
    def hidden_size(self) -> int:
        """The width of the vectors."""
        return self._lazy.hidden_size

    @property
    def revision(self) -> str:
        """The Hub's commit where it is known, else the fingerprint of the files."""
        return commit_of(self.folder) or self._lazy.fingerprint[:12]

    @property
    def settings(self) -> tuple[str, ...]:
        """The model, its precision and quantization, and a digest of the questions, for `scorer_identity`."""
        asked = json.dumps(sorted(self.questions.items())).encode()
        lazy = self._lazy
        return (
            f"semantic={self.name}@{self.revision}{lazy.library}",
            *(f"semantic-{setting}" for setting in precision_setting(self.dtype)),
            *([f"quantization={lazy.quantization} by {lazy.quantized_by}"] if lazy.quantization else []),
            f"questions={hashlib.sha256(asked).hexdigest()[:12]}",
        )

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
        lookup = VectorLookup(self._cache, self._lazy.identity, self._precisions, self.hidden_size)
        errors: list[str | None] = []
        rows: list[dict[str, str]] = []  # of every picture: the key of each question, none where there is an error
        for number, picture in enumerate(pictures):
            prompt = prompts[number] if prompts else None
            errors.append(picture.error or (_prompt_error(prompt) if need_prompt else None))
            usable = picture.pixels if errors[-1] is None else None
            rows.append({} if usable is None else lookup.add(number, usable, with_prompt(chosen, prompt)))
        tick(len(pictures) - len(lookup.pending_pictures))
        failures = self._ask(lookup, batch_size)
        for number, keys in enumerate(rows):
            errors[number] = errors[number] or next((failures[key] for key in keys.values() if key in failures), None)
        nothing = torch.full((self.hidden_size,), torch.nan, dtype=torch.float32, device="cpu")
        vectors = {
            name: torch.stack(
                [nothing if error else lookup.known[keys[name]] for keys, error in zip(rows, errors, strict=True)]
            )
            for name in chosen
        }
        return SemanticVectors(vectors, errors)

    @property
    def _precisions(self) -> tuple[torch.dtype, ...]:
        """Those whose cached vectors are taken, the model's own first."""
        others = _PRECISIONS if self._asked_dtype == "auto" else ()
        return (self.dtype, *(dtype for dtype in others if dtype != self.dtype))

    def _ask(self, lookup: VectorLookup, batch_size: int | None) -> dict[str, str]:
        """Asks the language model what is pending; returns by key why there is no vector."""
        if lookup.pending and self._cache is not None:
            self._cache.check_writable()  # before the model is loaded
        failures: dict[str, str] = {}
        for questions, asked in group_questions(lookup.pending).items():
            pixels = [lookup.pending[keys[0]].pixels for keys in asked]
            for keys, vectors in zip(asked, self._lazy.answers(pixels, dict(questions), batch_size), strict=True):
                if (reason := self._lazy.failure(vectors)) is not None:
                    failures |= dict.fromkeys(keys, reason)
                    continue
                for key, vector in zip(keys, vectors.values(), strict=True):
                    lookup.put(key, vector)
        return failures


def _prompt_error(prompt: str | None) -> str | None:
    """Why a question cannot be asked with this prompt in it."""
    return prompt_fault(prompt) if prompt else NO_PROMPT
