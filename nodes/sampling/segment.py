"""One run of a sampler's function, from its first step to where the segment ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .brownian_noise import BrownianNoise
from .model_replay import ModelReplay


class _SegmentEnd(BaseException):
    """Ends a sampler's function from inside. Not an error: code that catches errors must not catch it."""


class Segment:
    """Stands in for a sampler's function on some rows, up to a step.

    Args:
        sampler: ComfyUI's; its function is called.
        rows: Which candidates are left.
        until: After how many steps to stop; None: run to the end.
        answers: The model's answers so far, by row.
        shape: Of the latents of all candidates.
        brownian: The noise of the run.
        on_step: Called with the candidates that have just taken a step, and their x0.

    Attributes:
        x0: After the last step.
    """

    def __init__(
        self,
        sampler: Any,
        rows: list[int],
        until: int | None,
        answers: dict[int, list[Any]],
        shape: Sequence[int],
        brownian: BrownianNoise,
        on_step: Callable[[Sequence[int], Tensor], object],
    ) -> None:
        self._sampler, self._function, self._brownian = sampler, getattr(sampler, "sampler_function", None), brownian
        self._rows, self._until, self._answers, self._shape = rows, until, answers, shape
        self._on_step = on_step
        self.x0: Any = None

    def sample(
        self, model: Any, x: Tensor, sigmas: Tensor, *, extra_args: Any, callback: Any, disable: bool, **options: Any
    ) -> Tensor:
        """Takes the place of `sampler_function`; same arguments, with `x` for these rows only."""
        if self._sampler.inpaint_options.get("random"):  # as ComfyUI draws it for all rows
            generator = torch.manual_seed(extra_args.get("seed", 41) + 1)
            noise = torch.randn(self._shape, generator=generator, device="cpu")
            model.noise = noise[self._rows].to(model.noise)
        replay = ModelReplay(model, self._rows, self._answers, self._shape[0], extra_args, keep=self._until is not None)

        def on_step(state: Mapping[str, Any]) -> None:
            self.x0 = state["denoised"][self._rows]
            if replay.is_live:
                callback({**state, "x": state["x"][self._rows], "denoised": self.x0})
            if self._until is not None and state["i"] + 1 >= self._until:
                raise _SegmentEnd

        every = replay.to_all_rows(x)
        options = {**self._brownian.options(every, sigmas, extra_args["seed"]), **options}
        try:
            every = self._function(
                replay, every, sigmas, extra_args=extra_args, callback=on_step, disable=disable, **options
            )
        except _SegmentEnd:
            return self.x0
        return every[self._rows]

    def show(self, step: int, x0: Tensor, x: Tensor, total: int) -> None:
        """ComfyUI's callback of a step."""
        self.x0 = x0
        self._on_step(self._rows, x0)
