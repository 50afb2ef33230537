"""Any image-text-to-text model of transformers as a judge: what it is about to answer about a picture.

For models whose prompts are not built here (see `qwen_reader`): the processor makes every prompt, and pictures that
come out alike, with the same question, are computed together. Nothing is shared between questions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import MaAgiqaError
from ...semantic.chat_model import ChatModel
from .asking import AskedPicture
from .readouts import Readout


class ChatReader:
    """Reads with any chat model.

    Args:
        chat: The model, with its LM head.
        readout: What is read where it is about to answer.
    """

    def __init__(self, chat: ChatModel, readout: Readout) -> None:
        self._chat, self._readout = chat, readout

    @classmethod
    def from_folder(cls, folder: Path, readout: Callable[[Any], Readout], **placement: Any) -> ChatReader:
        """Loads a model's folder as on the Hub; see `ChatModel.from_pretrained`.

        Args:
            folder: Of the model.
            readout: Makes what is read, from the tokenizer.
            **placement: device, dtype, quantization, device_map.
        """
        chat = ChatModel.from_pretrained(folder, **placement, keeps_head=True)
        return cls(chat, readout(chat.tokenizer))

    @property
    def network(self) -> nn.Module:
        return self._chat.network

    def prepare(self, asked: AskedPicture) -> AskedPicture:
        """As it is; see `Reader.prepare`."""
        if len(asked.pictures) > 1:
            raise MaAgiqaError(
                f"Expected one picture a question, got {len(asked.pictures)}. Use a Qwen vision-language model."
            )
        return asked

    def length(self, prepared: AskedPicture) -> int:
        """Pictures of one size are next to each other then."""
        height, width = prepared.pictures[0].shape[1:]
        return height * width

    def read(self, batch: Sequence[AskedPicture]) -> Tensor:
        """See `Reader.read`; NaN also for a picture that the processor refuses, of which the log says why."""
        by_text: dict[str, list[tuple[int, int]]] = {}
        for row, asked in enumerate(batch):
            for place, question in enumerate(asked.questions):
                by_text.setdefault(question.text, []).append((row, place))
        found: Tensor | None = None
        most = max(len(asked.questions) for asked in batch)
        head = self._chat.head
        assert head is not None
        for text, places in by_text.items():
            hidden = self._chat.answers([batch[row].pictures[0] for row, _ in places], text)
            with torch.inference_mode():
                numbers = self._readout(hidden, head).cpu()
            if found is None:
                found = numbers.new_full((len(batch), most, numbers.shape[1]), torch.nan)
            for (row, place), number in zip(places, numbers, strict=True):
                found[row, place] = number
        assert found is not None
        return found
