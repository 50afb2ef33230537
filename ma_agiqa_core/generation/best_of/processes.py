"""Candidates spread over the processes of `accelerate launch` or `torchrun`: one process for each GPU.

Every process runs the same program. Each makes its share of the candidates, all see all scores, and so all decide
the same. Whatever is exchanged goes through `exchange`, which every process calls equally often; one that fails says
so at its next turn instead of leaving the others to wait for it.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed

T = TypeVar("T")


class OtherProcessError(RuntimeError):
    """Another process failed, which ends the work of all."""


@dataclass(frozen=True)
class _Failed:
    reason: str


class Processes:
    """The processes among which candidates are shared; just this one unless several were launched."""

    def __init__(self) -> None:
        self._state: Any = None
        if _several_were_launched():
            from accelerate import PartialState
            from accelerate.utils import parse_flag_from_env

            # Unless it is told so, it takes a process without a GPU for one that is alone.
            was_begun = torch.distributed.is_initialized()
            self._state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not _has_accelerator())
            if not was_begun:  # gloo's threads, left to the end of the process, can take it down with an abort
                atexit.register(self._state.destroy_process_group)
        self.index: int = 0 if self._state is None else self._state.process_index
        self.count: int = 1 if self._state is None else self._state.num_processes

    @property
    def device(self) -> Any:
        """Where this process is to compute, as a torch.device; None unless several were launched."""
        return None if self._state is None else self._state.device

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of the items, in order; possibly none."""
        if self._state is None:
            return list(items)
        with self._state.split_between_processes(list(items)) as mine:
            return mine

    def exchange(self, mine: T) -> list[T]:
        """What all processes bring, by process.

        Raises:
            OtherProcessError: One of them has failed.
        """
        if self._state is None:
            return [mine]
        from accelerate.utils import gather_object

        everyones = gather_object([mine])
        for index, brought in enumerate(everyones):
            if isinstance(brought, _Failed) and index != self.index:
                raise OtherProcessError(f"Process {index} failed: {brought.reason}")
        return everyones

    def tell_failure(self, error: BaseException) -> None:
        """Ends the others, too. They learn of it at their next exchange."""
        if self._state is not None and not isinstance(error, OtherProcessError):
            self.exchange(_Failed(f"{type(error).__name__}: {error}"))


def _has_accelerator() -> bool:
    if hasattr(torch, "accelerator"):  # since 2.6
        return torch.accelerator.is_available()
    return torch.cuda.is_available()


def _several_were_launched() -> bool:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size() > 1
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ
