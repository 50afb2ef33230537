"""The network behind a vision-language judge, loaded when it is first needed, and asked in batches that fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...compute.devices import resolve_dtype
from ...errors import MaAgiqaError
from ...model_files.hub import commit_of
from ...semantic.lazy_network import DeviceManager, LazyNetwork
from .asking import AskedPicture, Reader
from .batches import asked_in_batches


class LazyReader(LazyNetwork[Reader]):
    """Reads with a network that is loaded at the first picture: see `LazyNetwork`.

    Args:
        folder: The model's files.
        name: For messages.
        make: Loads the reader: `make(folder, device=, dtype=, quantization=, device_map=)`.
        check: Looks at everything but the weights, cheaply, and says what is wrong.
        depends_on_transformers: The library's major version changes how pictures are resized.
        asked_dtype: What the precision follows from where somebody else decides on the device: see `hand_over`.
        options: device, dtype, quantization, device_map.

    Raises:
        ImportError: The library for the quantization is not installed.
        ValueError: Missing or damaged files, those of another model, or another kind of quantization.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        make: Callable[..., Reader],
        check: Callable[[Path], object],
        *,
        depends_on_transformers: bool,
        asked_dtype: str | torch.dtype = "auto",
        **options: Any,
    ) -> None:
        self._asked_dtype = asked_dtype
        self._make, self._depends_on_transformers = make, depends_on_transformers
        check(folder)
        super().__init__(folder, name, **options)

    @cached_property
    def library(self) -> str:
        """See `LazyNetwork.library`."""
        return super().library if self._depends_on_transformers else ""

    @property
    def revision(self) -> str:
        """The Hub's commit where it is known, else the fingerprint of the files: 12 digits."""
        return (commit_of(self.folder) or self.fingerprint)[:12]

    def hand_over(self, manager: DeviceManager) -> None:
        """Lets `manager` decide where the model is; to be called before the first picture.

        Raises:
            ValueError: There is a `device_map`, which is another way to say the same.
        """
        if self.device_map is not None:
            raise MaAgiqaError(f"Expected no device_map, got {self.device_map!r}. The device is shared with others.")
        self.manager, self.device = manager, manager.device
        self.dtype = resolve_dtype(self._asked_dtype, manager.device)

    def answers(self, asked: Sequence[AskedPicture], batch_size: int | None) -> list[Tensor | str]:
        """For every picture the numbers (Q, K) of its questions, or why the model does not take it.

        Raises:
            UnusableModelError: The model cannot be loaded, or was changed to another precision.
        """
        kind = ("judge", self.folder, self.dtype, self.quantization)
        return asked_in_batches(self.ready(), asked, batch_size, device=self.device, kind=kind)

    def _read_weights(self, **placement: Any) -> Reader:
        return self._make(self.folder, **placement)

    def _check_files(self) -> None:
        """Done before config.json is read: `check` says more of what is wrong."""
