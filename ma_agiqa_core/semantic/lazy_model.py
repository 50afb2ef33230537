"""The language model behind an extractor, loaded when it is first needed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..compute.batching import run_in_batches
from ..compute.caller_state import as_loaded
from ..compute.own_lock import OwnLock
from ..compute.progress import tick
from ..errors import MaAgiqaError, UnusableModelError
from ..model_files.transformers_folder import MPLUG_OWL2, check_shards, fingerprint, image_text_kind, read_json
from .quantization import quantization_library

logger = logging.getLogger(__name__)


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


class DeviceManager(Protocol):
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


class LazyModel:
    """A language model in a folder; copies and pickles leave its weights out and load them again when needed.

    Args:
        folder: Its files.
        name: For messages.
        device: Where it computes.
        dtype: Precision of its weights.
        quantization: None, "int8" or "nf4".
        device_map: None, or "auto" or a dict as in accelerate.

    Raises:
        ImportError: The library for the quantization is not installed.
        ValueError: Missing or damaged files, those of another model, or another kind of quantization.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        device: torch.device,
        dtype: torch.dtype,
        quantization: str | None = None,
        device_map: Any = None,
    ) -> None:
        self.folder, self.name = folder, name
        self.device, self.dtype = device, dtype
        self.quantization, self.device_map = quantization, device_map
        self.quantized_by = None if quantization is None else quantization_library(quantization)
        self.config = read_json(folder / "config.json")
        self._check_files()
        self.manager: DeviceManager | None = None
        self._loading = OwnLock()
        self._loaded: SemanticModel | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None, "manager": None}

    @property
    def is_loaded(self) -> bool:
        return self._loaded is not None

    def get(self) -> SemanticModel:
        """The model, loaded at the first call.

        Raises:
            UnusableModelError: Its files are damaged or another model's, it does not fit into memory, or a
                package that it needs is not installed.
        """
        with self._loading:
            if self._loaded is None:
                logger.info("loading %s (%s, %s)", self.name, self.device, self.dtype)
                try:
                    self._loaded = self._load()
                except (MaAgiqaError, OSError, ImportError, MemoryError, RuntimeError) as error:
                    raise UnusableModelError(str(error) or repr(error)) from error
            return self._loaded

    def drop(self) -> None:
        """Releases the weights; the next picture that needs them loads them again."""
        with self._loading:
            self._loaded = None

    @cached_property
    def hidden_size(self) -> int:
        """The width of the vectors, from the config where it says so."""
        text = self.config.get("text_config")
        size = (text if isinstance(text, dict) else self.config).get("hidden_size")
        return size if isinstance(size, int) else self.get().hidden_size

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of its files."""
        return fingerprint(self.folder)

    @cached_property
    def library(self) -> str:
        """For a model of transformers its major version, which decides how pictures are resized."""
        return "" if self._is_owl else f";transformers {version('transformers').partition('.')[0]}"

    def identity(self, dtype: torch.dtype) -> str:
        """What the answers depend on besides picture and question: the model's files and its precision."""
        precision = str(dtype).removeprefix("torch.")
        quantized = f";{self.quantization} by {self.quantized_by}" if self.quantization else ""
        return f"{self.fingerprint};{precision}{quantized}{self.library}"

    def answers(
        self, pixels: Sequence[Tensor], questions: Mapping[str, str], batch_size: int | None
    ) -> list[dict[str, Tensor]]:
        """The vector of each question by name, for every picture of uint8 (3, H, W).

        Raises:
            UnusableModelError: The model cannot be loaded, or was changed to another precision.
        """
        model = self.get()
        self._check_precision(model.network)
        if self.manager is not None:
            self.manager.before_use(model.network, self.quantization is not None)

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
                fix = (
                    "float16 overflows above 65504: use dtype 'bfloat16' or 'float32'"
                    if self.dtype == torch.float16
                    else "the language model's weights may be damaged: download them again"
                )
                return f"its {name} vector has {bad} values of {len(vector)} that are NaN or infinite. {fix}"
        return None

    def _check_precision(self, network: nn.Module) -> None:
        """A vector is cached under the precision that it was made in; some weights may be of a higher one."""
        found = {str(weights.dtype) for weights in network.parameters() if weights.is_floating_point()}
        if self.quantization is None and str(self.dtype) not in found:
            raise UnusableModelError(
                f"Expected the language model {self.name!r} in {self.dtype}, as it was loaded, got "
                f"{' and '.join(sorted(found))}. Load it with dtype={'/'.join(sorted(found)).replace('torch.', '')!r} "
                "instead of changing it afterwards."
            )

    @as_loaded()
    def _load(self) -> SemanticModel:
        is_quantized = self.quantization is not None
        placement: dict[str, Any] = {
            "device": self.device if self.manager is None else self.manager.before_loading(is_quantized),
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
        """Finds missing, truncated and foreign files now, though the weights are read when they are needed."""
        check_shards(self.folder)
        if self._is_owl:
            from .published_mplug_owl2 import read_all_but_weights

            read_all_but_weights(self.folder)

    @property
    def _is_owl(self) -> bool:
        return image_text_kind(self.config) == MPLUG_OWL2
