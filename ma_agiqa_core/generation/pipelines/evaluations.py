"""Counts what generation costs: rows times calls of the denoising network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

DENOISERS = ("unet", "transformer", "transformer_2")
"""Attributes of a pipe that hold the network itself; a ControlNet beside it is not counted."""
_SAMPLES = ("sample", "hidden_states", "x")


class DenoiserCalls:
    """The count so far; a row with guidance counts 2, in one call of twice the rows or in two calls."""

    def __init__(self) -> None:
        self.evaluations = 0

    def _count(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sample = args[0] if args else next((kwargs[name] for name in _SAMPLES if name in kwargs), None)
        if sample is not None:
            self.evaluations += len(sample)


@contextmanager
def counted(pipe: Any) -> Iterator[DenoiserCalls]:
    """Counts the calls of the pipe's denoisers inside the block, whichever thread makes them."""
    calls = DenoiserCalls()
    modules = {id(module): module for name in DENOISERS if (module := getattr(pipe, name, None)) is not None}
    handles = [module.register_forward_pre_hook(calls._count, with_kwargs=True) for module in modules.values()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
