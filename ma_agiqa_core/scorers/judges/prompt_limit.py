"""What of a prompt a vision-language judge reads, and which prompts it cannot be asked with."""

from __future__ import annotations

import logging
import re

logger = logging.getLogger(__name__)

LONGEST_PROMPT = 8000
"""Characters, about 2000 tokens: far above any prompt of a generator, far below what the models read."""
_PLACEHOLDER = re.compile(r"<\|?(?:image_pad|video_pad|vision_start|vision_end|image|video|IMG|IMG_CONTEXT)\|?>")
_MOST_REMEMBERED = 1000  # prompts whose cut was told


class PromptLimit:
    """Cuts prompts that are too long; the log says so once for each."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, prompt: str, judge: str) -> str:
        """The prompt, or its first 8000 characters."""
        if len(prompt) <= LONGEST_PROMPT:
            return prompt
        if prompt not in self._told and len(self._told) < _MOST_REMEMBERED:
            self._told.add(prompt)
            logger.warning(
                "%s reads the first %d of the %d characters of the prompt %.200r",
                judge,
                LONGEST_PROMPT,
                len(prompt),
                prompt,
            )
        return prompt[:LONGEST_PROMPT]


def placeholder_fault(prompt: str) -> str | None:
    """Why a prompt cannot be asked: it holds what stands for a picture in a chat; None if there is nothing wrong."""
    if (found := _PLACEHOLDER.search(prompt)) is None:
        return None
    return f"its prompt has {found[0]!r} in it, which stands for a picture in the model's chat: leave it out"
