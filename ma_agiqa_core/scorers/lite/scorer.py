"""Scores pictures of any size with the lite network."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, safe_open
from torch import Tensor

from ...arguments.options import dtype_advice
from ...compute.batching import is_out_of_memory
from ...compute.caller_state import as_loaded
from ...compute.devices import resolve_device
from ...compute.progress import tick
from ...errors import MaAgiqaError
from ...model_files.digest import file_digest
from ...pictures.inputs import Picture, PictureError, Pictures, as_picture_list, iterate_pictures
from ...pictures.prompts import Prompts, check_score_options, resolve_prompts
from ..family import Request
from ..scorer import ScorerInfo
from .network import MIDDLE, LiteNetwork, on_scale
from .student import StudentNetwork

PIXELS_AT_ONCE = {"cpu": 500_000}  # larger batches are slower on a processor: their maps leave its caches
PIXELS_AT_ONCE_ELSEWHERE = 16_000_000
BYTES_PER_PIXEL = 240  # while it computes: sixty maps in float32

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
        raise MaAgiqaError(
            f"Expected dtype 'auto' or 'float32' for a lite scorer, got {str(request.dtype)!r}."
            f"{dtype_advice(request.dtype)}"
        )
    return LiteScorer.from_file(Path(request.model), device=resolve_device(request.device))


class LiteScorer:
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

    @as_loaded(float32_by_default=False)
    def score(
        self,
        images: Pictures,
        prompts: Prompts = None,
        batch_size: int | None = None,
        on_error: str = "raise",
    ) -> Tensor:
        """Scores pictures; see `Scorer.score`. Prompts are checked and not used.

        Raises:
            PictureError: A picture cannot be read and `on_error` is "raise".
            ValueError: A malformed array or tensor, a wrong option, or a network that is no longer float32.
        """
        check_score_options(batch_size, on_error)
        inputs = as_picture_list(images)
        resolve_prompts(prompts, len(inputs), needs_prompt=False)
        self._check_precision()
        scores = torch.full((len(inputs),), torch.nan, dtype=torch.float32, device="cpu")
        waiting = _Waiting(self._pixels_at_once, batch_size)
        for picture in iterate_pictures(inputs):
            if picture.error is None:
                for batch in waiting.add(picture):
                    self._score_batch(batch, scores)
            elif on_error == "raise":
                raise PictureError(picture.index, picture.path, picture.error)
        for batch in waiting.rest():
            self._score_batch(batch, scores)
        return scores

    @property
    def networks(self) -> tuple[torch.nn.Module, ...]:
        """What holds its weights; it computes wherever these are at each call."""
        return (self.network,)

    def work_bytes(self, sizes: Sequence[int]) -> int:
        """About how much memory a graphics card needs besides the weights, for pictures of so many pixels each."""
        return BYTES_PER_PIXEL * max(min(sum(sizes), PIXELS_AT_ONCE_ELSEWHERE), *sizes, 0)

    def _check_precision(self) -> None:
        for name, tensor in self.network.state_dict().items():
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

    def _score_batch(self, batch: list[Picture], scores: Tensor) -> None:
        """Writes the scores of pictures of one size; halves the batch where memory runs out."""
        try:
            pixels = torch.stack([_unit_range(picture.pixels, self._device) for picture in batch])
            with torch.inference_mode():
                scores[[picture.index for picture in batch]] = self.network.score(pixels).cpu()
            tick(len(batch))
            return
        except (MemoryError, RuntimeError) as error:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise
        middle = len(batch) // 2  # out here: the error, and with it the tensors of its frames, is gone
        self._score_batch(batch[:middle], scores)
        self._score_batch(batch[middle:], scores)


class _Waiting:
    """Decoded pictures by size, until there are enough of one size for a batch, or too many in all."""

    def __init__(self, pixels_at_once: int, batch_size: int | None) -> None:
        self.pixels_at_once, self.batch_size = pixels_at_once, batch_size
        self.groups: dict[tuple[int, int], list[Picture]] = defaultdict(list)
        self.pixels = 0

    def add(self, picture: Picture) -> list[list[Picture]]:
        """The batches that are due now."""
        size = picture.width * picture.height
        group = self.groups[picture.height, picture.width]
        group.append(picture)
        self.pixels += size
        most = max(self.pixels_at_once // size, 1)
        if len(group) >= (most if self.batch_size is None else min(most, self.batch_size)):
            self.pixels -= size * len(group)
            return [self.groups.pop((picture.height, picture.width))]
        return self.rest() if self.pixels > 4 * self.pixels_at_once else []

    def rest(self) -> list[list[Picture]]:
        groups, self.groups, self.pixels = list(self.groups.values()), defaultdict(list), 0
        return groups


def _unit_range(pixels: Tensor | None, device: torch.device) -> Tensor:
    assert pixels is not None  # only decoded pictures wait
    moved = pixels.to(device)
    return moved if moved.is_floating_point() else moved.float() / 255
