"""Q-Align (OneAlign): quality and aesthetics as people rate them (Wu et al. 2023, arXiv 2312.17090), an mPLUG-Owl2.

Follows the published scorer classes (github.com/Q-Future/Q-Align, QAlignScorer and QAlignAestheticScorer, read at
14dfdff): weights 1 to 0. The `score()` of its remote code asks in slipped words ("The image of the quality is") and
weighs 5 to 1, so numbers published with it are others: see docs/judges.md. Its code may not be used commercially (S-Lab
License 1.0); none of it is here.
"""

from __future__ import annotations

from ..family import Request
from ..scorer import ScorerInfo
from .asking import Question
from .levels import LevelJudge
from .opening import open_cache, open_reader
from .owl_reader import OwlReader, check_owl
from .targets import chosen_target

REPOSITORY = "q-future/one-align"
TARGETS = ("quality", "aesthetics")
WORDING = "scorer"  # the scorer classes' words, not those of the model's own `score()`


class QAlignScorer(LevelJudge):
    """The `Scorer` of Q-Align: 0 to 1, higher is better, of quality or of aesthetics."""

    def question(self, target: str | None, prompt: str | None) -> Question:
        """The published one of the scorer classes."""
        return Question(f"How would you rate the {target} of this image?", f"The {target} of the image is")


def load(request: Request) -> QAlignScorer:
    """Loads Q-Align from its folder or the Hub.

    Raises:
        FileNotFoundError: It is not on this machine and cannot be downloaded.
        ValueError: Another model, missing or damaged files, or an option that does not apply.
    """
    target = chosen_target("qalign", TARGETS, request.target)
    reader = open_reader(request, "qalign", REPOSITORY, OwlReader.from_folder, check_owl, depends_on_transformers=False)
    info = ScorerInfo(
        name=f"qalign({reader.name})",
        revision=f"{reader.revision}-{WORDING}",
        low=0.0,
        high=1.0,
        trained_on="KonIQ-10k, SPAQ, KADID-10k, AVA and LSVQ",
        targets=TARGETS,
        target=target,
        description="Q-Align: quality or aesthetics, by how probable mPLUG-Owl2 finds the words excellent, good, fair, "
        "poor and bad as its answer.",
    )
    return QAlignScorer(reader, info, open_cache(request))
