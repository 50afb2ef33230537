"""DeQA-Score: technical quality as people rate it (You et al. 2025, arXiv 2501.11561), an mPLUG-Owl2.

Follows the published Scorer (github.com/zhiyuanyou/DeQA-Score, src/evaluate/scorer.py, read at 8e4abc8), which runs in
float16; float32 differs from that by 0.7 to 2.3 % of the spread of scores. No remote code, no pins.
"""

from __future__ import annotations

from ..family import Request
from ..scorer import ScorerInfo
from .asking import Question
from .levels import LevelJudge
from .opening import open_cache, open_reader
from .owl_reader import OwlReader, check_owl

REPOSITORY = "zhiyuanyou/DeQA-Score-Mix3"


class DeqaScorer(LevelJudge):
    """The `Scorer` of DeQA-Score: 1 to 5, higher is better."""

    weights = (5.0, 4.0, 3.0, 2.0, 1.0)

    def question(self, target: str | None, prompt: str | None) -> Question:
        """The published one."""
        return Question("How would you rate the quality of this image?", "The quality of the image is")


def load(request: Request) -> DeqaScorer:
    """Loads DeQA-Score from its folder or the Hub.

    Raises:
        FileNotFoundError: It is not on this machine and cannot be downloaded.
        ValueError: Another model, missing or damaged files, or an option that does not apply.
    """
    reader = open_reader(request, "deqa", REPOSITORY, OwlReader.from_folder, check_owl, depends_on_transformers=False)
    info = ScorerInfo(
        name=f"deqa({reader.name})",
        revision=reader.revision,
        low=1.0,
        high=5.0,
        trained_on="KonIQ-10k, SPAQ and KADID-10k",
        targets=("quality",),
        target="quality",
        description="DeQA-Score: technical quality, by how probable mPLUG-Owl2 finds the words excellent, good, fair, "
        "poor and bad as its answer.",
    )
    return DeqaScorer(reader, info, open_cache(request))
