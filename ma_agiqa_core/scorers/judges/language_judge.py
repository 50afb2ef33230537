"""What all judges that are vision-language models do alike: ask each picture once, keep what was answered."""

from __future__ import annotations

import hashlib
import json
import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from ...compute.caller_state import as_loaded
from ...compute.devices import precision_setting
from ...compute.progress import tick
from ...errors import MaAgiqaError, PictureError
from ...pictures.inputs import Picture, Pictures, as_picture_list, path_of
from ...pictures.prompts import Prompts, check_score_options, prompt_fault, resolve_prompts
from ...preprocess import to_bytes
from ...semantic.cache import SemanticCache
from ..picture_scorer import Outcome, PictureScorer, in_groups
from ..scorer import ScorerInfo
from .asking import AskedModel, AskedPicture, Question
from .batches import QUESTIONS_AT_ONCE
from .prompt_limit import placeholder_fault


class LanguageJudge(PictureScorer):
    """A `Scorer` that asks a vision-language model.

    Equal pictures are looked at once, equal questions about them are asked once, and with a cache both are remembered
    by the picture's pixels, the model's files and precision, and the question. If all is in the cache, the model is
    never loaded. Copies and pickles leave it out and load it again when they need it.

    Args:
        reader: The model.
        info: What the judge says about itself.
        cache: Of answers to pictures already seen, or None.

    Attributes:
        language_model: The model.
        cache: Of answers to pictures already seen, or None.
    """

    def __init__(self, reader: AskedModel, info: ScorerInfo, cache: SemanticCache | None = None) -> None:
        self.language_model, self._info, self.cache = reader, info, cache

    @property
    def info(self) -> ScorerInfo:
        return self._info

    @abstractmethod
    def question(self, target: str | None, prompt: str | None) -> Question:
        """What is asked for a target, about a picture that was made from this prompt."""
        ...

    @abstractmethod
    def score_of(self, numbers: Tensor) -> float:
        """The score from what the reader gave for a question, (K,) float32."""
        ...

    def set_up(self) -> AbstractContextManager[None]:
        """The caller's default dtype too, since transformers goes by it."""
        return as_loaded()

    def outcomes(
        self, pictures: Iterable[Picture], prompts: Sequence[str] | None, batch_size: int | None
    ) -> Iterator[Outcome]:
        """Scores, or reasons why there are none; see `PictureScorer.outcomes`.

        Raises:
            OSError: The cache cannot be written.
            UnusableModelError: The model cannot be loaded.
        """
        for group, texts in in_groups(pictures, prompts):
            for of_picture in self._of_group(group, texts, [self.info.target], batch_size):
                yield of_picture[0]

    def score_targets(
        self,
        images: Pictures,
        targets: Sequence[str] | None = None,
        *,
        prompts: Prompts = None,
        batch_size: int | None = None,
        on_error: str = "raise",
    ) -> dict[str, Tensor]:
        """Several aspects of the same pictures, each of which is looked at once.

        Args:
            images: As for `Scorer.score`.
            targets: Of `info.targets`; None takes all.
            prompts: As for `Scorer.score`.
            batch_size: Pictures at a time at most.
            on_error: "raise", or "nan".

        Returns:
            By target: (N,) float32 on the CPU, what a judge loaded with this target gives.

        Raises:
            PictureError: A picture cannot be read or scored and `on_error` is "raise".
            UnusableModelError: The model cannot be loaded.
            ValueError: An unknown target, or as for `Scorer.score`.
        """
        check_score_options(batch_size, on_error)
        asked = list(self.info.targets if targets is None else targets)
        if unknown := [target for target in asked if target not in self.info.targets]:
            raise MaAgiqaError(
                f"Expected targets of {self.info.name}, {', '.join(self.info.targets)}, got {unknown[0]!r}."
            )
        rows: list[list[Outcome]] = []
        with self.set_up():
            inputs = as_picture_list(images)
            texts = resolve_prompts(prompts, len(inputs), self.info.needs_prompt)
            for group, of_group in in_groups(self._decoded(inputs, images, on_error), texts):
                rows += self._of_group(group, of_group, asked, batch_size)
        for index, row in enumerate(rows):
            for outcome in row:
                if isinstance(outcome, str) and on_error == "raise":
                    raise PictureError(index, path_of(inputs[index]), outcome)
        columns = [
            [math.nan if isinstance(row[place], str) else row[place] for row in rows] for place in range(len(asked))
        ]
        with as_loaded():
            return {
                target: torch.tensor(column, dtype=torch.float32, device="cpu")
                for target, column in zip(asked, columns, strict=True)
            }

    def _of_group(
        self,
        pictures: Sequence[Picture],
        prompts: Sequence[str] | None,
        targets: Sequence[str | None],
        batch_size: int | None,
    ) -> list[list[Outcome]]:
        """For every picture the outcome of each target."""
        lookup = _Lookup(
            self.cache,
            f"{type(self).__name__} {self.language_model.identity(self.language_model.dtype)}"
            if self.cache is not None
            else "",
        )
        errors: list[str | None] = []
        keys: list[list[str]] = []
        for row, picture in enumerate(pictures):
            prompt = prompts[row] if prompts is not None and self.info.needs_prompt else None
            fault = None if prompt is None else prompt_fault(prompt) or placeholder_fault(prompt)
            errors.append(picture.error or fault)
            seen = () if picture.pixels is None or errors[-1] else self.pictures_of(picture)
            keys.append(lookup.add(seen, [self.question(target, prompt) for target in targets]) if seen else [])
        pending = lookup.pending()
        tick(len(pictures) - len(pending))
        if pending:
            if self.cache is not None:
                self.cache.check_writable()  # before the model is loaded
            for place, answer in enumerate(self.language_model.answers(pending, batch_size)):
                lookup.put(place, answer)
        found: list[list[Outcome]] = []
        for error, of_picture in zip(errors, keys, strict=True):
            found.append([error] * len(targets) if error else [self._outcome(lookup.known[key]) for key in of_picture])
        return found

    def pictures_of(self, picture: Picture) -> tuple[Tensor, ...]:
        """What is looked at for a picture, uint8 (3, H, W) each; a judge of edits adds the source."""
        assert picture.pixels is not None
        return (to_bytes(picture.pixels),)

    def _outcome(self, answer: Tensor | str) -> Outcome:
        if isinstance(answer, str):
            return answer
        score = float(np.float32(self.score_of(answer)))  # as `score` gives it
        return score if math.isfinite(score) else f"its score is {score}: {self.language_model.why_not_finite()}"

    @property
    def settings(self) -> tuple[str, ...]:
        """Precision and quantization, for `scorer_identity`."""
        model = self.language_model
        quantized = [f"quantization={model.quantization} by {model.quantized_by}"] if model.quantization else []
        return (*precision_setting(model.dtype), *quantized)

    @property
    def networks(self) -> tuple[torch.nn.Module, ...]:
        """The language model is no network that is always there: see `language_model`."""
        return ()


