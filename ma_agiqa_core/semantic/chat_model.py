"""Features of any image-text-to-text model of transformers: what it makes of a picture and a question.

The picture stands first in the chat, so two questions share everything up to its end. That is computed once and
continued with each question from the keys and values it left. Attention is causal: the result is that of separate
runs, for the families in `SHARES_PREFILL`, whose tests compare the two. Others are run separately.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL.Image
import torch
from torch import Tensor, nn

from ..compute.caller_state import as_loaded
from ..compute.own_lock import OwnLock
from ..errors import MaAgiqaError
from ..model_files.transformers_folder import model_type
from .chat_model_files import first_place, load_config, load_model, load_processor
from .decoder import BorrowedDecoder, Decoder, OwnDecoder
from .placement import entry_device

if TYPE_CHECKING:
    from .placement import DeviceMap

logger = logging.getLogger(__name__)

SHARES_PREFILL = {
    "gemma3": "4.57",  # before, its cache had a fixed size
    "idefics3": "4.51",
    "internvl": "4.57",
    "llava_onevision": "4.51",
    "qwen2_5_vl": "4.51",
    "qwen2_vl": "4.51",
    "qwen3_vl": "4.57",
    "smolvlm": "4.51",
}
"""By `model_type`: the first version of transformers in which a shared prefill was compared with separate runs."""

MOST_QUESTION_SETS = 16  # whose tokens after the picture are remembered


class ChatModel:
    """Answers with features: the mean last hidden state over the whole chat, picture and text.

    Args:
        model: Of transformers, in eval mode, where it is to compute; its LM head is taken off, or passed by. A
            `BorrowedDecoder` is left as it is.
        processor: Its own: tokenizer, image processor and chat template.
        device: Where its inputs go while accelerate keeps its weights elsewhere; else they follow these.
        dtype: What it computes in.
        keeps_head: The LM head stays with the model, for `head`.

    Raises:
        ValueError: The model has no LM head, or the processor cannot take a picture and a question.

    Example:
        A chat model needs its weights, so this one is not run in the tests.

        >>> chat = ChatModel(model, processor, device=torch.device("cpu"), dtype=torch.float32)  # doctest: +SKIP
        >>> chat.features([picture], {"coherence": "Is the picture coherent?"})["coherence"].shape  # doctest: +SKIP
        torch.Size([1, 2048])
    """

    def __init__(
        self, model: Any, processor: Any, *, device: torch.device, dtype: torch.dtype, keeps_head: bool = False
    ) -> None:
        is_borrowed = isinstance(model, BorrowedDecoder)
        self._decoder: Decoder = model if is_borrowed else OwnDecoder(model, keeps_head=keeps_head)
        self._model, self._processor = self._decoder.model, processor
        model = self._model
        self._device, self._dtype = device, dtype
        config = model.config
        self._image_token: Any = next(
            (i for name in ("image_token_id", "image_token_index") if (i := getattr(config, name, None)) is not None),
            None,
        )
        self.shares_prefill = self._image_token is not None and _can_share_prefill(model_type(config))
        self._counts_positions = "cache_position" in inspect.signature(model.forward).parameters
        self._endings: dict[tuple[str, ...], list[Tensor] | None] = {}
        self._computing = OwnLock()  # some families keep a picture's positions between two calls
        try:
            self._prompt(torch.full((3, 224, 224), 127, dtype=torch.uint8), "?")
        except Exception as error:  # a template or a processor may raise anything
            raise MaAgiqaError(
                f"Expected a processor and chat template that take a picture and a question, got {error!r} from "
                f"{type(processor).__name__}. Check that all files of the model's repository are of one revision."
            ) from error

    @classmethod
    def from_pretrained(
        cls,
        folder: Path,
        *,
        device: torch.device,
        dtype: torch.dtype,
        quantization: str | None = None,
        device_map: str | DeviceMap | None = None,
        keeps_head: bool = False,
    ) -> ChatModel:
        """Loads a model's folder as on the Hub: config.json, safetensors, processor. No network, no code from it.

        Args:
            folder: Of the model.
            device: For all of it, unless there is a `device_map`.
            dtype: Of its weights.
            quantization: None, or "int8" or "nf4" for the language model's linear layers.
            device_map: None, "auto" or a dict, as accelerate takes it.
            keeps_head: As for the class.

        Raises:
            ImportError: A library that quantization or the processor needs is not installed.
            ValueError: A file is missing, damaged or another model's; too little memory.
        """
        config = load_config(folder)
        processor = load_processor(folder)
        model = load_model(
            folder,
            config,
            device=device,
            dtype=dtype,
            quantization=quantization,
            device_map=device_map,
            needs_head=keeps_head,
        )
        place = device if device_map is None else first_place(model)
        return cls(model, processor, device=place, dtype=dtype, keeps_head=keeps_head)

    @property
    def network(self) -> nn.Module:
        return self._model

    @property
    def hidden_size(self) -> int:
        return self._model.config.get_text_config().hidden_size

    @property
    def tokenizer(self) -> Any:
        return self._processor.tokenizer

    @property
    def head(self) -> nn.Module | None:
        """The LM head, if it is kept."""
        return self._decoder.head

    @as_loaded()
    def answers(self, pictures: Sequence[Tensor], question: str) -> Tensor:
        """Where the model is about to answer: what its LM head would be given.

        Args:
            pictures: uint8 (3, H, W) RGB, of any sizes.
            question: About each of them.

        Returns:
            (N, D) in the model's precision, where it computes; NaN for a picture that the processor refuses.
        """
        with torch.inference_mode(), self._computing:
            prompts = self._prompts(pictures, question)
            ends: dict[int, Tensor] = {}
            for rows in _alike(prompts):
                batch = _joined([prompts[i] for i in rows])
                hidden, _ = self._last_hidden(batch.ids, **batch.per_token, **batch.visual, use_cache=False)
                ends |= dict(zip(rows, hidden[:, -1], strict=True))
        some = next(iter(ends.values()), torch.empty(self.hidden_size))
        nothing = torch.full_like(some, torch.nan)
        return torch.stack([ends.get(i, nothing) for i in range(len(pictures))])

    @as_loaded()
    def features(self, pictures: Sequence[Tensor], questions: Mapping[str, str]) -> dict[str, Tensor]:
        """The mean last hidden state over all positions, for every picture and question.

        Pictures that come out alike (as many tokens, of as many pixels) are computed together; no vector depends
        on the others.

        Args:
            pictures: uint8 (3, H, W) RGB, of any sizes.
            questions: By name.

        Returns:
            By the questions' names: (N, D) float32 on the CPU. NaN for a picture that the processor refuses, e.g.
            for its shape; the log says why.
        """
        asked = list(questions.values())
        means = torch.full((len(asked), len(pictures), self.hidden_size), torch.nan)
        with torch.inference_mode(), self._computing:
            first = self._prompts(pictures, asked[0]) if asked else {}
            shared = {i: prompt for i, prompt in first.items() if self._ends_as_known(prompt, pictures[i], asked)}
            for rows in _alike(shared):
                batch = _joined([shared[i] for i in rows])
                means[:, rows] = self._with_shared_prefill(batch, self._endings[tuple(asked)] or []).cpu()
            apart = {i: prompt for i, prompt in first.items() if i not in shared}
            for number, question in enumerate(asked):
                prompts = apart if number == 0 else self._prompts({i: pictures[i] for i in apart}, question)
                for rows in _alike(prompts):
                    means[number, rows] = self._alone(_joined([prompts[i] for i in rows])).cpu()
        return dict(zip(questions, means, strict=True))

    def _prompts(self, pictures: Sequence[Tensor] | Mapping[int, Tensor], question: str) -> dict[int, _Prompt]:
        """Each picture with one question; those that the processor refuses are left out."""
        prompts = {}
        for index, pixels in pictures.items() if isinstance(pictures, Mapping) else enumerate(pictures):
            try:
                prompts[index] = self._prompt(pixels, question)
            except (ValueError, ZeroDivisionError, RuntimeError) as error:
                size = f"{pixels.shape[-1]} × {pixels.shape[-2]}"
                logger.warning(
                    "picture %d (%s) is refused by %s: %s", index, size, type(self._processor).__name__, error
                )
        return prompts

    def _prompt(self, pixels: Tensor, question: str) -> _Prompt:
        picture = PIL.Image.fromarray(pixels.movedim(0, -1).cpu().numpy())
        content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
        inputs = dict(
            self._processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        )
        ids = inputs.pop("input_ids")
        real = inputs.pop("attention_mask", torch.ones_like(ids))[0].bool()  # a processor may pad
        per_token = {name: value for name, value in inputs.items() if value.shape == ids.shape}
        visual = {name: value for name, value in inputs.items() if name not in per_token}
        # Without a mask some models take a picture's positions for the ends of packed sequences (Qwen3-VL, 4.57).
        per_token["attention_mask"] = torch.ones_like(ids)
        return _Prompt(ids[:, real], {name: value[:, real] for name, value in per_token.items()}, visual)

    def _ends_as_known(self, prompt: _Prompt, pixels: Tensor, asked: list[str]) -> bool:
        """Whether the prompt ends, after its picture, as the questions' first prompt did."""
        if not self.shares_prefill or len(asked) < 2:
            return False
        key = tuple(asked)
        if key not in self._endings:
            if len(self._endings) >= MOST_QUESTION_SETS:
                self._endings.clear()
            self._endings[key] = self._endings_of([self._prompt(pixels, question).ids[0] for question in asked])
        if (endings := self._endings[key]) is None:
            return False
        ids, ending = prompt.ids[0], endings[0]
        return ids[-len(ending) :].equal(ending) and not (ending == self._image_token).any().item()

    def _endings_of(self, prompts: list[Tensor]) -> list[Tensor] | None:
        """What follows the part that all prompts (L,) share, or None if the picture is not wholly within it."""
        most = min(len(ids) for ids in prompts) - 1  # something must be left to ask
        alike = torch.stack([ids[:most] == prompts[0][:most] for ids in prompts]).all(0)
        shared = most if alike.all() else int(alike.int().argmin())
        picture = (prompts[0] == self._image_token).nonzero()
        if not len(picture) or int(picture.max()) >= shared:
            return None
        return [ids[shared:] for ids in prompts]

    def _with_shared_prefill(self, prompt: _Prompt, endings: Sequence[Tensor]) -> Tensor:
        """Means (Q, B, D) for a batch of pictures that were prompted with the first ending."""
        B, length = prompt.ids.shape[0], prompt.ids.shape[1] - len(endings[0])
        start = {name: value[:, :length] for name, value in prompt.per_token.items()}
        hidden, past = self._last_hidden(prompt.ids[:, :length], **start, **prompt.visual, use_cache=True)
        sum_before = hidden.sum(1, dtype=torch.float32)
        means = []
        for number, ending in enumerate(endings):
            is_last = number == len(endings) - 1
            place = {"cache_position": torch.arange(length, length + len(ending))} if self._counts_positions else {}
            hidden, _ = self._last_hidden(
                ending.expand(B, -1), past_key_values=past if is_last else copy.deepcopy(past), use_cache=True, **place
            )
            sum_after = hidden.sum(1, dtype=torch.float32)
            means.append((sum_before.to(sum_after.device) + sum_after) / (length + len(ending)))
        return torch.stack(means)

    def _alone(self, prompt: _Prompt) -> Tensor:
        """Means (B, D) for a batch of pictures with one question."""
        hidden, _ = self._last_hidden(prompt.ids, **prompt.per_token, **prompt.visual, use_cache=False)
        return hidden.mean(1, dtype=torch.float32)

    def _last_hidden(self, ids: Tensor, *, past_key_values: Any = None, use_cache: bool, **inputs: Tensor) -> Any:
        """Hidden states (B, L, D) after the last norm, and the keys and values up to here."""
        device = entry_device(self._model, self._device)
        on_device = {
            name: value.to(device, self._dtype if value.is_floating_point() else value.dtype)
            for name, value in {"input_ids": ids, **inputs}.items()
        }
        hidden, output = self._decoder(**on_device, past_key_values=past_key_values, use_cache=use_cache)
        return hidden, output.past_key_values


