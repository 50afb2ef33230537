"""The whole surgery of dropping rows in the middle of a diffusers pipeline call.

A row lives in many places at once: in tensors that the pipeline takes back from its callback, in local variables that
cannot be reached, in the scheduler's history, in the list of generators. This module cuts all of them, so that the
rows that stay continue as if nothing had happened:

- tensors returned from the callback, both halves where guidance put [negative; positive] together;
- scheduler attributes, also in containers, whose WHOLE shape is the latents' (`sigmas` may well have as many entries);
- the caller's list of generators, in place, because the scheduler is given that very list;
- the denoiser's arguments, by a forward pre-hook, wherever they still have the old number of rows;
- local variables of the loop that are used outside the denoiser (masks, noise), in place;
- caches of keys and values that the loop keeps, in place, so that their memory is free at once;
- numbers of rows that the loop counts by.

Which arguments and variables have rows is never guessed from their length: pipelines/known says it.
"""

import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ...errors import MaAgiqaError
from ..pipelines.evaluations import EvaluationCounter, rows_of_call
from ..pipelines.family import Family
from ..pipelines.networks import forget_keys_and_values
from .cutting import check_cache, cut_cache, cut_state, indices, select
from .pipeline_loop import PipelineLoop

_GUIDERS = ("guider", "ocr_guider")
_REMEMBERED = 3  # cut tensors per argument: of the prompt, of the negative one, and of a third call


class Loop(Protocol):
    """Where the variables of a denoising loop lie."""

    def read(self) -> Mapping[str, Any]:
        """By name."""

    def write(self, values: Mapping[str, Any]) -> None:
        """Gives some of them other values."""


class RowSurgery:
    """Drops rows in one pipeline call; only calls from the thread that installed it are touched.

    Attributes:
        rows: Original numbers of the rows that are still there, ascending; empty before the first step's end.
        arguments: Keyword arguments of the denoiser's last call, already with the survivors only.
    """

    def __init__(self, pipe: Any, family: Family, loop: Loop | None = None) -> None:
        self.pipe = pipe
        self.family = family
        self._loop = PipelineLoop(pipe) if loop is None else loop
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
        # Cut once and kept: it costs nothing per step, and what looks at a tensor's address sees the same one.
        self._cut: dict[str, list[tuple[Tensor, int, Tensor]]] = {}

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
                hook = self._hook(module, is_denoiser=name in self.family.denoisers)
                self._hooks.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def remove(self) -> None:
        """Takes the hooks off and gives the caller's generators and tensors back whole; any number of times."""
        self._counter.remove()
        while self._hooks:
            self._hooks.pop().remove()
        if len(self.rows) < self._total:
            self._forget_keys_and_values()
        self._cut = {}
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
        self._cut = {}

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
        variables = self._loop.read()
        returned = {name: self._cut_return(name, value, positions) for name, value in callback_kwargs.items()}
        caches = {name: value for name in self.family.caches if (value := variables.get(name)) is not None}
        for name, cache in caches.items():
            check_cache(name, cache, len(self.rows))
        if len(self.rows) == self._total:
            self._whole = self._find_blended(variables)
        for tensor, whole in self._whole:
            # `.data` swaps what a tensor holds: the pipeline's variable is another name for the same object.
            tensor.data = select(whole, indices(keep, self._total, len(whole) // self._total))
        for cache in caches.values():
            cut_cache(cache, len(self.rows), positions)
        self._forget_keys_and_values()
        for holder in (self.pipe.scheduler, *(getattr(self.pipe, name, None) for name in _GUIDERS)):
            if holder is not None:
                cut_state(holder, latents.shape, positions)
        self._cut_generators(variables.get("generator"), keep)
        counts = [name for name in self.family.row_counts if name in variables]
        self._loop.write({name: 1 if number else len(keep) for number, name in enumerate(counts)})
        self.rows = keep
        self._cut = {}
        return returned

    def _hook(self, module: Any, *, is_denoiser: bool) -> Callable[..., Any]:
        positional = _positional_names(module)

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
                named = self._cut_arguments(dict(zip(positional, args, strict=False)), multiple)
                args = (*named.values(), *args[len(named) :])
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
        for name in self.family.row_lists:
            if isinstance(changed.get(name), list | tuple):
                changed[name] = self._survivors_of_list(changed[name], multiple)
        return changed

    def _survivors_of_list(self, value: list[Any] | tuple[Any, ...], multiple: int) -> Any:
        """Of a list with an entry per row; one with another length has an entry per prompt, all alike."""
        if len(value) != multiple * self._total:
            return value
        return type(value)(value[index] for index in indices(self.rows, self._total, multiple))

    def _survivors_of(self, value: Any, name: str, multiple: int) -> Any:
        if isinstance(value, list | tuple):  # one tensor per adapter or ControlNet, each with all rows
            return type(value)(self._survivors_of(entry, name, multiple) for entry in value)
        if not isinstance(value, Tensor) or value.ndim == 0:
            return value
        axis = self.family.row_axes.get(name, 0)
        length = value.shape[axis]
        if length == multiple * self._total:
            return self._cut_once(value, name, axis, multiple)
        if length in (1, multiple * len(self.rows)):
            return value
        raise RuntimeError(
            f"Expected {name} of the denoiser to have {multiple * len(self.rows)} rows (or {multiple * self._total} "
            f"from the beginning), got {length}. Something else changes the batch: take it out of the call."
        )

    def _cut_once(self, value: Tensor, name: str, axis: int, multiple: int) -> Tensor:
        known = self._cut.setdefault(name, [])
        for source, times, cut in known:
            if source is value and times == multiple:
                return cut
        cut = select(value, indices(self.rows, self._total, multiple), axis)
        known.append((value, multiple, cut))
        del known[:-_REMEMBERED]
        return cut

    def _forget_keys_and_values(self) -> None:
        for name in self.family.denoisers:
            forget_keys_and_values(getattr(self.pipe, name, None))

    def _cut_return(self, name: str, value: Any, positions: list[int]) -> Any:
        if not isinstance(value, Tensor) or value.ndim == 0:  # of a list the hook cuts what the denoiser is given
            return value
        rows, axis = len(self.rows), self.family.row_axes.get(name, 0)
        length = value.shape[axis]
        if length in (rows, 2 * rows):
            return select(value, indices(positions, rows, length // rows), axis)
        if length in (1, self._total, 2 * self._total):  # this pipeline shows it and does not take it back
            return value
        raise RuntimeError(
            f"Expected {name} to have {rows} or {2 * rows} rows at the step's end, got {length}. Something else "
            "changes the batch: take it out of the call."
        )

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


def _positional_names(module: Any) -> list[str]:
    """Names of what a network may be given by position; torch.compile hides them in a wrapper."""
    own = getattr(module, "_orig_mod", module)
    return list(inspect.signature(type(own).forward).parameters)[1:]


def _grown(expected: int, got: int, where: str) -> str:
    return (
        f"Expected {expected} rows, got {got} in {where}: the batch grew back, so that the pictures would be wrong. "
        "Something else changes it, such as another callback; take it out of the call."
    )
