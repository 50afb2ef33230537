"""Scores pictures of any size with the lite network."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, safe_open
from torch import Tensor

from ...compute.batching import is_out_of_memory
from ...compute.devices import resolve_device
from ...compute.progress import tick
from ...errors import MaAgiqaError
from ...model_files.digest import file_digest
from ...pictures.inputs import Picture
from ..family import Request
from ..picture_scorer import Outcome, PictureScorer, joined
from ..scorer import ScorerInfo
from .network import MIDDLE, LiteNetwork, on_scale
from .student import StudentNetwork

PIXELS_AT_ONCE = {"cpu": 500_000}  # larger batches are slower on a processor: their maps leave its caches
PIXELS_AT_ONCE_ELSEWHERE = 16_000_000
BYTES_PER_PIXEL = 240  # while it computes: sixty maps in float32

_Batch: TypeAlias = dict[int, Picture]  # decoded, of one size, by their places

__all__ = ["LiteScorer", "on_scale"]

_DESCRIPTION = (
    "Technical quality (sharpness, noise, artefacts) by a small scorer carried in the package. It is NOT MA-AGIQA and "
    "sees neither anatomy nor meaning nor how well a picture fits its prompt."
)


def load(request: Request) -> LiteScorer:
    """Loads a `lite` checkpoint or a student's.

    Raises:
        ValueError: The file is damaged, or an option does not apply.
    """
    request.refuse_semantic_options("a lite scorer")
    if request.dtype not in ("auto", "float32", torch.float32):
        raise MaAgiqaError(f"Expected dtype 'auto' or 'float32' for a lite scorer, got {str(request.dtype)!r}.")
    return LiteScorer.from_file(Path(request.model), device=resolve_device(request.device))


class LiteScorer(PictureScorer):
    """The `Scorer` of `lite` files: technical quality, 0 to 10, higher is better; or what a student follows.

    Pictures are seen at their native resolution. Scores are deterministic and depend neither on the other pictures nor
    on the batch size, which is an upper limit here: on a processor small batches are faster.

    Args:
        network: In eval mode, on the device to compute on.
        info: What the scorer says about itself.
    """

    def __init__(self, network: LiteNetwork | StudentNetwork, info: ScorerInfo) -> None:
        self.network = network
        self._info = info

    @property
    def info(self) -> ScorerInfo:
        return self._info

    @classmethod
    def from_file(cls, path: Path, device: torch.device) -> LiteScorer:
        """Loads a lite checkpoint.

        Raises:
            ValueError: The file is damaged or holds something else.
        """
        try:
            with safe_open(path, framework="pt") as checkpoint:
                metadata = checkpoint.metadata() or {}
            kind = StudentNetwork if metadata.get("ma_agiqa.network") == "student" else LiteNetwork
            network = kind.from_state_dict(load_file(path)).to(device)
            target = metadata.get("ma_agiqa.target", "quality") or None
            info = ScorerInfo(
                name=metadata.get("ma_agiqa.name", "lite"),
                revision=file_digest(path)[:12],
                low=float(metadata.get("ma_agiqa.low", 0.0)),
                high=float(metadata.get("ma_agiqa.high", 2 * MIDDLE)),
                trained_on=metadata.get("ma_agiqa.trained_on", ""),
                quantiles=tuple(json.loads(metadata.get("ma_agiqa.quantiles", "[]"))),
                description=metadata.get("ma_agiqa.description", _DESCRIPTION),
                targets=() if target is None else (target,),
                target=target,
            )
        except (SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
            raise MaAgiqaError(f"Expected a lite checkpoint, got {str(path)!r}: {error}") from error
        return cls(network, info)

    def outcomes(
        self, pictures: Iterable[Picture], prompts: Sequence[str] | None, batch_size: int | None
    ) -> Iterator[Outcome]:
        """Scores, or reasons why there are none; see `PictureScorer.outcomes`. Prompts are not used.

        Raises:
            ValueError: The network is no longer float32.
        """
        self._check_precision()
        waiting = _Waiting(self._pixels_at_once, batch_size)
        known: dict[int, Outcome] = {}  # by place; those of one size come out together
        told = 0
        for place, picture in enumerate(pictures):
            if picture.error is not None:
                known[place] = picture.error
            else:
                for batch in waiting.add(place, picture):
                    known |= self._score_batch(batch)
            while told in known:
                yield known.pop(told)
                told += 1
        for batch in waiting.rest():
            known |= self._score_batch(batch)
        yield from (known[place] for place in sorted(known))

    @property
    def networks(self) -> tuple[torch.nn.Module, ...]:
        """What holds its weights; it computes wherever these are at each call."""
        return (self.network,)

    def work_bytes(self, sizes: Sequence[int]) -> int:
        """About how much memory a graphics card needs besides the weights, for pictures of so many pixels each."""
        return BYTES_PER_PIXEL * max(min(sum(sizes), PIXELS_AT_ONCE_ELSEWHERE), *sizes, 0)

    def _check_precision(self) -> None:
        for name, tensor in chain(self.network.named_parameters(), self.network.named_buffers()):
            if tensor.is_floating_point() and tensor.dtype != torch.float32:
                raise MaAgiqaError(
                    f"Expected {self._info.name!r} in float32, the only precision that it computes in, got "
                    f"{tensor.dtype} for {name}. Load it again, and leave .half() and the like out."
                )

    @property
    def _device(self) -> torch.device:
        return self.network.weight.device

    @property
    def _pixels_at_once(self) -> int:
        return PIXELS_AT_ONCE.get(self._device.type, PIXELS_AT_ONCE_ELSEWHERE)

    def _score_batch(self, batch: _Batch) -> dict[int, Outcome]:
        """By their places what comes out for pictures of one size; halves the batch where memory runs out."""
        try:
            decoded = [_unit_range(picture.pixels, self._device) for picture in batch.values()]
            pixels = torch.stack(decoded) if len(decoded) > 1 else decoded[0][None]
            with torch.inference_mode():
                scores = self.network.score(pixels).cpu().tolist()
            tick(len(batch))
            return dict(zip(batch, joined([None] * len(batch), scores, self._why), strict=True))
        except (MemoryError, RuntimeError) as error:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise
        middle = len(batch) // 2  # out here: the error, and with it the tensors of its frames, is gone
        pairs = list(batch.items())
        return self._score_batch(dict(pairs[:middle])) | self._score_batch(dict(pairs[middle:]))

    def _why(self, value: float) -> str:
        return f"{self._info.name} returned {value}"


class _Waiting:
    """Decoded pictures by size, until there are enough of one size for a batch, or too many in all."""

    def __init__(self, pixels_at_once: int, batch_size: int | None) -> None:
        self.pixels_at_once, self.batch_size = pixels_at_once, batch_size
        self.groups: dict[tuple[int, int], _Batch] = defaultdict(dict)
        self.pixels = 0

    def add(self, place: int, picture: Picture) -> list[_Batch]:
        """The batches that are due now."""
        size = picture.width * picture.height
        group = self.groups[picture.height, picture.width]
        group[place] = picture
        self.pixels += size
        most = max(self.pixels_at_once // size, 1)
        if len(group) >= (most if self.batch_size is None else min(most, self.batch_size)):
            self.pixels -= size * len(group)
            return [self.groups.pop((picture.height, picture.width))]
        return self.rest() if self.pixels > 4 * self.pixels_at_once else []

    def rest(self) -> list[_Batch]:
        groups, self.groups, self.pixels = list(self.groups.values()), defaultdict(dict), 0
        return groups


def _unit_range(pixels: Tensor | None, device: torch.device) -> Tensor:
    assert pixels is not None  # only decoded pictures wait
    moved = pixels.to(device)
    if not moved.is_floating_point():
        planes = torch.empty(moved.shape, dtype=torch.float32, device=device)  # they come pixel by pixel
        return planes.copy_(moved).div_(255)
    if moved.is_contiguous():
        return moved
    planes = torch.empty_like(moved, memory_format=torch.contiguous_format)
    for plane, values in zip(planes, moved, strict=True):  # in two thirds of the time of all at once
        plane.copy_(values)
    return planes