def _can_share_prefill(family: str) -> bool:
    import transformers
    from packaging.version import Version

    return family in SHARES_PREFILL and Version(transformers.__version__) >= Version(SHARES_PREFILL[family])


@dataclass(frozen=True, eq=False)
class _Prompt:
    """What the processor makes of pictures with a question.

    Attributes:
        ids: (B, L) token ids, without padding.
        per_token: (B, L) whatever else there is of each token.
        visual: The pictures' own inputs; those of several pictures are joined along dimension 0.
    """

    ids: Tensor
    per_token: dict[str, Tensor]
    visual: dict[str, Tensor]


def _alike(prompts: Mapping[int, _Prompt]) -> list[list[int]]:
    """Which prompts have the same text and equally large pictures, by index."""
    groups = defaultdict(list)
    for index, prompt in prompts.items():
        shapes = tuple(sorted((name, value.shape) for name, value in prompt.visual.items()))
        groups[tuple(prompt.ids[0].tolist()), shapes].append(index)
    return list(groups.values())


def _joined(prompts: Sequence[_Prompt]) -> _Prompt:
    first = prompts[0]
    return _Prompt(
        torch.cat([prompt.ids for prompt in prompts]),
        {name: torch.cat([prompt.per_token[name] for prompt in prompts]) for name in first.per_token},
        {name: torch.cat([prompt.visual[name] for prompt in prompts]) for name in first.visual},
    )
