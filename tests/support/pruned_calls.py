"""Calls of tiny pipelines in which rows are dropped at given steps; conftest.py has the fixtures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch

from ma_agiqa_core.generation.pipelines.families import check_exact, family_of
from ma_agiqa_core.generation.pruning.row_surgery import RowSurgery

ROWS = 4
LIMIT = 1e-4


@dataclass(frozen=True)
class Run:
    """What a call gave: pictures (n, ...) in [0, 1], the last latents, scheduler calls, network evaluations."""

    pictures: torch.Tensor
    latents: torch.Tensor
    calls: int
    evaluations: int


class PrunedCalls:
    """Calls the shared tiny pipelines."""

    def __init__(self, tiny_pipelines: ModuleType) -> None:
        self.tiny_pipelines = tiny_pipelines
        self._unpruned: dict[str, Run] = {}

    def call(
        self,
        name: str,
        scheduler: str | None = None,
        prunings: Mapping[int, Sequence[int]] | None = None,
        changes: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Run:
        """One call of the family of this name.

        Args:
            prunings: After how many scheduler calls which of the original rows stay.
            changes: Arguments of the pipeline besides those of `TinyFamily.arguments`, which takes `settings`.
        """
        try:
            pipe = self.tiny_pipelines.pipeline(name, scheduler)
        except AttributeError as absent:
            pytest.skip(f"not in this diffusers: {absent}")
        arguments = self.tiny_pipelines.FAMILIES[name].arguments(**{"rows": ROWS, **settings}) | dict(changes or {})
        try:
            return run(pipe, arguments, prunings or {})
        except ValueError as error:
            if "set_timesteps` does not support" not in str(error):
                raise
            pytest.skip(f"this diffusers does not run the family with this scheduler: {error}")

    def unpruned(self, *arguments: Any, **settings: Any) -> Run:
        """The call without pruning, made once."""
        key = repr((arguments, sorted(settings.items())))
        if key not in self._unpruned:
            self._unpruned[key] = self.call(*arguments, **settings)
        return self._unpruned[key]


def run(
    pipe: Any,
    arguments: dict[str, Any],
    prunings: Mapping[int, Sequence[int]],
    tensor_inputs: Sequence[str] | None = None,
) -> Run:
    """One call of this pipeline; the generators are the caller's again afterwards."""
    family = family_of(pipe)
    check_exact(pipe, family)
    surgery = RowSurgery(pipe, family)
    generators = list(arguments["generator"])
    last: dict[str, torch.Tensor] = {}
    calls = {"made": 0}

    def on_step_end(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        surgery.end_step(tensors["latents"])
        if step + 1 in prunings:
            tensors = surgery.keep(prunings[step + 1], tensors)
        last["latents"] = tensors["latents"]
        calls["made"] += 1
        return tensors

    torch.manual_seed(0)  # a few pipelines encode their control picture with numbers that no generator governs
    surgery.install()
    try:
        output = pipe(
            **arguments,
            output_type="pt",
            callback_on_step_end=on_step_end,
            callback_on_step_end_tensor_inputs=list(tensor_inputs or pipe._callback_tensor_inputs),
        )
    finally:
        surgery.remove()
    assert arguments["generator"] == generators
    made = getattr(pipe, "num_timesteps", calls["made"])
    pictures = output.images if hasattr(output, "images") else output.frames
    return Run(torch.as_tensor(pictures), last["latents"], made, surgery.evaluations)


def assert_same(pruned: Run, full: Run, rows: Sequence[int]) -> None:
    """The rows of the pruned call are those rows of the full one: pictures, and latents by their own scale."""
    rows = list(rows)
    assert len(pruned.pictures) == len(pruned.latents) == len(rows)
    assert (pruned.pictures - full.pictures[rows]).abs().max() <= LIMIT
    assert (pruned.latents - full.latents[rows]).abs().max() <= LIMIT * max(1.0, float(full.latents.std()))
