"""The network behind a vision-language judge, loaded when it is first needed, and asked in batches that fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ...model_files.hub import commit_of
from ...semantic.lazy_network import LazyNetwork
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
        **options: Any,
    ) -> None:
        self._make, self._check, self._depends_on_transformers = make, check, depends_on_transformers
        super().__init__(folder, name, **options)

    @cached_property
    def library(self) -> str:
        """See `LazyNetwork.library`."""
        return super().library if self._depends_on_transformers else ""

    @property
    def revision(self) -> str:
        """The Hub's commit where it is known, else the fingerprint of the files: 12 digits."""
        return (commit_of(self.folder) or self.fingerprint)[:12]

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
        self._check(self.folder)
