"""A large network in a folder of published files, loaded when it is first needed."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn

from ..compute.caller_state import as_loaded
from ..compute.own_lock import OwnLock
from ..errors import MaAgiqaError, UnusableModelError
from ..model_files.transformers_folder import fingerprint, read_json
from .quantization import quantization_library

logger = logging.getLogger(__name__)


class HasNetwork(Protocol):
    """What is loaded: it knows where its weights are."""

    @property
    def network(self) -> nn.Module:
        """Holds the weights; computes wherever these are at each call, unless they were spread by a device map."""
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


Loaded = TypeVar("Loaded", bound=HasNetwork)


class LazyNetwork(ABC, Generic[Loaded]):
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
        self.config = self._read_config()
        self._check_files()
        self.manager: DeviceManager | None = None
        self._loading = OwnLock()
        self._loaded: Loaded | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None, "manager": None}

    @property
    def is_loaded(self) -> bool:
        return self._loaded is not None

    def get(self) -> Loaded:
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

    def ready(self) -> Loaded:
        """The model where it is to compute, about to be used.

        Raises:
            UnusableModelError: The model cannot be loaded, or was changed to another precision.
        """
        model = self.get()
        self._check_precision(model.network)
        if self.manager is not None:
            self.manager.before_use(model.network, self.quantization is not None)
        return model

    def drop(self) -> None:
        """Releases the weights; the next picture that needs them loads them again."""
        with self._loading:
            self._loaded = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of its files."""
        return fingerprint(self.folder)

    @cached_property
    def library(self) -> str:
        """For a model of transformers its major version, which decides how pictures are resized."""
        return f";transformers {version('transformers').partition('.')[0]}"

    def identity(self, dtype: torch.dtype) -> str:
        """What the answers depend on besides picture and question: the model's files and its precision."""
        precision = str(dtype).removeprefix("torch.")
        quantized = f";{self.quantization} by {self.quantized_by}" if self.quantization else ""
        return f"{self.fingerprint};{precision}{quantized}{self.library}"

    def why_not_finite(self) -> str:
        """What to do about an answer that is NaN or infinite."""
        if self.dtype == torch.float16:
            return "float16 overflows above 65504: use dtype 'bfloat16' or 'float32'"
        return "the language model's weights may be damaged: download them again"

    def _check_precision(self, network: nn.Module) -> None:
        """An answer is cached under the precision that it was made in; some weights may be of a higher one."""
        found = {str(weights.dtype) for weights in network.parameters() if weights.is_floating_point()}
        if self.quantization is None and str(self.dtype) not in found:
            raise UnusableModelError(
                f"Expected the language model {self.name!r} in {self.dtype}, as it was loaded, got "
                f"{' and '.join(sorted(found))}. Load it with dtype={'/'.join(sorted(found)).replace('torch.', '')!r} "
                "instead of changing it afterwards."
            )

    @as_loaded()
    def _load(self) -> Loaded:
        is_quantized = self.quantization is not None
        return self._read_weights(
            device=self.device if self.manager is None else self.manager.before_loading(is_quantized),
            dtype=self.dtype,
            quantization=self.quantization,
            device_map=self.device_map,
        )

    def _read_config(self) -> dict[str, Any]:
        return read_json(self.folder / "config.json")

    @abstractmethod
    def _read_weights(
        self, *, device: torch.device, dtype: torch.dtype, quantization: str | None, device_map: Any
    ) -> Loaded: ...

    @abstractmethod
    def _check_files(self) -> None:
        """Finds missing, truncated and foreign files now, though the weights are read when they are needed."""
        ...
