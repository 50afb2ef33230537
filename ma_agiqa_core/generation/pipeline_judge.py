"""A judge that is in memory already: the vision-language model that some pipelines carry as their text encoder.

Qwen-Image (1.x and 2.1), FLUX.2 and Krea 2 read prompts with a model that can also see. Asked whether a picture shows
its prompt, it gives a VQAScore (see `scorers.judges.vqascore`) without one byte of further weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import MaAgiqaError
from ..model_files.transformers_folder import model_type
from ..scorers.judges.asking import Reader
from ..scorers.judges.chat_reader import ChatReader
from ..scorers.judges.held_reader import HeldReader
from ..scorers.judges.qwen_reader import QWEN, QwenReader
from ..scorers.judges.readouts import LogProbability
from ..scorers.judges.vqascore import (
    QUESTION,
    QUESTIONS,
    RESIZED_BY_PILLOW,
    VqaScorer,
    answer_id,
    pillow_first,
    vqascore_info,
)
from ..semantic.chat_model import ChatModel
from ..semantic.decoder import BorrowedDecoder

PROCESSORS = {
    "qwen2_5_vl": "Qwen/Qwen2.5-VL-7B-Instruct",
    "qwen3_vl": "Qwen/Qwen3-VL-4B-Instruct",
}
"""By `model_type`: whose tokenizer, image processor and chat template fit, if the pipeline has only a tokenizer."""

_BASES = {"qwen3_vl_text": "qwen3_vl", "qwen2_5_vl_text": "qwen2_5_vl"}


def pipeline_judge(
    pipe: Any, *, processor: str | os.PathLike[str] | Any = None, question: str | None = None
) -> VqaScorer:
    """A VQAScore by a pipeline's own text encoder, for pipelines whose text encoder sees pictures.

    The text encoder is used where it is and left as it is. Under `enable_model_cpu_offload` the pipeline's other models
    leave the card while it judges, and it leaves the card afterwards.

    Args:
        pipe: Of diffusers, such as QwenImagePipeline, Flux2Pipeline or Krea2Pipeline.
        processor: The text encoder's tokenizer, image processor and chat template: an object of transformers, or the
            folder or Hub id of it. None takes the pipeline's own, else what lies in the pipeline's folder, else what is
            published with the model: see `PROCESSORS`.
        question: With "{prompt}" in it; None is VQAScore's.

    Returns:
        A scorer that needs prompts: 0 to 1, higher is better.

    Raises:
        FileNotFoundError: The processor is not on this machine and cannot be downloaded.
        ValueError: The pipeline's text encoder does not see pictures or cannot answer; the message says why.

    Example:
        >>> from diffusers import QwenImagePipeline  # doctest: +SKIP
        >>> from ma_agiqa_core.generation import best_of_n, pipeline_judge
        >>> pipe = QwenImagePipeline.from_pretrained("Qwen/Qwen-Image", torch_dtype="bfloat16")  # doctest: +SKIP
        >>> best_of_n(pipe, pipeline_judge(pipe), "a red bicycle", n=4)  # doctest: +SKIP
    """
    model = _text_encoder(pipe)
    kind = model_type(model.config)
    own = _processor(pipe, processor, _BASES.get(kind, kind))
    tokenizer = own.tokenizer
    where = f"the pipeline's {type(own).__name__}"
    readout = LogProbability(answer_id(tokenizer, where))
    decoder = BorrowedDecoder(model)
    place = torch.device(getattr(pipe, "_execution_device", None) or next(model.parameters()).device)
    dtype = next(model.parameters()).dtype
    reader: Reader
    if kind in QWEN:
        resize = pillow_first(own) if kind in RESIZED_BY_PILLOW else None
        reader = QwenReader(decoder, own, readout, device=place, dtype=dtype, resize=resize)
    else:
        reader = ChatReader(ChatModel(decoder, own, device=place, dtype=dtype, keeps_head=True), readout)
    name = f"{type(pipe).__name__}'s {type(model).__name__}"
    held = HeldReader(reader, name, device=place, dtype=dtype, around=lambda: _alone_on_card(pipe, model))
    template = question or QUESTIONS.get(kind, QUESTION)
    return VqaScorer(held, vqascore_info(name, f"{_source(pipe)}-show"), template=template)


def _text_encoder(pipe: Any) -> Any:
    model = getattr(pipe, "text_encoder", None)
    what = type(pipe).__name__
    if model is None:
        raise MaAgiqaError(
            f"Expected a pipeline with a text encoder, got {what} without one. Load it with its text encoder, or use "
            "load_scorer('vqascore:...')."
        )
    config = getattr(model, "config", None)
    if getattr(config, "vision_config", None) is None or not hasattr(model, "get_output_embeddings"):
        raise MaAgiqaError(
            f"Expected a pipeline whose text encoder sees pictures (Qwen-Image, FLUX.2 dev, Krea 2), got {what}, whose "
            f"{type(model).__name__} reads text only. Use load_scorer('vqascore:...')."
        )
    if getattr(config, "model_type", None) in ("clip", "siglip") or getattr(config, "is_encoder_decoder", False):
        raise MaAgiqaError(
            f"Expected a pipeline whose text encoder answers, got {what}, whose {type(model).__name__} does not. "
            "Use load_scorer('vqascore:...')."
        )
    return model


def _processor(pipe: Any, named: Any, kind: str) -> Any:
    """The one given, the pipeline's, that of its folder, or the published one."""
    if named is not None and not isinstance(named, str | os.PathLike):
        return _complete(named, f"the given {type(named).__name__}")
    if named is not None:
        return _from(named)
    for component in ("processor", "tokenizer"):
        own = getattr(pipe, component, None)
        if getattr(own, "image_processor", None) is not None and getattr(own, "tokenizer", None) is not None:
            return _complete(own, f"the pipeline's {component}")
    root = Path(str(getattr(pipe, "name_or_path", "") or ""))
    for folder in (root / "processor", root / "tokenizer", root):
        if (folder / "preprocessor_config.json").is_file() or (folder / "processor_config.json").is_file():
            return _from(folder)
    if kind not in PROCESSORS:
        raise MaAgiqaError(
            f"Expected the processor of a {kind} in {type(pipe).__name__}, got only a tokenizer. Pass processor=FOLDER "
            "with the model's tokenizer, image processor and chat template."
        )
    try:
        return _from(PROCESSORS[kind])
    except FileNotFoundError as error:
        raise type(error)(
            f"{error} {type(pipe).__name__} has only a tokenizer: pass processor=FOLDER with the image processor and "
            "chat template too."
        ) from error


