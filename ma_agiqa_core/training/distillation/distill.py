"""Distillation: a small scorer that follows a big one on pictures like the user's own.

A big teacher scores a folder once; a student of lite's kind (`lite/student.py`) learns its order there, in about a
minute for a few hundred pictures on a processor. A fifth of the pictures is held out: how well the student follows the
teacher on them is measured, reported, and written into the file. It is not a scorer of quality in general.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from ...atomic_write import atomic_write
from ...compute.caller_state import as_loaded
from ...compute.progress import tick
from ...errors import MaAgiqaError, MissingFileError
from ...evaluation.agreement import Agreement, agreement
from ...pictures.inputs import iterate_pictures
from ...pictures.prompts import Prompts
from ...scorers.lite import LITE_WEIGHTS
from ...scorers.lite.network import LiteNetwork
from ...scorers.lite.student import PARTS, StudentNetwork
from ...scorers.scorer import Scorer, ScorerInfo
from .ridge import RidgeFit, fit_ridge, matching_curve, normal_curves, normal_ranks

HELD_OUT = 0.2
SEED = 20
FEWEST = 30  # pictures; fewer teach next to nothing
CLOSE = 0.9  # SRCC from which a student stands in for its teacher
_ADVICE = "give it more pictures, or use the teacher for the last choice."


@dataclass(frozen=True)
class Distilled:
    """A student on disk.

    Attributes:
        path: The file, for `load_scorer`.
        held_out: How it follows the teacher on pictures that it was not taught.
        taught: Pictures that it was taught on.
        failed: Pictures without a score of the teacher, or that could not be read.
        parts: Scale of each part of a description, 0 (unused) to 1.
    """

    path: Path
    held_out: Agreement
    taught: int
    failed: int
    parts: dict[str, float]


def distill(
    teacher: Scorer,
    pictures: Sequence[Path],
    out: Path,
    *,
    prompts: Prompts = None,
    name: str | None = None,
    held_out: float = HELD_OUT,
    seed: int = SEED,
) -> Distilled:
    """Teaches a small scorer to follow a big one, and writes it.

    Args:
        teacher: Any scorer that scores each picture alone.
        pictures: Files: at least 30; a few hundred are a good start.
        out: The .safetensors file to write, for `load_scorer`.
        prompts: For a teacher that reads them. The student cannot: it only follows what can be seen.
        name: Name of the student; None takes the file's.
        held_out: Share of the pictures held out for measuring.
        seed: Seed for choosing them.

    Raises:
        ValueError: A relative teacher, fewer than 30 pictures with a score, or equal scores only.
    """
    check_distillation(teacher.info, out, len(pictures))
    scores = teacher.score(list(pictures), prompts=prompts, on_error="nan").tolist()
    return follow(teacher.info, pictures, scores, out, name=name, held_out=held_out, seed=seed)


def check_distillation(teacher: ScorerInfo, out: Path, pictures: int = FEWEST) -> None:
    """Checks the arguments before the teacher starts.

    Raises:
        ValueError: A relative teacher, too few pictures, or another ending.
        FileNotFoundError: No such folder.
    """
    teacher.require_scale("as a teacher")
    if pictures < FEWEST:
        raise MaAgiqaError(f"Expected at least {FEWEST} pictures to learn from, got {pictures}. Add more.")
    if out.suffix.lower() != ".safetensors":
        raise MaAgiqaError(f"Expected a path that ends in .safetensors, got {out}.")
    if not out.parent.is_dir():
        raise MissingFileError(f"Expected an existing folder for {out.name}, got {out.parent}. Create it first.")


@as_loaded()
def follow(
    teacher: ScorerInfo,
    pictures: Sequence[Path],
    scores: Sequence[float],
    out: Path,
    *,
    name: str | None = None,
    held_out: float = HELD_OUT,
    seed: int = SEED,
) -> Distilled:
    """Teaches a student to reproduce a teacher's scores of pictures, and writes it.

    Args:
        teacher: The scorer's info.
        pictures: Files.
        scores: The teacher's score of each; NaN where there is none.
        out: The .safetensors file.
        name: Name of the student; None takes the file's.
        held_out: Share of the pictures held out for measuring.
        seed: Seed for choosing them.

    Raises:
        ValueError: Fewer than 30 pictures with a score, or equal scores only.
    """
    check_distillation(teacher, out)
    network = StudentNetwork(_lite()).eval()
    known = [(path, score) for path, score in zip(pictures, scores, strict=True) if np.isfinite(score)]
    _check_scores([score for _, score in known], teacher)
    descriptions, rows = _describe(network, [path for path, _ in known])
    y = np.array([known[row][1] for row in rows])
    _check_scores(y, teacher)  # some could not be read
    test, train = _held_out(len(y), held_out, seed)
    fit = teach(network, descriptions[train], y[train])
    with torch.inference_mode():
        predictions = network.predict(network.normalise(descriptions[test]))
    measured = agreement(predictions.numpy(), y[test], seed=seed)
    parts = dict(zip(PARTS, fit.scales, strict=True))
    _save(network, teacher, y, measured, len(train), name or out.stem, out)
    return Distilled(out, measured, len(train), len(pictures) - len(y), parts)


def distilled_text(distilled: Distilled, teacher: ScorerInfo) -> str:
    """A summary for the terminal."""
    held_out = distilled.held_out
    srcc = held_out.srcc
    if srcc.value is None:
        found = f"agreement with {teacher.name} is undefined: {held_out.undefined}"
    else:
        within = "" if srcc.low is None else f" [{srcc.low:.3f}, {srcc.high:.3f}]"
        found = f"SRCC {srcc.value:.3f}{within} with {teacher.name} on {held_out.n} held-out pictures"
    lines = [f"Student:  {distilled.path}, taught on {distilled.taught} pictures", f"Held out: {found}"]
    if srcc.value is None or srcc.value < CLOSE:
        lines.append(f"          It follows loosely: {_ADVICE}")
    return "\n".join(lines)


def teach(network: StudentNetwork, descriptions: torch.Tensor, scores: np.ndarray) -> RidgeFit:
    """Fits weights and curve of a student to (N, D) descriptions and the teacher's scores (N,)."""
    for row, curves in enumerate(zip(*normal_curves(descriptions.double().numpy()), strict=True)):
        _bend(network, row, *curves)
    x = network.normalise(descriptions).double().numpy()
    target = normal_ranks(scores)
    fit = fit_ridge(x, target - target.mean(), list(PARTS.values()))
    network.weight.copy_(torch.from_numpy(fit.weight))
    _bend(network, -1, *matching_curve(fit.left_out, scores))
    return fit


