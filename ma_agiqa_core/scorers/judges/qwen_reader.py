"""Qwen's vision-language models of transformers as judges: what they are about to answer about pictures.

What costs nothing to leave out is left out, exactly:
- The text before the picture is computed once per run and continued from its keys and values, where it is more than
  a few tokens in a hundred.
- A picture that several questions are about is computed once, with as much of the text after it as they share.
- Pictures of unlike sizes go through the network as one batch, padded on the left; endings are padded on the right.
- The LM head and the last layer's MLP see one position of each question, and of the head only the rows that are read
  are computed.

Some of these models have layers with a recurrent state (Qwen3.5's gated delta rule) in place of attention. Padding must
not stand between tokens there, so for them the text before the picture, which is four tokens, is not shared.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from torch import Tensor, nn

from ...compute.own_lock import OwnLock
from ...errors import MaAgiqaError
from ...semantic.chat_model_files import first_place, load_config, load_model, load_processor
from ...semantic.decoder import Decoder, OwnDecoder, inputs_at
from .asking import AskedPicture
from .mrope import Part, positions
from .qwen_prompt import PromptTokens, QwenPrompts, as_image, padded
from .readouts import Readout

QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")
"""By `model_type`: those whose prompts and positions are built here."""

WORTH_SHARING = 32
"""The text before a picture is shared if it is at least one token in so many."""


class QwenReader:
    """Reads with a model of one of the types in `QWEN`.

    Args:
        decoder: The model, with its LM head, where it is to compute.
        processor: Its own.
        readout: What is read where the model is about to answer.
        device: Where its inputs go while accelerate keeps its weights elsewhere; else they follow these.
        dtype: What it computes in.
        resize: What is done to a picture before the processor resizes it.
        position_rule: `mrope.positions`, or another one that the model was trained with.
        until: The last token that is read: what stands after it cannot change what is read there. None is the end.
    """

    def __init__(
        self,
        decoder: Decoder,
        processor: Any,
        readout: Readout,
        *,
        device: torch.device,
        dtype: torch.dtype,
        resize: Callable[[PIL.Image.Image], PIL.Image.Image] | None = None,
        position_rule: Callable[[Sequence[Part]], Tensor] = positions,
        until: int | None = None,
    ) -> None:
        self._decoder, self._model, self._readout = decoder, decoder.model, readout
        self.prompts = QwenPrompts(processor)
        self._device, self._dtype = device, dtype
        self._resize, self._position_rule, self._until = resize, position_rule, until
        parameters = inspect.signature(self._model.forward).parameters
        self._cache_argument = "cache" if "cache" in parameters else "past_key_values"
        text = self._model.config.get_text_config()
        self._has_recurrent_layers = "linear_attention" in (getattr(text, "layer_types", None) or ())
        self._before: tuple[Any, Any] | None = None  # the latest text before pictures, and its cache
        self._computing = OwnLock()

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        readout: Callable[[Any], Readout],
        *,
        device: torch.device,
        dtype: torch.dtype,
        quantization: str | None = None,
        device_map: Any = None,
        resizes: Callable[[Any], Callable[[PIL.Image.Image], PIL.Image.Image]] | None = None,
    ) -> QwenReader:
        """Loads a model's folder as on the Hub: config.json, weights, processor. No network, no code from it.

        Args:
            folder: Of the model.
            readout: Makes what is read, from the tokenizer.
            device: For all of it, unless there is a `device_map`.
            dtype: Of its weights.
            quantization: None, or "int8" or "nf4" for the language model's linear layers.
            device_map: None, "auto" or a dict, as accelerate takes it.
            resizes: Makes the class's `resize`, from the processor.

        Raises:
            ImportError: A library that quantization or the processor needs is not installed.
            ValueError: A file is missing, damaged or another model's; too little memory.
        """
        config, processor = load_config(folder), load_processor(folder)
        chosen = readout(processor.tokenizer)
        model = load_model(
            folder,
            config,
            device=device,
            dtype=dtype,
            quantization=quantization,
            device_map=device_map,
            needs_head=True,
        )
        place = device if device_map is None else first_place(model)
        resize = None if resizes is None else resizes(processor)
        decoder = OwnDecoder(model, keeps_head=True, ends_only=True)
        return cls(decoder, processor, chosen, device=place, dtype=dtype, resize=resize)

    @property
    def network(self) -> nn.Module:
        return self._model

    def prepare(self, asked: AskedPicture) -> _Prepared:
        """Tokens of the questions, and the pictures as Pillow has them; see `Reader.prepare`."""
        images = [as_image(pixels) for pixels in asked.pictures]
        if self._resize is not None:
            images = [self._resize(image) for image in images]
        prompts = [self.prompts.tokens(question, len(images)) for question in asked.questions]
        if len({prompt.texts[:-1] for prompt in prompts}) > 1:
            raise MaAgiqaError("Expected a chat template with the question after the picture, got one before it.")
        tokens = sum(self.prompts.token_count(image.height, image.width) for image in images)
        endings = [self._cut(prompt) for prompt in prompts]
        return _Prepared(images, prompts[0].texts[:-1], endings, tokens + max(map(len, endings)))

    def length(self, prepared: _Prepared) -> int:
        return prepared.length

    def read(self, batch: Sequence[_Prepared]) -> Tensor:
        """See `Reader.read`."""
        patched = self.prompts.patches([image for prepared in batch for image in prepared.images])
        grids = iter((patched.grid[:, 1:] // self.prompts.merge).tolist())
        asked = [_Sequence(prepared, [next(grids) for _ in prepared.images], self) for prepared in batch]
        visual = {"pixel_values": patched.pixel_values, "image_grid_thw": patched.grid}
        with torch.inference_mode(), self._computing:
            if all(len(prepared.endings) == 1 for prepared in batch):
                hidden = self._whole(asked, visual)
            else:
                hidden = self._shared(asked, visual)
            assert self._decoder.head is not None
            numbers = self._readout(hidden, self._decoder.head).cpu()
        most = max(len(prepared.endings) for prepared in batch)
        found = numbers.new_full((len(batch), most, numbers.shape[1]), torch.nan)
        rows = iter(numbers)
        for place, prepared in enumerate(batch):
            for question in range(len(prepared.endings)):
                found[place, question] = next(rows)
        return found

    def _cut(self, prompt: PromptTokens) -> list[int]:
        ending = list(prompt.texts[-1])
        return ending if self._until is None else ending[: len(ending) - ending[::-1].index(self._until)]

    def _whole(self, asked: Sequence[_Sequence], visual: dict[str, Tensor]) -> Tensor:
        """Last hidden states (N, D) of pictures with one question each."""
        rows = [one.start + one.endings[0] for one in asked]
        hidden, _ = self._first_stage(rows, [one.positions(0) for one in asked], visual, keeps=False)
        return hidden[:, -1]

    def _shared(self, asked: Sequence[_Sequence], visual: dict[str, Tensor]) -> Tensor:
        """Last hidden states (all questions, D) of pictures of which some have several questions."""
        shared = [one.shared for one in asked]
        rows = [one.start + one.endings[0][: one.shared] for one in asked]
        _, state = self._first_stage(
            rows, [one.positions(0)[:, : len(row)] for one, row in zip(asked, rows, strict=True)], visual, keeps=True
        )
        endings = [ending[count:] for one, count in zip(asked, shared, strict=True) for ending in one.endings]
        places = [
            one.positions(number)[:, len(row) :]
            for one, row in zip(asked, rows, strict=True)
            for number in range(len(one.endings))
        ]
        owner = torch.tensor([number for number, one in enumerate(asked) for _ in one.endings])
        state.cache.reorder_cache(owner.to(inputs_at(self._model, self._device)))
        ids, mask = padded(endings, left=False)
        seen = torch.cat([state.mask[owner], torch.ones_like(mask)], 1)  # what stands behind an ending changes nothing
        ends = mask.sum(1) - 1
        hidden = self._forward(ids, seen, _padded_positions(places, left=False), state.cache, {}, ends)
        return hidden[torch.arange(len(endings)), ends.to(hidden.device)]

    def _first_stage(
        self, rows: list[list[int]], places: list[Tensor], visual: dict[str, Tensor], *, keeps: bool
    ) -> tuple[Tensor, _State]:
        """Hidden states (B, L, D), padded on the left, of which the last is right unless `keeps`, and the state there.

        Args:
            rows: Token ids of prompts up to some place.
            places: Their positions.
            visual: The pictures' inputs.
            keeps: More is to come: the state is read, and no hidden state.
        """
        before = self._common_start(rows)
        cache = self._after(before, len(rows)) if before else self._new_cache() if keeps else None
        ids, mask = padded([row[len(before) :] for row in rows], left=True)
        mask = torch.cat([torch.ones(len(rows), len(before), dtype=torch.long), mask], 1)
        ends = None if keeps else torch.full((len(rows),), ids.shape[1] - 1)
        left = _padded_positions([place[:, len(before) :] for place in places], left=True)
        hidden = self._forward(ids, mask, left, cache, visual, ends)
        return hidden, _State(cache, mask)

    def _common_start(self, rows: list[list[int]]) -> tuple[int, ...]:
        """The text before the first picture, which is the same in every prompt; () where it is not shared.

        Behind it attention needs a mask, and with one it takes about twice as long: not for a few tokens in a hundred.
        """
        if self._has_recurrent_layers:
            return ()
        start = tuple(rows[0][: rows[0].index(self.prompts.image_token_id)])
        if len(start) * WORTH_SHARING < min(map(len, rows)):
            return ()
        return start if all(tuple(row[: len(start)]) == start for row in rows) else ()

    def _after(self, before: tuple[int, ...], count: int) -> Any:
        """Keys and values after the text before the picture, for so many sequences."""
        weights = next(self._model.parameters())
        key = before, inputs_at(self._model, self._device), weights.dtype, weights.data_ptr()
        if self._before is None or self._before[0] != key:
            cache = self._new_cache()
            ids = torch.tensor([before])
            self._forward(ids, torch.ones_like(ids), self._position_rule([len(before)])[:, None], cache, {})
            self._before = key, cache
        cache = copy.deepcopy(self._before[1])
        cache.batch_repeat_interleave(count)
        return cache

    def _new_cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self._model.config.get_text_config())

    def _forward(
        self,
        ids: Tensor,
        mask: Tensor,
        places: Tensor,
        cache: Any,
        visual: dict[str, Tensor],
        ends: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states (B, L, D), right at `ends` (B,), of ids (B, L) at places (3, B, L).

        `mask` (B, P + L) has 0 for padding.
        """
        device = inputs_at(self._model, self._device)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": places, **visual}
        on_device = {
            name: value.to(device, self._dtype if value.is_floating_point() else value.dtype)
            for name, value in inputs.items()
        }
        on_device[self._cache_argument] = cache
        with self._decoder.at_ends(ends):
            hidden, _ = self._decoder(**on_device, use_cache=cache is not None)
        return hidden


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A picture, or several, with the questions about it.

    Attributes:
        images: As the processor takes them.
        texts: Token ids before each picture.
        endings: Token ids after the last picture, of every question.
        length: About how many tokens there are.
    """

    images: list[PIL.Image.Image]
    texts: tuple[tuple[int, ...], ...]
    endings: list[list[int]]
    length: int


class _Sequence:
    """The tokens of a prepared picture, whose size is known now.

    Attributes:
        start: Token ids up to the last picture's end.
        endings: Of every question.
        shared: How many tokens all endings begin with, leaving something of each.
    """

    def __init__(self, prepared: _Prepared, grids: Sequence[Sequence[int]], reader: QwenReader) -> None:
        self._rule = reader._position_rule
        self._parts: list[Part] = []
        self.start: list[int] = []
        for text, (height, width) in zip(prepared.texts, grids, strict=True):
            self._parts += [len(text), (height, width)]
            self.start += [*text, *[reader.prompts.image_token_id] * (height * width)]
        self.endings = prepared.endings
        self.shared = 0
        most = min(map(len, self.endings)) - 1
        while self.shared < most and len({ending[self.shared] for ending in self.endings}) == 1:
            self.shared += 1

    def positions(self, question: int) -> Tensor:
        """(3, L) of the whole prompt with one of the questions."""
        return self._rule([*self._parts, len(self.endings[question])])


@dataclass(frozen=True, eq=False)
class _State:
    """Where a batch stands: what has been computed, and a mask (B, L) of what of it is no padding."""

    cache: Any
    mask: Tensor


def _padded_positions(places: Sequence[Tensor], *, left: bool) -> Tensor:
    """Positions (3, L) each as (3, B, longest)."""
    length = max(place.shape[1] for place in places)
    rows = []
    for place in places:
        gap = length - place.shape[1]
        rows.append(nn.functional.pad(place, (gap, 0) if left else (0, gap)))
    return torch.stack(rows, 1)