class _Lookup:
    """Collects answers by key: from the cache where they are in it, else they are pending."""

    def __init__(self, cache: SemanticCache | None, identity: str) -> None:
        self._cache, self._identity = cache, identity
        self.known: dict[str, Tensor | str] = {}
        self._wanted: dict[str, tuple[tuple[Tensor, ...], dict[str, Question]]] = {}  # by pictures: by key
        self._asked: list[list[str]] = []

    def add(self, pictures: tuple[Tensor, ...], questions: Sequence[Question]) -> list[str]:
        """The keys under which the answers are, or will be, in `known`."""
        texts = [json.dumps([question.text, question.stem]) for question in questions]
        named = {str(place): text for place, text in enumerate(texts)}
        of_each = [SemanticCache.keys(pixels, self._identity, {**named, "": ""}) for pixels in pictures]
        keys = []
        seen = _joined([of_picture[""] for of_picture in of_each])
        for place, question in enumerate(questions):
            key = _joined([of_picture[str(place)] for of_picture in of_each])
            keys.append(key)
            if key in self.known:
                continue
            if (cached := None if self._cache is None else self._cache.get(key)) is not None:
                self.known[key] = cached
            else:
                self._wanted.setdefault(seen, (pictures, {}))[1].setdefault(key, question)
        return keys

    def pending(self) -> list[AskedPicture]:
        """Every picture that must be looked at, with its questions."""
        asked = []
        for pictures, questions in self._wanted.values():
            keys = list(questions)
            for start in range(0, len(keys), QUESTIONS_AT_ONCE):
                part = keys[start : start + QUESTIONS_AT_ONCE]
                self._asked.append(part)
                asked.append(AskedPicture(pictures, tuple(questions[key] for key in part)))
        return asked

    def put(self, place: int, answer: Tensor | str) -> None:
        """Keeps the answers (Q, K) about the picture at a place of `pending`, in the cache too."""
        for row, key in enumerate(self._asked[place]):
            numbers = answer if isinstance(answer, str) else answer[row]
            self.known[key] = numbers
            if self._cache is not None and isinstance(numbers, Tensor) and bool(numbers.isfinite().all()):
                self._cache.put(key, numbers)


def _joined(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else hashlib.sha256(" ".join(keys).encode()).hexdigest()
