"""Edits, judged on source, result and instruction, by any judge whose model takes two pictures.

The score is the probability of "Yes" to a question about both pictures, read as for VQAScore. The question is ours:
there is no published one, nor an agreement with people.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ...errors import MaAgiqaError, PictureError
from ...pictures.inputs import Picture, PictureInput, decode
from ...preprocess import to_bytes
from ...semantic.cache import SemanticCache
from ..scorer import ScorerInfo
from .asking import AskedModel
from .vqascore import VqaScorer

QUESTION = (
    'The second picture is an edit of the first one, made by this instruction: "{prompt}". Was the instruction '
    "followed, with everything else left as it was?"
)


def edit_judge(judge: VqaScorer, source: PictureInput, *, question: str = QUESTION) -> EditScorer:
    """A judge of edits of one picture: its prompts are the instructions.

    Args:
        judge: Of `load_scorer("vqascore:...")` or `pipeline_judge`, with a Qwen model, which takes two pictures. Its
            model and cache are shared.
        source: The picture before the edit, as `Scorer.score` takes one.
        question: About the first picture, the source, and the second, the result, with "{prompt}" in it.

    Raises:
        PictureError: The source cannot be read.
        ValueError: Another kind of judge, or a question without "{prompt}".

    Example:
        >>> from ma_agiqa_core import load_scorer
        >>> from ma_agiqa_core.generation import edit_judge
        >>> judge = edit_judge(load_scorer("vqascore"), "before.png")  # doctest: +SKIP
        >>> judge.score(["after_1.png", "after_2.png"], "make the bicycle blue")  # doctest: +SKIP
        tensor([0.8123, 0.4312])
    """
    if not isinstance(judge, VqaScorer):
        raise MaAgiqaError(
            f"Expected a VQAScore, got {getattr(getattr(judge, 'info', None), 'name', type(judge).__name__)}. Use "
            "load_scorer('vqascore:...') or pipeline_judge(pipe)."
        )
    picture = decode(source)
    if picture.pixels is None:
        raise PictureError(0, picture.path, picture.error or "unknown")
    name = f"edit-{judge.info.name}"
    info = replace(
        judge.info,
        name=name,
        targets=("edit",),
        target="edit",
        description="Whether an edit follows its instruction and leaves the rest alone: the probability of Yes.",
    )
    return EditScorer(judge.language_model, info, judge.cache, source=to_bytes(picture.pixels), template=question)


class EditScorer(VqaScorer):
    """The `Scorer` of edits of one picture: 0 to 1, higher is better; the prompts are the instructions.

    Args:
        reader: Gives the logarithm of the answer's probability.
        info: What the scorer says about itself.
        cache: Of answers to pictures already seen.
        source: uint8 (3, H, W) RGB, the picture before the edit.
        template: The question, with "{prompt}" in it.
    """

    def __init__(
        self,
        reader: AskedModel,
        info: ScorerInfo,
        cache: SemanticCache | None = None,
        *,
        source: Tensor,
        template: str = QUESTION,
    ) -> None:
        super().__init__(reader, info, cache, template=template)
        self.source = source

    def pictures_of(self, picture: Picture) -> tuple[Tensor, ...]:
        """The source, then the result."""
        return (self.source, *super().pictures_of(picture))

    @property
    def settings(self) -> tuple[str, ...]:
        """As of VQAScore, and which picture was edited."""
        return (*super().settings, f"source={SemanticCache.key(self.source, '', '')[:12]}")
