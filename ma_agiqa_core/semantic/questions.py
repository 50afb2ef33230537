"""What the semantic branch is asked: the two questions of the published extraction (getFeature.py), and a third.

The third one is ours. It holds the prompt that a picture was generated from, so that the head of alignment can see
whether the picture is what was asked for.
"""

from collections.abc import Iterable, Mapping

QUESTIONS = {
    "semantic_content": (
        "Evaluate the input image to determine if its quality is compromised due to a lack of meaningful "
        "semantic content."
    ),
    "coherence": "Evaluate if the image quality is compromised due to violations of coherence.",
}
"""By the name of the expert that reads the answer's features."""

PROMPT = "{prompt}"
"""Where the generator's prompt stands in a question."""

ALIGNMENT_QUESTION = f'Evaluate if the image matches the text prompt that it was generated from: "{PROMPT}"'


def questions_for(targets: Iterable[str]) -> dict[str, str]:
    """All that must be asked so that these targets can be scored."""
    return {**QUESTIONS, "alignment": ALIGNMENT_QUESTION} if "alignment" in targets else dict(QUESTIONS)


def names_prompt(question: str) -> bool:
    """Whether a question is another one for each prompt."""
    return PROMPT in question


def with_prompt(questions: Mapping[str, str], prompt: str | None) -> dict[str, str]:
    """The questions as they are asked of a picture that was made from this prompt."""
    return {name: text.replace(PROMPT, prompt or "") for name, text in questions.items()}
