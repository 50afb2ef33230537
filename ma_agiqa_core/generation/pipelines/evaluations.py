"""The number of function evaluations (NFE), what generation costs: rows times calls of the denoising network."""

from __future__ import annotations

import threading
from typing import Any

DENOISERS = ("unet", "transformer", "transformer_2", "unconditional_transformer")
"""Attributes of a pipe that hold the network itself; a ControlNet beside it is not counted."""
_SAMPLES = ("sample", "hidden_states", "x")


class EvaluationCounter:
    """Counts the calls of a pipe's denoisers; a row with guidance counts 2, in one call of twice the rows or in two.

    Attributes:
        evaluations: The count so far.
        thread: Only calls from the thread with this identifier count; None: from all.
    """

    def __init__(self, pipe: Any) -> None:
        self.evaluations = 0
        self.thread: int | None = None
        self._pipe = pipe
        self._hooks: list[Any] = []

    def install(self) -> None:
        """Puts hooks on the denoisers."""
        parts = {id(part): part for name in DENOISERS if (part := getattr(self._pipe, name, None)) is not None}
        self._hooks += [part.register_forward_pre_hook(self._count, with_kwargs=True) for part in parts.values()]

    def remove(self) -> None:
        """Takes the hooks off; any number of times."""
        while self._hooks:
            self._hooks.pop().remove()

    def __enter__(self) -> EvaluationCounter:
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _count(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.thread is None or self.thread == threading.get_ident():
            self.evaluations += rows_of_call(args, kwargs)


def rows_of_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """How many rows a denoiser is called with; 0 if its sample has an unknown name."""
    sample = args[0] if args else next((kwargs[name] for name in _SAMPLES if name in kwargs), None)
    return 0 if sample is None else len(sample)
