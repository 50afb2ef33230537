"""The whole surgery of dropping rows in the middle of a diffusers pipeline call.

A row lives in many places at once: in tensors that the pipeline takes back from its callback, in local variables that
cannot be reached, in the scheduler's history, in the list of generators. This module cuts all of them, so that the
rows that stay continue as if nothing had happened:

- tensors returned from the callback, both halves where guidance put [negative; positive] together;
- scheduler attributes, also in containers, whose WHOLE shape is the latents' (`sigmas` may well have as many entries);
- the caller's list of generators, in place, because the scheduler is given that very list;
- the denoiser's arguments, by a forward pre-hook, wherever they still have the old number of rows;
- local variables of the loop that are used outside the denoiser (masks, noise), in place.

Which arguments and variables have rows is never guessed from their length: pipelines/families.py says it.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from ...errors import MaAgiqaError
from ..pipelines.evaluations import EvaluationCounter, rows_of_call
from ..pipelines.families import Family


class RowSurgery:
    """Drops rows in one pipeline call; only calls from the thread that installed it are touched.

    Attributes:
        rows: Original numbers of the rows that are still there, ascending; empty before the first step's end.
        arguments: Keyword arguments of the denoiser's last call, already with the survivors only.
    """

    def __init__(self, pipe: Any, family: Family) -> None:
        self.pipe = pipe
        self.family = family
        self.rows: list[int] = []
        self._counter = EvaluationCounter(pipe)
        self.arguments: Mapping[str, Any] = {}
        self._total = 0  # original number of rows
        self._multiples: set[int] = set()  # rows of a sample by rows of latents in the last step: 2 with guidance
        self._sizes: set[int] = set()  # rows of samples since the last step's end
        self._thread: int | None = None
        self._hooks: list[Any] = []
        self._generators: list[torch.Generator] | None = None  # the caller's list, once it was cut
        self._all_generators: list[torch.Generator] = []
        self._whole: list[tuple[Tensor, Tensor]] = []  # blended tensors, and what they held at first

    @property
    def evaluations(self) -> int:
        """Rows times denoiser calls so far; a row with guidance counts 2."""
        return self._counter.evaluations

    def install(self) -> None:
        """Puts the hooks on the denoisers."""
        self._thread = self._counter.thread = threading.get_ident()
        self._counter.install()
        for name in (*self.family.denoisers, *self.family.companions):
            module = getattr(self.pipe, name, None)
            if isinstance(module, torch.nn.Module):
                hook = self._hook(is_denoiser=name in self.family.denoisers)
                self._hooks.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def remove(self) -> None:
        """Takes the hooks off and gives the caller's generators and tensors back whole; any number of times."""
        self._counter.remove()
        while self._hooks:
            self._hooks.pop().remove()
        if self._generators is not None:
            self._generators[:] = self._all_generators
            self._generators = None
        while self._whole:
            tensor, whole = self._whole.pop()
            tensor.data = whole

    def begin(self) -> None:
        """Before a pipeline call, in its thread: nothing is known of its rows."""
        self._thread = self._counter.thread = threading.get_ident()
        self.rows = []
        self._total = 0
        self._multiples, self._sizes = set(), set()

    def end_step(self, latents: Tensor) -> None:
        """Takes note of a step's end: call it in every step, before `keep`.

        Raises:
            RuntimeError: The latents have another number of rows than they should.
        """
        if not self.rows:
            self._total = len(latents)
            self.rows = list(range(self._total))
        if len(latents) != len(self.rows):
            raise RuntimeError(_grown(len(self.rows), len(latents), "latents"))
        if self._sizes:
            self._multiples = {size // len(self.rows) for size in self._sizes}
        self._sizes = set()

    def keep(self, rows: Sequence[int], callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        """Drops all rows but these, at a step's end.

        Args:
            rows: Original row numbers, ascending, out of `self.rows`.
            callback_kwargs: What the pipeline gave to its callback; not changed.

        Returns:
            What the callback is to return.

        Raises:
            ValueError: They are none, not ascending, or some of them are gone.
            RuntimeError: A tensor has an unexpected number of rows; nothing has been changed then.
        """
        latents = callback_kwargs["latents"]
        if not self.rows or self._sizes:
            self.end_step(latents)
        keep = [int(row) for row in rows]
        if not keep or keep != sorted(set(keep)) or not set(keep) <= set(self.rows):
            raise MaAgiqaError(f"Expected ascending rows out of {self.rows} to keep, got {keep}. Name at least one.")
        if keep == self.rows:
            return callback_kwargs
        positions = [self.rows.index(row) for row in keep]
        frame = pipeline_frame(self.pipe)
        variables = dict(frame.f_locals) if frame is not None else {}
        del frame  # it would keep every tensor of the call alive
        returned = {name: self._cut_return(name, value, positions) for name, value in callback_kwargs.items()}
        if len(self.rows) == self._total:
            self._whole = self._find_blended(variables)
        for tensor, whole in self._whole:
            # `.data` swaps what a tensor holds: the pipeline's variable is another name for the same object.
            tensor.data = _select(whole, _indices(keep, self._total, len(whole) // self._total))
        self._cut_scheduler(latents.shape, positions)
        self._cut_generators(variables.get("generator"), keep)
        self.rows = keep
        return returned

    def _hook(self, *, is_denoiser: bool) -> Callable[..., Any]:
        def before_forward(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if threading.get_ident() != self._thread:
                return None
            size = rows_of_call(args, kwargs)
            if is_denoiser:
                self._sizes.add(size)
            if self.rows and len(self.rows) < self._total:
                multiple, rest = divmod(size, len(self.rows))
                if rest or multiple not in {1, *self._multiples}:
                    raise RuntimeError(_grown(len(self.rows), size, type(module).__name__))
                kwargs = self._cut_arguments(kwargs, multiple)
            if is_denoiser:
                self.arguments = kwargs
            return args, kwargs

        return before_forward

    def _cut_arguments(self, kwargs: dict[str, Any], multiple: int) -> dict[str, Any]:
        """Whatever the callback could not return still has the rows of the beginning."""
        changed = dict(kwargs)
        for path in self.family.batch_arguments:
            name, _, entry = path.partition(".")
            value = changed.get(name)
            if value is None:
                continue
            if not entry:
                changed[name] = self._survivors_of(value, path, multiple)
            elif value.get(entry) is not None:
                changed[name] = {**value, entry: self._survivors_of(value[entry], path, multiple)}
        return changed

    def _survivors_of(self, value: Any, name: str, multiple: int) -> Any:
        if isinstance(value, list | tuple):
            if any(isinstance(entry, Tensor) for entry in value):  # one tensor per adapter, each with all rows
                return type(value)(self._survivors_of(entry, name, multiple) for entry in value)
            if len(value) == multiple * self._total:
                return type(value)(value[index] for index in _indices(self.rows, self._total, multiple))
            return value
        if not isinstance(value, Tensor) or value.ndim == 0:
            return value
        if len(value) == multiple * self._total:
            return _select(value, _indices(self.rows, self._total, multiple))
        if len(value) in (1, multiple * len(self.rows)):
            return value
        raise RuntimeError(
            f"Expected {name} of the denoiser to have {multiple * len(self.rows)} rows (or {multiple * self._total} "
            f"from the beginning), got {len(value)}. Something else changes the batch: take it out of the call."
        )

    def _cut_return(self, name: str, value: Any, positions: list[int]) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(self._cut_return(name, entry, positions) for entry in value)
        if not isinstance(value, Tensor) or value.ndim == 0:
            return value
        rows = len(self.rows)
        if len(value) == rows:
            return _select(value, positions)
        if len(value) == 2 * rows:
            return _select(value, _indices(positions, rows, 2))
        if len(value) in (1, self._total, 2 * self._total):  # this pipeline shows it and does not take it back
            return value
        raise RuntimeError(
            f"Expected {name} to have {rows} or {2 * rows} rows at the step's end, got {len(value)}. Something else "
            "changes the batch: take it out of the call."
        )

    def _cut_scheduler(self, shape: torch.Size, positions: list[int]) -> None:
        state = vars(self.pipe.scheduler)
        for name, value in list(state.items()):
            if name != "_internal_dict":  # the configuration
                cut = _cut_history(value, shape, positions)
                if cut is not value:
                    state[name] = cut

    def _cut_generators(self, generators: object, keep: list[int]) -> None:
        if self._generators is None:
            if not isinstance(generators, list) or len(generators) != self._total:
                return  # one for all, or none: nothing more is drawn from it, as check_randomness makes sure
            self._generators, self._all_generators = generators, list(generators)
        self._generators[:] = [self._all_generators[row] for row in keep]

    def _find_blended(self, variables: Mapping[str, Any]) -> list[tuple[Tensor, Tensor]]:
        """The loop's own tensors, each once, with what they hold now."""
        found: dict[int, Tensor] = {}
        for name in self.family.blended:
            value = variables.get(name)
            if not isinstance(value, Tensor) or value.ndim == 0 or len(value) == 1:
                continue
            if len(value) not in (self._total, 2 * self._total):
                raise RuntimeError(
                    f"Expected {name} in the pipeline's loop to have {self._total} or {2 * self._total} rows, got "
                    f"{len(value)}. Give one picture per row, or one for all."
                )
            found[id(value)] = value
        return [(tensor, tensor.data) for tensor in found.values()]


def pipeline_frame(pipe: Any) -> FrameType | None:
    """The frame of this pipeline's running `__call__`, looked for outwards from here; None if it is not running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "__call__" and frame.f_locals.get("self") is pipe:
            return frame
        frame = frame.f_back
    return None


def _indices(rows: Sequence[int], total: int, multiple: int) -> list[int]:
    """These rows in each of `multiple` blocks of `total`."""
    return [block * total + row for block in range(multiple) for row in rows]


def _select(tensor: Tensor, indices: Sequence[int]) -> Tensor:
    return tensor.index_select(0, torch.tensor(indices, device=tensor.device))


def _cut_history(value: Any, shape: torch.Size, positions: list[int]) -> Any:
    """The value with every tensor of this whole shape cut, the same object where there is none."""
    if isinstance(value, Tensor):
        return _select(value, positions) if value.shape == shape else value
    if isinstance(value, list | tuple | deque):
        entries = [_cut_history(entry, shape, positions) for entry in value]
        if all(new is old for new, old in zip(entries, value, strict=True)):
            return value
        if isinstance(value, deque):
            return deque(entries, value.maxlen)
        return type(value)(entries)
    if isinstance(value, dict):
        changed = {key: _cut_history(entry, shape, positions) for key, entry in value.items()}
        return value if all(changed[key] is value[key] for key in value) else changed
    return value


def _grown(expected: int, got: int, where: str) -> str:
    return (
        f"Expected {expected} rows, got {got} in {where}: the batch grew back, so that the pictures would be wrong. "
        "Something else changes it, such as another callback; take it out of the call."
    )
