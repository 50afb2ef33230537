"""A reader over a model that is in memory already, such as a pipeline's text encoder."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from .asking import AskedPicture, Reader
from .batches import asked_in_batches


class HeldReader:
    """Asks a reader in batches that fit; what a language judge needs besides `LazyReader`.

    Args:
        reader: Of a model in memory.
        name: Of the model.
        device: Where it computes, which decides how batches grow.
        dtype: What it computes in.
        fingerprint: Stands for the model's weights where answers are cached; None is another one each time.
        around: A context for every use, in which the model is where it computes.

    Attributes:
        quantization: None: whoever loaded the model knows.
        quantized_by: None.
    """

    quantization: str | None = None
    quantized_by: str | None = None

    def __init__(
        self,
        reader: Reader,
        name: str,
        *,
        device: torch.device,
        dtype: torch.dtype,
        fingerprint: str | None = None,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.reader, self.name, self.device, self.dtype = reader, name, device, dtype
        self.fingerprint = uuid.uuid4().hex if fingerprint is None else fingerprint
        self._around = around

    def answers(self, asked: Sequence[AskedPicture], batch_size: int | None) -> list[Tensor | str]:
        """For every picture the numbers (Q, K) of its questions, or why the model does not take it."""
        with self._around():
            return asked_in_batches(
                self.reader, asked, batch_size, device=self.device, kind=("held", self.fingerprint, self.dtype)
            )

    def identity(self, dtype: torch.dtype) -> str:
        """What the answers depend on besides picture and question."""
        return f"{self.fingerprint};{str(dtype).removeprefix('torch.')}"

    def why_not_finite(self) -> str:
        """What to do about an answer that is NaN or infinite."""
        if self.dtype == torch.float16:
            return "float16 overflows above 65504: load the model in bfloat16"
        return "the model's weights may be damaged"


class FirstTokenReader:
    """What is left to do where somebody else has a model that sees a picture and reads a text.

    Args:
        logits: (pictures, texts) -> (N, vocabulary): what the model would answer first. Pictures are uint8 (3, H, W)
            RGB, of any sizes; each text is a question about the picture at its place.
        token: The answer's first token, e.g. of "Yes".
        network: Holds the weights, where that is known.

    Example:
        >>> import torch
        >>> from ma_agiqa_core.scorers.judges.vqascore import VqaScorer, vqascore_info
        >>> def logits(pictures, texts):  # a model that says yes to all that is bright
        ...     return torch.stack([torch.stack([p.float().mean() / 255, torch.tensor(0.5)]) for p in pictures])
        >>> reader = HeldReader(
        ...     FirstTokenReader(logits, token=0), "mine", device=torch.device("cpu"), dtype=torch.float32
        ... )
        >>> scorer = VqaScorer(reader, vqascore_info("mine", "1"))
        >>> scorer.score(torch.ones(1, 3, 8, 8), "a lamp")
        tensor([0.6225])
    """

    def __init__(
        self,
        logits: Callable[[Sequence[Tensor], Sequence[str]], Tensor],
        token: int,
        network: nn.Module | None = None,
    ) -> None:
        self._logits, self._token = logits, token
        self._network = nn.Identity() if network is None else network

    @property
    def network(self) -> nn.Module:
        return self._network

    def prepare(self, asked: AskedPicture) -> AskedPicture:
        return asked

    def length(self, prepared: AskedPicture) -> int:
        height, width = prepared.pictures[0].shape[1:]
        return height * width

    def read(self, batch: Sequence[AskedPicture]) -> Tensor:
        """The logarithm of the answer's probability, (B, Q, 1)."""
        pictures = [asked.pictures[0] for asked in batch for _ in asked.questions]
        texts = [question.text for asked in batch for question in asked.questions]
        with torch.inference_mode():
            found = torch.log_softmax(self._logits(pictures, texts).float(), -1)[:, self._token].cpu()
        rows = iter(found)
        numbers = found.new_full((len(batch), max(len(asked.questions) for asked in batch), 1), torch.nan)
        for row, asked in enumerate(batch):
            for place in range(len(asked.questions)):
                numbers[row, place, 0] = next(rows)
        return numbers