def _bend(network: StudentNetwork, row: int, knots: np.ndarray, heights: np.ndarray) -> None:
    network.knots[row] = torch.from_numpy(knots)
    network.heights[row] = torch.from_numpy(heights)


def _lite() -> LiteNetwork:
    from safetensors.torch import load_file

    return LiteNetwork.from_state_dict(load_file(LITE_WEIGHTS))


def _check_scores(scores: Sequence[float] | np.ndarray, teacher: ScorerInfo) -> None:
    if len(scores) < FEWEST:
        raise MaAgiqaError(f"Expected at least {FEWEST} pictures with a score of {teacher.name}, got {len(scores)}.")
    if np.ptp(scores) == 0:
        raise MaAgiqaError(
            f"Expected different scores of {teacher.name}, got {scores[0]:g} for all {len(scores)} pictures."
        )


def _describe(network: StudentNetwork, pictures: Iterable[Path]) -> tuple[torch.Tensor, list[int]]:
    """Descriptions (N, D) of the pictures that can be read, and which they are."""
    rows, found = [], []
    with torch.inference_mode():
        for picture in iterate_pictures(pictures):
            if picture.pixels is not None:
                rgb = picture.pixels if picture.pixels.is_floating_point() else picture.pixels.float() / 255
                found.append(network.describe(rgb[None])[0])
                rows.append(picture.index)
            tick(1)
    return torch.stack(found) if found else torch.empty(0, len(network.weight)), rows


def _held_out(count: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    rows = list(range(count))
    random.Random(seed).shuffle(rows)
    cut = max(round(count * share), 1)
    return sorted(rows[:cut]), sorted(rows[cut:])


def _save(
    network: StudentNetwork,
    teacher: ScorerInfo,
    scores: np.ndarray,
    measured: Agreement,
    taught: int,
    name: str,
    out: Path,
) -> None:
    network.limits.copy_(torch.tensor([teacher.low, teacher.high]))
    state = {
        tensor_name: tensor.half() if tensor.ndim == 4 else tensor.float()
        for tensor_name, tensor in network.state_dict().items()
    }
    follows = "not measurable" if measured.srcc.value is None else f"SRCC {measured.srcc.value:.3f}"
    facts = {
        "teacher": teacher.name,
        "teacher_revision": teacher.revision,
        "teacher_trained_on": teacher.trained_on,
        "taught_on": taught,
        "held_out": measured.to_dict(),
    }
    metadata = {
        "format": "1",
        "kind": "lite",
        "network": "student",
        "name": name,
        "trained_on": f"scores of {'@'.join(filter(None, (teacher.name, teacher.revision)))} for {taught} pictures",
        "description": (
            f"A student of {teacher.name}, {follows} with it on {measured.n} held-out pictures. It follows its teacher "
            "on pictures like those it was taught on, and says little of others."
        ),
        "target": teacher.target or "",
        "low": repr(float(teacher.low)),
        "high": repr(float(teacher.high)),
        "quantiles": json.dumps([float(f"{q:.7g}") for q in np.quantile(scores, np.linspace(0, 1, 101))]),
        "distilled": json.dumps(facts, allow_nan=False),
    }
    with atomic_write(out, is_shared=True) as temporary:
        tensors = {tensor_name: tensor.contiguous() for tensor_name, tensor in state.items()}
        save_file(tensors, temporary, {f"ma_agiqa.{key}": value for key, value in metadata.items()})
