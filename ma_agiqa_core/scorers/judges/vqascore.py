"""VQAScore: does the picture show what its prompt says (Lin et al. 2024, arXiv 2404.01291), by any image-text model.

The score is the probability of "Yes" as the first token of the answer to 'Does this image show "{prompt}"?', among the
whole vocabulary, after the model's own chat template: that of t2v_metrics 3.0 for Qwen2.5-VL. Three traps of published
numbers, none of which is followed here; docs/judges.md says what each costs:
- t2v_metrics reads `generate`'s processed scores: a repetition_penalty in the checkpoint's generation_config.json is in
  its numbers. Here it is the plain softmax.
- Its later versions ask in other words ('Does this figure show ... Please answer Yes or No.').
- For CLIP-FlanT5 its score is the geometric mean of two probabilities. That model is no chat model, and not built here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import PIL.Image
from torch import Tensor

from ...errors import MaAgiqaError
from ...model_files.transformers_folder import check_shards, image_text_kind, read_json
from ...semantic.cache import SemanticCache
from ..family import Request
from ..scorer import ScorerInfo
from .asking import AskedModel, Question
from .chat_reader import ChatReader
from .language_judge import LanguageJudge
from .opening import open_cache, open_reader
from .prompt_limit import PromptLimit
from .qwen_files import check_processor_files
from .qwen_prompt import resized_by_pillow
from .qwen_reader import QWEN, QwenReader
from .readouts import LogProbability

REPOSITORY = "Qwen/Qwen2.5-VL-7B-Instruct"
WORDING = "show"  # t2v_metrics 3.0's question
ANSWER = "Yes"
PROMPT = "{prompt}"
QUESTION = f'Does this image show "{PROMPT}"?'
QUESTIONS = {
    "internvl": f"{QUESTION} Please answer Yes or No.",
    "mllama": f"{QUESTION} Answer the question with Yes or No",
}
"""By `model_type`, where t2v_metrics asks otherwise: without it these models answer in whole sentences."""
RESIZED_BY_PILLOW = ("qwen2_vl", "qwen2_5_vl")  # by qwen-vl-utils, before their processor sees a picture


class VqaScorer(LanguageJudge):
    """The `Scorer` of VQAScore: 0 to 1, higher is better.

    Args:
        reader: Gives the logarithm of the answer's probability.
        info: What the scorer says about itself.
        cache: Of answers to pictures already seen.
        template: The question, with "{prompt}" in it.
    """

    def __init__(
        self, reader: AskedModel, info: ScorerInfo, cache: SemanticCache | None = None, *, template: str = QUESTION
    ) -> None:
        super().__init__(reader, info, cache)
        if PROMPT not in template:
            raise MaAgiqaError(f"Expected {PROMPT!r} in the question, got {template!r}. Put it where the prompt goes.")
        self.template = template
        self._limit = PromptLimit()

    def question(self, target: str | None, prompt: str | None) -> Question:
        """The template with the prompt in it; see `PromptLimit` for very long ones."""
        return Question(self.template.replace(PROMPT, self._limit(prompt or "", self.info.name)))

    def score_of(self, numbers: Tensor) -> float:
        """From the logarithm of the probability, (1,)."""
        return math.exp(float(numbers[0]))

    @property
    def settings(self) -> tuple[str, ...]:
        """As of any language judge, and the question where it is another one."""
        asked = () if self.template in (QUESTION, *QUESTIONS.values()) else (f"question={self.template}",)
        return (*super().settings, *asked)


def load(request: Request) -> VqaScorer:
    """Loads an image-text model from its folder or the Hub.

    Raises:
        FileNotFoundError: It is not on this machine and cannot be downloaded.
        ValueError: Another kind of model, missing or damaged files, or an option that does not apply.
    """
    reader = open_reader(request, "vqascore", REPOSITORY, read_vqascore, check_vqascore)
    kind = str(reader.config.get("model_type"))
    return VqaScorer(
        reader,
        vqascore_info(reader.name, f"{reader.revision}-{WORDING}"),
        open_cache(request),
        template=QUESTIONS.get(kind, QUESTION),
    )


def vqascore_info(name: str, revision: str) -> ScorerInfo:
    """What a VQAScore by a model of this name says about itself."""
    return ScorerInfo(
        name=f"vqascore({name})",
        revision=revision,
        low=0.0,
        high=1.0,
        trained_on="see the model's page",
        needs_prompt=True,
        targets=("alignment",),
        target="alignment",
        description=f"VQAScore: how probable {name} finds the answer Yes when it is asked whether the picture shows "
        "what its prompt says.",
    )


def check_vqascore(folder: Path) -> None:
    """Finds missing, truncated and foreign files.

    Raises:
        ValueError: A file is missing or damaged, or it is no model that sees pictures and writes text.
    """
    config = read_json(folder / "config.json")
    if image_text_kind(config) in (None, "mplug_owl2", "clip", "siglip"):
        raise MaAgiqaError(
            f"Expected an image-text model for 'vqascore' in {str(folder)!r}, got model_type "
            f"{config.get('model_type')!r}. Use a chat model that sees pictures, such as {REPOSITORY!r}."
        )
    check_processor_files(folder)
    check_shards(folder)


def read_vqascore(folder: Path, **placement: Any) -> QwenReader | ChatReader:
    """A reader of the answer's probability."""
    kind = read_json(folder / "config.json").get("model_type")
    readout = partial(_yes, folder)
    if kind not in QWEN:
        return ChatReader.from_folder(folder, readout, **placement)
    resizes = pillow_first if kind in RESIZED_BY_PILLOW else None
    return QwenReader.from_folder(folder, readout, **placement, resizes=resizes)


def answer_id(tokenizer: Any, where: str, answer: str = ANSWER) -> int:
    """The first token of the answer.

    Raises:
        ValueError: The tokenizer has none for it.
    """
    ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    if not ids or ids[0] == getattr(tokenizer, "unk_token_id", None):
        raise MaAgiqaError(
            f"Expected a token for {answer!r} from the tokenizer in {where}, got none. Use the one that came with the "
            "model."
        )
    return int(ids[0])


def _yes(folder: Path, tokenizer: Any) -> LogProbability:
    return LogProbability(answer_id(tokenizer, repr(str(folder))))


def pillow_first(processor: Any) -> Callable[[PIL.Image.Image], PIL.Image.Image]:
    """qwen-vl-utils' resize with the limits of the processor, which then has nothing left to resize.

    Args:
        processor: Of a Qwen2-VL or Qwen2.5-VL.
    """
    images = processor.image_processor
    size = images.size
    return partial(
        resized_by_pillow,
        factor=images.patch_size * images.merge_size,
        least=size["shortest_edge"],
        most=size["longest_edge"],
    )
