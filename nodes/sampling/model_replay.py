"""A denoiser that replays its earlier answers from memory and asks the model only for new ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import comfy.model_management as memory
import torch
from torch import Tensor

_POST_CFG = "sampler_post_cfg_function"
_GUIDANCE = ("denoised", "uncond_denoised", "cond_denoised")  # what samplers read through their hook


class ModelReplay:
    """Answers a sampler that works on all rows while only some of them are left.

    Args:
        model: ComfyUI's denoiser for the rows that are left.
        rows: Which these are.
        answers: The model's answers so far, by row and in order; new ones are added.
        count: How many rows the sampler works on.
        extra_args: What the sampler was given for the model.
        keep: Whether new answers will be needed again.

    Attributes:
        is_live: Whether the recorded answers are used up, so that the model itself has been asked.
    """

    def __init__(
        self,
        model: Any,
        rows: Sequence[int],
        answers: Mapping[int, list[Any]],
        count: int,
        extra_args: Mapping[str, Any],
        *,
        keep: bool,
    ) -> None:
        self.is_live = False
        self._model, self._rows, self._count, self._keep = model, list(rows), count, keep
        self._answers = answers
        self._known = len(answers[rows[0]])
        self._call = 0
        self._hooks = len(extra_args["model_options"].get(_POST_CFG, []))

    def __getattr__(self, name: str) -> Any:
        """Other attributes that samplers use."""
        return getattr(self._model, name)

    def __call__(self, x: Tensor, sigma: Tensor, model_options: Mapping[str, Any], **kwargs: Any) -> Tensor:
        """x0 of all rows; zeros for those that were dropped."""
        hooks = model_options.get(_POST_CFG, [])[self._hooks :]  # the sampler's own
        if self._call < self._known:
            recorded = [self._answers[row][self._call] for row in self._rows]
            answer = [torch.stack(tensors).to(x.device) for tensors in zip(*recorded, strict=True)]
        else:
            answer = self._ask(x, sigma, model_options, bool(hooks), kwargs)
        self._call += 1
        x0, *guidance = map(self.to_all_rows, answer)
        for hook in hooks:
            shown = dict(zip(_GUIDANCE, guidance, strict=True))
            hook({**shown, "input": x, "sigma": sigma, "model": self._model, "model_options": model_options})
        return x0

    def to_all_rows(self, some: Tensor) -> Tensor:
        """The rows that are left -> all rows."""
        every = some.new_zeros((self._count, *some.shape[1:]))
        every[self._rows] = some
        return every

    def _ask(
        self, x: Tensor, sigma: Tensor, options: Mapping[str, Any], is_watched: bool, kwargs: Mapping[str, Any]
    ) -> list[Tensor]:
        self.is_live = True
        guidance: list[Tensor] = []

        def watch(state: Mapping[str, Any]) -> Tensor:
            guidance[:] = [state[name] for name in _GUIDANCE]
            return state["denoised"]

        if is_watched:
            options = {**options, _POST_CFG: [*options[_POST_CFG][: self._hooks], watch]}
        own_sigma = sigma[self._rows] if sigma.ndim else sigma
        answer = [self._model(x[self._rows], own_sigma, model_options=options, **kwargs), *guidance]
        if self._keep:
            device = memory.intermediate_device()
            kept = [tensor.to(device) for tensor in answer]
            for place, row in enumerate(self._rows):
                self._answers[row].append([tensor[place].clone() for tensor in kept])
        return answer
