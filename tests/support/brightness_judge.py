"""A judge that needs no weights and can be sent to other processes: mean brightness, 0 to 1.

Some of its names misbehave in ways that tests ask for.
"""

import os
import signal
import time
from typing import Any

import numpy as np

from ma_agiqa_core.scorers.callable import CallableScorer

DEADLY = 13  # a picture of this shade ends the process in which the judge "deadly" sees it


class Brightness:
    """The function of the judge."""

    def __init__(self, name: str = "brightness", seconds: float = 0.0) -> None:
        self.name, self.seconds = name, seconds

    def __call__(self, pictures: list[Any], prompts: list[str] | None) -> list[float]:
        time.sleep(self.seconds * len(pictures))
        shades = [float(np.asarray(picture).mean()) for picture in pictures]
        if self.name == "deadly" and any(round(shade) == DEADLY for shade in shades):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.name == "stumbles" and any(shade < 8 for shade in shades):
            raise ValueError("too dark")
        if self.name == "small-memory" and len(pictures) > 2:
            raise MemoryError
        if self.name == "prompted":
            return [float(len(prompt)) for prompt in prompts or []]
        return [shade / 255 for shade in shades]


def judge(name: str = "brightness", revision: str = "1", seconds: float = 0.0) -> CallableScorer:
    """The judge; `seconds` is what a picture takes."""
    return CallableScorer(
        Brightness(name, seconds),
        name=name,
        revision=revision,
        high=100.0 if name == "prompted" else 1.0,
        needs_prompt=name == "prompted",
        quantiles=(0.0, 0.5, 1.0),
        trained_on="nothing",
    )