def _from(place: str | os.PathLike[str]) -> Any:
    from ..model_files.hub import hub_folder, is_hub_id
    from ..semantic.chat_model_files import load_processor

    folder = hub_folder(str(place), _has_processor) if is_hub_id(place) else Path(place)
    return load_processor(folder)


def _has_processor(folder: Path) -> bool:
    return (folder / "preprocessor_config.json").is_file() and (folder / "tokenizer_config.json").is_file()


def _complete(processor: Any, where: str) -> Any:
    parts = ("tokenizer", "image_processor", "chat_template")
    if missing := [part for part in parts if getattr(processor, part, None) is None]:
        raise MaAgiqaError(
            f"Expected a tokenizer, an image processor and a chat template in {where}, got no "
            f"{' and no '.join(missing)}. Pass processor=FOLDER."
        )
    return processor


@contextmanager
def _alone_on_card(pipe: Any, model: Any) -> Iterator[None]:
    """Where a pipeline's models take turns on the card, the others leave it first, and this one afterwards."""
    own = getattr(model, "_hf_hook", None)
    hooks = list(getattr(pipe, "_all_hooks", None) or ())
    for hook in hooks:
        if getattr(hook, "hook", None) is not own and hasattr(hook, "offload"):
            hook.offload()
    try:
        yield
    finally:
        for hook in hooks:
            if getattr(hook, "hook", None) is own and hasattr(hook, "offload"):
                hook.offload()


def _source(pipe: Any) -> str:
    return str(getattr(pipe, "name_or_path", "") or type(pipe).__name__)
