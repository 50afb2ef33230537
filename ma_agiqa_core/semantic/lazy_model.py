"""The language model behind an extractor, loaded when it is first needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..compute.batching import run_in_batches
from ..compute.progress import tick
from ..model_files.transformers_folder import MPLUG_OWL2, check_shards, image_text_kind
from .lazy_network import DeviceManager, LazyNetwork

__all__ = ["DeviceManager", "LazyModel", "SemanticModel"]


class SemanticModel(Protocol):
    """A language model that answers: mPLUG-Owl2, or any other image-text model of transformers."""

    @property
    def hidden_size(self) -> int: ...

    @property
    def network(self) -> nn.Module:
        """Holds the weights; computes wherever these are at each call, unless they were spread by a device map."""
        ...

    def features(self, pictures: Sequence[Tensor], questions: Mapping[str, str]) -> dict[str, Tensor]:
        """By the questions' names: (N, D) float32 on the CPU, from uint8 (3, H, W) RGB of different sizes."""
        ...


class LazyModel(LazyNetwork[SemanticModel]):
    """A language model that gives features: see `LazyNetwork`."""

    @cached_property
    def hidden_size(self) -> int:
        """The width of the vectors, from the config where it says so."""
        text = self.config.get("text_config")
        size = (text if isinstance(text, dict) else self.config).get("hidden_size")
        return size if isinstance(size, int) else self.get().hidden_size

    @cached_property
    def library(self) -> str:
        """For a model of transformers its major version, which decides how pictures are resized."""
        return "" if self._is_owl else super().library

    def answers(
        self, pixels: Sequence[Tensor], questions: Mapping[str, str], batch_size: int | None
    ) -> list[dict[str, Tensor]]:
        """The vector of each question by name, for every picture of uint8 (3, H, W).

        Raises:
            UnusableModelError: The model cannot be loaded, or was changed to another precision.
        """
        model = self.ready()

        def ask(batch: Sequence[Tensor]) -> dict[str, Tensor]:
            vectors = model.features(batch, questions)
            tick(len(batch))
            return vectors

        vectors = run_in_batches(
            pixels,
            ask,
            device=self.device,
            what=("semantic", self.folder, self.dtype, self.quantization),
            batch_size=batch_size,
        )
        return [{name: vectors[name][row] for name in questions} for row in range(len(pixels))]

    def failure(self, vectors: Mapping[str, Tensor]) -> str | None:
        """Why these vectors of a picture cannot be used, in one line."""
        for name, vector in vectors.items():
            if bad := int((~vector.isfinite()).sum()):
                return (
                    f"its {name} vector has {bad} values of {len(vector)} that are NaN or infinite. "
                    f"{self.why_not_finite()}"
                )
        return None

    def _read_weights(
        self, *, device: torch.device, dtype: torch.dtype, quantization: str | None, device_map: Any
    ) -> SemanticModel:
        placement: dict[str, Any] = {
            "device": device,
            "dtype": dtype,
            "quantization": quantization,
            "device_map": device_map,
        }
        if self._is_owl:
            from .published_mplug_owl2 import PublishedMplugOwl2

            return PublishedMplugOwl2.from_folder(self.folder, **placement)
        from .chat_model import ChatModel

        return ChatModel.from_pretrained(self.folder, **placement)

    def _check_files(self) -> None:
        check_shards(self.folder)
        if self._is_owl:
            from .published_mplug_owl2 import read_all_but_weights

            read_all_but_weights(self.folder)

    @property
    def _is_owl(self) -> bool:
        return image_text_kind(self.config) == MPLUG_OWL2
