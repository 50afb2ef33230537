"""The two questions that the semantic branch is asked, in the words of the published extraction (getFeature.py)."""

QUESTIONS = {
    "semantic_content": (
        "Evaluate the input image to determine if its quality is compromised due to a lack of meaningful "
        "semantic content."
    ),
    "coherence": "Evaluate if the image quality is compromised due to violations of coherence.",
}
"""By the name of the expert that reads the answer's features."""
