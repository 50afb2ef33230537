"""Every scorer of the project, small and random: one entry each, for the tests that all of them must pass.

A new scorer is a line in `MAKERS`: its name, and how it is made from what `Small` has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clip_judges
import numpy as np
import tiny_judges
import tiny_models
import torch

from ma_agiqa_core import CallableScorer, EnsembleScorer, Scorer, load_scorer


@dataclass(frozen=True)
class Small:
    """What scorers are made of.

    Attributes:
        folder: Empty, for files.
        checkpoint: Of MA-AGIQA, for `semantic`.
        visual_checkpoint: Of MA-AGIQA's visual expert alone.
        semantic: The folder of a small mPLUG-Owl2.
    """

    folder: Path
    checkpoint: Path
    visual_checkpoint: Path
    semantic: Path


def brightness(pictures: Sequence[Any], prompts: Sequence[str] | None) -> list[float]:
    """Mean brightness, 0 to 1, of whatever a function may be given."""
    return [_mean(picture) for picture in pictures]


def places(pictures: Sequence[Any], prompts: Sequence[str] | None) -> list[float]:
    """The share of the pictures of a call that are darker."""
    means = np.array(brightness(pictures, prompts))
    return [float((means < mean - 1e-6).mean()) for mean in means]


def _mean(picture: Any) -> float:
    if isinstance(picture, torch.Tensor):
        return float(picture.double().mean())
    return float(np.asarray(picture).mean()) / 255


def _clip(small: Small, model_type: str) -> Scorer:
    folder = small.folder / model_type
    if not folder.exists():
        tiny_models.write_clip(folder, model_type=model_type, seed=4)  # its cosines are not all below 0
    return load_scorer(f"clip:{folder}", device="cpu")


def _ma_agiqa(small: Small, **options: Any) -> Scorer:
    return load_scorer(small.checkpoint, semantic=small.semantic, device="cpu", **options)


def _alignment(small: Small) -> Scorer:
    path = small.folder / "two_targets.safetensors"
    if not path.exists():
        tiny_models.write_checkpoint(path, 64, ("quality", "alignment"))
    return load_scorer(path, semantic=small.semantic, target="alignment", device="cpu")


def _student(small: Small) -> Scorer:
    path = small.folder / "student.safetensors"
    if not path.exists():
        tiny_models.write_student(path)
    return load_scorer(path, device="cpu")


def _judge(small: Small, family: str, write: Callable[[Path], Path], **options: Any) -> Scorer:
    folder = small.folder / f"{write.__name__} judge"
    if not folder.exists():
        write(folder)
    return load_scorer(f"{family}:{folder}", device="cpu", **options)


def _learned(small: Small, features: str = "lite") -> Scorer:
    path = small.folder / f"learned_{features}.safetensors"
    if not path.exists():
        folder = small.folder / "clip"
        if features != "lite" and not folder.exists():
            tiny_models.write_clip(folder, seed=4)
        tiny_models.write_learned(path, features if features == "lite" else f"clip:{folder}")
    return load_scorer(path, device="cpu")


def _ensemble(small: Small, combine: str) -> Scorer:
    members = [load_scorer("lite", device="cpu"), load_scorer(small.visual_checkpoint, device="cpu")]
    if combine != "calibrated":
        members += [_clip(small, "clip"), CallableScorer(brightness, name="brightness")]
    return EnsembleScorer([(member, 1 + place) for place, member in enumerate(members)], combine=combine)


MAKERS: dict[str, Callable[[Small], Scorer]] = {
    "lite": lambda small: load_scorer("lite", device="cpu"),
    "student": _student,
    "learned": _learned,
    "learned on clip": lambda small: _learned(small, "clip"),
    "visual expert": lambda small: load_scorer(small.visual_checkpoint, device="cpu"),
    "ma-agiqa": _ma_agiqa,
    "ma-agiqa with a cache": lambda small: _ma_agiqa(small, cache=small.folder / "cache"),
    "ma-agiqa's alignment": _alignment,
    "clip": lambda small: _clip(small, "clip"),
    "siglip": lambda small: _clip(small, "siglip"),
    "deqa": lambda small: _judge(small, "deqa", tiny_judges.write_owl),
    "qrealign": lambda small: _judge(small, "qrealign", tiny_judges.write_qrealign),
    "vqascore with a cache": lambda small: _judge(
        small, "vqascore", tiny_judges.write_vqascore, cache=small.folder / "answers"
    ),
    "hpsv3": lambda small: _judge(small, "hpsv3", tiny_judges.write_hpsv3),
    "imagereward": lambda small: _judge(small, "imagereward", clip_judges.write_imagereward),
    "hpsv2": lambda small: _judge(small, "hpsv2", clip_judges.write_hpsv2),
    "laion-aesthetic": lambda small: _judge(small, "laion-aesthetic", clip_judges.write_laion),
    "aesthetic-v2.5": lambda small: _judge(small, "aesthetic-v2.5", clip_judges.write_aesthetic_v2_5),
    "function": lambda small: CallableScorer(brightness, name="brightness"),
    "relative function": lambda small: CallableScorer(places, name="places", relative=True),
    "function of prompts": lambda small: CallableScorer(brightness, name="brightness", needs_prompt=True),
    "calibrated": lambda small: _ensemble(small, "calibrated"),
    "rank": lambda small: _ensemble(small, "rank"),
    "zscore": lambda small: _ensemble(small, "zscore"),
}
