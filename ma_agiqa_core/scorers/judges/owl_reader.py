"""mPLUG-Owl2 as DeQA-Score and Q-Align trained it: the logits of a few words as its answer.

The prompt is "USER: {question}\\n", the picture, "\\nASSISTANT: {stem}", without a system prompt; the two texts are
tokenized apart, and the beginning-of-sequence token stands only at the start. What costs nothing to leave out is left
out, exactly: the text before the picture is computed once per run, a picture is encoded once for all questions, and of
the last layer and the LM head only what the words' logits need.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import MaAgiqaError
from ...model_files.transformers_folder import MPLUG_OWL2, check_shards, image_text_kind, read_json, read_rows
from ...semantic.published_mplug_owl2 import PublishedMplugOwl2, read_all_but_weights
from .asking import AskedPicture, Question
from .levels import LEVELS, level_ids

BEFORE_PICTURE, AFTER_PICTURE = "USER: {text}\n", "\nASSISTANT: {stem}"
HEAD = "lm_head.weight"


class OwlReader:
    """Gives the logits of the five levels.

    Args:
        owl: The model.
        rows: (5, D) of its LM head, in float32.
    """

    def __init__(self, owl: PublishedMplugOwl2, rows: Tensor) -> None:
        self._owl, self._rows = owl, rows

    @classmethod
    def from_folder(cls, folder: Path, **placement: Any) -> OwlReader:
        """Loads a folder as on the Hub: config.json, shards, tokenizer, preprocessor_config.json."""
        _, tokenize, _ = read_all_but_weights(folder)
        owl = PublishedMplugOwl2.from_folder(folder, **placement)
        rows = read_rows(folder, HEAD, level_ids(LEVELS, tokenize, repr(str(folder))))
        # rounded as the network is: that is what it would be multiplied with
        return cls(owl, rows.to(placement["dtype"]).float())

    @property
    def network(self) -> nn.Module:
        return self._owl.network

    def prepare(self, asked: AskedPicture) -> AskedPicture:
        """As it is: pictures are resized several at a time."""
        return asked

    def length(self, prepared: AskedPicture) -> int:
        """All pictures have as many tokens."""
        return len(prepared.questions)

    def read(self, batch: Sequence[AskedPicture]) -> Tensor:
        """Logits (B, Q, 5)."""
        questions = list(dict.fromkeys(question for asked in batch for question in asked.questions))
        prompts = {str(place): self.prompt_ids(question) for place, question in enumerate(questions)}
        pixels = self._owl.pixel_values([asked.pictures[0] for asked in batch])
        hidden = self._owl.network.answers(pixels, prompts)  # (B, all questions, D)
        logits = hidden.float() @ self._rows.to(hidden.device).T
        most = max(len(asked.questions) for asked in batch)
        chosen = logits.new_full((len(batch), most, len(self._rows)), torch.nan)
        for row, asked in enumerate(batch):
            for place, question in enumerate(asked.questions):
                chosen[row, place] = logits[row, questions.index(question)]
        return chosen.cpu()

    def prompt_ids(self, question: Question) -> list[int]:
        """Token ids of a whole prompt; the picture stands at `MplugOwl2.image_token_id`."""
        before, after = BEFORE_PICTURE.format(text=question.text), AFTER_PICTURE.format(stem=question.stem)
        return self._owl.ids_around_picture(before, after)


def check_owl(folder: Path) -> None:
    """Finds missing, truncated and foreign files before 16 GB are read.

    Raises:
        ValueError: A file is missing, damaged or another model's.
    """
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise MaAgiqaError(
            f"Expected a whole model in {str(folder)!r}, got a LoRA adapter. Merge it into its base model with peft's "
            "merge_and_unload and save that, or use the whole model, such as 'zhiyuanyou/DeQA-Score-Mix3'."
        )
    config = read_json(folder / "config.json")
    if image_text_kind(config) != MPLUG_OWL2:
        raise MaAgiqaError(
            f"Expected an mPLUG-Owl2 (model_type {MPLUG_OWL2!r}) in {str(folder)!r}, got {config.get('model_type')!r}. "
            "Use 'zhiyuanyou/DeQA-Score-Mix3' or 'q-future/one-align'."
        )
    check_shards(folder)
    _, tokenize, _ = read_all_but_weights(folder)
    level_ids(LEVELS, tokenize, repr(str(folder)))
