"""What the judges of one picture have in common: it is made ready, its prompt is read once, both go in batches."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from ...compute.batching import run_in_batches
from ...compute.caller_state import as_loaded
from ...compute.devices import precision_setting, resolve_device, resolve_dtype
from ...compute.progress import tick
from ...errors import MaAgiqaError
from ...pictures.inputs import Picture
from ...pictures.prompts import prompt_fault
from ...preprocess import to_bytes
from ..family import Request
from ..picture_scorer import Outcome, PictureScorer, in_groups, joined, precision_reason
from ..scorer import ScorerInfo

THREADS = 4  # for Pillow, at most


class PictureJudge(PictureScorer):
    """A scorer of single pictures, with prompts or without.

    A score depends neither on the other pictures nor on the batch size.

    Args:
        network: In eval mode, where it is to compute.
        info: What it says about itself.
    """

    def __init__(self, network: torch.nn.Module, info: ScorerInfo) -> None:
        self.network, self._info = network, info

    @property
    def info(self) -> ScorerInfo:
        return self._info

    @abstractmethod
    def pixels(self, picture: PIL.Image.Image) -> Tensor:
        """A picture as the network takes it: (3, S, S) float32, on the CPU.

        Raises:
            ValueError: It cannot be made so; the message is the picture's reason.
        """

    @abstractmethod
    def judge(self, pixels: Tensor, prompts: Sequence[Any]) -> Tensor:
        """Scores (B,) of pixels (B, 3, S, S), in the network's precision and on its device.

        Args:
            pixels: As `pixels` gives them, moved.
            prompts: What `read` gives for each; None without prompts.
        """

    def read(self, prompts: list[str], batch_size: int | None) -> Sequence[Any]:
        """What `judge` needs of each prompt; called once for all different ones."""
        return prompts

    def set_up(self) -> AbstractContextManager[None]:
        """The caller's default dtype too, since transformers goes by it."""
        return as_loaded()

    @torch.inference_mode()
    def _judged(self, batch: Sequence[tuple[Tensor, Any]]) -> Tensor:
        pixels = torch.stack([pixels for pixels, _ in batch]).to(self._device, self._dtype)
        scores = self.judge(pixels, [prompt for _, prompt in batch]).float().cpu()
        tick(len(batch))
        return scores

    def outcomes(
        self, pictures: Iterable[Picture], prompts: Sequence[str] | None, batch_size: int | None
    ) -> Iterator[Outcome]:
        """Scores or reasons; see `PictureScorer.outcomes`."""
        texts = list(prompts or ()) if self.info.needs_prompt else []
        faults = {text: prompt_fault(text) for text in texts}
        distinct = [text for text, fault in faults.items() if fault is None]
        with torch.inference_mode():
            known = dict(zip(distinct, self.read(distinct, batch_size), strict=True)) if distinct else {}
        for group, of_group in in_groups(pictures, texts or None):
            found = self._made_ready(group)
            given: Sequence[str | None] = of_group or [None] * len(group)
            errors = [
                picture.error or (None if text is None else faults[text]) or (made if isinstance(made, str) else None)
                for picture, text, made in zip(group, given, found, strict=True)
            ]
            items = [
                (made, None if text is None else known[text])
                for error, made, text in zip(errors, found, given, strict=True)
                if error is None and isinstance(made, Tensor)
            ]
            yield from joined(errors, self._values(items, batch_size), precision_reason)

    def _values(self, items: list[tuple[Tensor, Any]], batch_size: int | None) -> list[float]:
        if not items:
            return []
        what = ("judge", self._info.name, self._dtype)
        return run_in_batches(items, self._judged, device=self._device, what=what, batch_size=batch_size).tolist()

    def _made_ready(self, pictures: Sequence[Picture]) -> list[Tensor | str | None]:
        """Of each picture what `pixels` gives, or its reason; None of one that could not be read."""
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1), thread_name_prefix="judge") as pool:
            return list(pool.map(self._ready, pictures))

    def _ready(self, picture: Picture) -> Tensor | str | None:
        if picture.pixels is None:
            return None
        try:
            return self.pixels(PIL.Image.fromarray(to_bytes(picture.pixels).movedim(0, -1).cpu().numpy()))
        except MaAgiqaError as error:
            return str(error)

    @property
    def settings(self) -> tuple[str, ...]:
        """Its precision, for `scorer_identity`."""
        return precision_setting(self._dtype)

    @property
    def networks(self) -> tuple[torch.nn.Module, ...]:
        """What holds its weights; it computes wherever these are at each call."""
        return (self.network,)

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype


def place_and_precision(request: Request, judge: str) -> tuple[torch.device, torch.dtype]:
    """Where a judge computes and how; "auto" is float32, since in half precision seeds of one prompt change places.

    Raises:
        ValueError: There is no such device or precision, or an option of a semantic model is given.
    """
    request.refuse_semantic_options(judge)
    where = resolve_device(request.device)
    return where, torch.float32 if request.dtype == "auto" else resolve_dtype(request.dtype, where)
