"""A family of scorers: a row of the table in `load.py`, and what its loader is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import MaAgiqaError
from .scorer import Scorer

OF_SEMANTIC_MODELS = ("semantic", "quantization", "device_map", "without")
"""Options of a semantic model."""


@dataclass(frozen=True)
class Request:
    """What is to be loaded: the arguments of `load_scorer`, checked as far as all families share them.

    Attributes:
        model: The path of a checkpoint; of a family that is loaded by its name what follows the colon.
    """

    model: str
    semantic: str | os.PathLike[str] | None = None
    cache: str | os.PathLike[str] | None = None
    device: str | torch.device = "auto"
    dtype: str | torch.dtype = "auto"
    quantization: str | None = None
    device_map: object = None
    revision: str | None = None
    local_files_only: bool = False
    target: str | None = None
    without: Collection[str] = ()

    def refuse_semantic_options(self, scorer: str) -> None:
        """For scorers that have no semantic model.

        Raises:
            ValueError: An option of a semantic model is given; the message names it and the `scorer`.
        """
        for option in OF_SEMANTIC_MODELS:
            value = getattr(self, option)
            if value is not None and value != ():
                raise MaAgiqaError(f"Expected no {option}= for {scorer}, got {value!r}. It has no semantic model.")


@dataclass(frozen=True)
class Family:
    """Scorers that are loaded in one way.

    Attributes:
        name: Short and unique. `load_scorer` takes "NAME:MODEL" if `by_name`, and the name alone if `carried`.
        model: How `load_scorer` is told which one, e.g. "clip:MODEL".
        scores: What the scores are of, in one line.
        needs_prompt: Whether it needs prompts; None where the checkpoint says so.
        licence: Of the weights, as far as it is known.
        size: Of the weights, for people, e.g. "1.7 MB".
        detects: Whether a model is one of this family, by what its files say: the metadata of a checkpoint, or
            {"model_type": ...} of a complete folder of transformers.
        load: Loads one; imports what it needs only then.
        by_name: Loaded as "NAME:" with a folder or Hub id, and as "NAME" from `repository`. Else its checkpoints are
            files.
        repository: Where the published weights are.
        memory: What it takes to score with it, for people; the same as its `size` if it is not said.
        files: Names of files that only a folder of this family has.
        refuses: Options of `load_scorer` that do not apply to it; beside scorers that take them it is not given them.
        agreement: Published agreement with people, with its source; None if there is none.
        carried: The file in the package.
    """

    name: str
    model: str
    scores: str
    needs_prompt: bool | None
    licence: str
    size: str
    detects: Callable[[Mapping[str, str]], bool]
    load: Callable[[Request], Scorer]
    by_name: bool = False
    repository: str | None = None
    agreement: str | None = None
    carried: Callable[[], Path] | None = None
    memory: str | None = None
    files: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()

    def names(self, model: str) -> bool:
        """Whether a `model` for `load_scorer` names this family."""
        if self.by_name:
            return model == self.name or model.startswith((f"{self.name}:", f"{self.name}@"))
        return self.carried is not None and model == self.name

    def named(self, model: str) -> str:
        """What a `model` that `names` this family says of it: folder, file or Hub id; else `repository`."""
        rest = model.removeprefix(self.name)
        return rest[1:].strip() if rest.startswith(":") else f"{self.repository or ''}{rest}"

    def facts(self) -> dict[str, str | bool | None]:
        """What people and programs want to know of it, in the order to show it."""
        return {
            "name": self.name,
            "model": self.model,
            "scores": self.scores,
            "needs_prompt": self.needs_prompt,
            "repository": self.repository,
            "licence": self.licence,
            "size": self.size,
            "memory": self.memory or self.size,
            "agreement": self.agreement,
        }
