"""A judge that is in memory already: a CLIP whose text model also sees pictures and answers.

ComfyUI's own generation of text runs for one token; the scores of all tokens that it chooses from are what a VQAScore
is made of. So pictures, templates and positions are those of ComfyUI's Generate Text, and ComfyUI moves the weights.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.utils
import torch
from comfy import model_management
from torch import Tensor

from ...ma_agiqa_core.scorers.judges.held_reader import FirstTokenReader, HeldReader
from ...ma_agiqa_core.scorers.judges.vqascore import ANSWER, QUESTION, VqaScorer, vqascore_info
from .managed_scorer import ManagedScorer

SIGHTED = "Qwen3-VL, Qwen3.5, Gemma 3 or Gemma 4"
_CHOOSES = "sample_token"  # the method of ComfyUI's text models that is given the scores of all tokens


def clip_judge(clip: Any, question: str = "") -> ManagedScorer:
    """VQAScore of the prompt by ComfyUI's CLIP.

    Args:
        clip: ComfyUI's CLIP.
        question: With "{prompt}" in it; empty is VQAScore's.

    Raises:
        ValueError: Its text model does not see pictures or does not answer, or a question without "{prompt}".
    """
    text_model = _answering_model(clip)
    name = type(clip.cond_stage_model).__name__.rstrip("_")
    _tokens(clip, "?", torch.zeros(1, 64, 64, 3), name)
    reader = FirstTokenReader(_first_answers(clip, text_model, name), _token_of(clip, ANSWER))
    mark = uuid.uuid4().hex
    held = HeldReader(
        reader,
        name,
        device=clip.patcher.load_device,
        dtype=clip.patcher.model_dtype() or torch.float32,
        fingerprint=mark,
    )
    template = question.strip() or QUESTION
    return ManagedScorer(
        VqaScorer(held, vqascore_info(name, mark), template=template), identity=f"{name}@{mark}:{template}"
    )


def _answering_model(clip: Any) -> Any:
    found = [module for module in clip.cond_stage_model.modules() if hasattr(module, _CHOOSES)]
    if not hasattr(clip, "generate") or not found:
        raise _blind(type(clip.cond_stage_model).__name__.rstrip("_"))
    return found[0]


def _first_answers(clip: Any, text_model: Any, name: str) -> Callable[[Sequence[Tensor], Sequence[str]], Tensor]:
    def logits(pictures: Sequence[Tensor], texts: Sequence[str]) -> Tensor:
        answers = []
        for picture, text in zip(pictures, texts, strict=True):
            model_management.throw_exception_if_processing_interrupted()
            tokens = _tokens(clip, text, picture.movedim(0, -1)[None].float() / 255, name)
            with _heard(text_model) as heard, _without_progress():
                clip.generate(tokens, do_sample=False, max_length=1)
            answers.append(heard[0][0].float().cpu())
        return torch.stack(answers)

    return logits


def _tokens(clip: Any, text: str, image: Tensor, name: str) -> Any:
    """Raises a ValueError where the picture is not among them."""
    try:
        tokens = clip.tokenize(text, image=image, skip_template=False, min_length=1, thinking=False)
    except (AttributeError, TypeError):  # a tokenizer that takes no pictures
        raise _blind(name) from None
    entries = [entry[0] for rows in tokens.values() for row in rows for entry in row]
    if not any(isinstance(entry, dict) and entry.get("type") == "image" for entry in entries):
        raise _blind(name)
    return tokens


def _token_of(clip: Any, word: str) -> int:
    own = getattr(clip.tokenizer, clip.tokenizer.clip)
    ids = [int(token) for token in own.tokenizer(word)["input_ids"]]
    special = {own.start_token, own.end_token} if hasattr(own, "start_token") else set()
    return next(token for token in ids if token not in special)


def _blind(name: str) -> ValueError:
    return ValueError(
        f"Expected a CLIP whose text model sees pictures and answers, got {name}, which does not in this ComfyUI. Load "
        f"one with {SIGHTED}, or use Load Image Scorer."
    )


@contextmanager
def _heard(text_model: Any) -> Iterator[list[Tensor]]:
    """What a text model chooses from, step by step."""
    heard: list[Tensor] = []
    choose = getattr(text_model, _CHOOSES)

    def listen(logits: Tensor, *args: Any, **kwargs: Any) -> Any:
        heard.append(logits)
        return choose(logits, *args, **kwargs)

    setattr(text_model, _CHOOSES, listen)
    try:
        yield heard
    finally:
        delattr(text_model, _CHOOSES)


@contextmanager
def _without_progress() -> Iterator[None]:
    """ComfyUI counts tokens on the node that counts pictures."""
    hook = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(None)
    try:
        yield
    finally:
        comfy.utils.set_progress_bar_global_hook(hook)
