"""The ordering test: are a picture and three degraded copies of it put in the right order?

    python -m benchmarks.ordering --pictures DIR [--weights F] [--kept F]

About 20 minutes of one core, most of it BRISQUE's; with `--kept` an interrupted run resumes, and one with other weights
only scores with these.

All six pairs of original and three levels, for contents that were not in training, side by side for `lite`, BRISQUE
from PyPI, and NIQE fitted on the lossless photographs that are not among those contents. Three groups of ladders:
the fixed ones of the bar, the families that were not in training either, and the families that were.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from itertools import combinations
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ma_agiqa_core import demo, load_scorer
from ma_agiqa_core.scorers.lite import degradations
from ma_agiqa_core.scorers.lite.degradations import FAMILIES, TEST_LADDERS, Picture, to_bytes
from ma_agiqa_core.scorers.lite.recipe.training_set import TEST_CONTENTS, UNSEEN_FAMILIES

from . import niqe as niqe_module
from . import published_brisque as brisque_module
from .machine import machine
from .niqe import Niqe
from .ordering_scores import KeptScores, digest
from .published_brisque import PublishedBrisque

LARGEST = 768  # px; BRISQUE takes seconds for larger ones
LEVELS = (0.2, 0.55, 0.9)
PAIRS = 6
ORIGINAL = "original"
SCORERS = ("lite", "BRISQUE", "NIQE")
BAR = 0.93
GROUPS = {
    "bar": tuple(TEST_LADDERS),
    "unseen": tuple(f"family {name}" for name in sorted(UNSEEN_FAMILIES)),
    "seen": tuple(f"family {name}" for name in sorted(set(FAMILIES) - UNSEEN_FAMILIES)),
}
TITLES = {"bar": "the bar's ladders", "unseen": "families not in training", "seen": "families in training"}


@click.command()
@click.option(
    "--pictures",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with photographs/ (Kodak, PNG) and generated/.",
)
@click.option("--weights", default="lite", show_default=True, metavar="F", help="lite, or a lite .safetensors file.")
@click.option(
    "--group",
    "groups",
    multiple=True,
    type=click.Choice(list(GROUPS)),
    default=list(GROUPS),
    help="Only these ladders.",
)
@click.option(
    "--scorer",
    "scorers",
    multiple=True,
    type=click.Choice(SCORERS),
    default=SCORERS,
    show_default=True,
    help="Only these columns.",
)
@click.option(
    "--kept", type=click.Path(dir_okay=False, path_type=Path), help="File of scores: known ones are not made again."
)
@click.option("--processes", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--contents", type=click.IntRange(min=1), metavar="N", help="Only the first N contents: a quick look.")
def main(
    pictures: Path,
    weights: str,
    groups: tuple[str, ...],
    scorers: tuple[str, ...],
    kept: Path | None,
    processes: int,
    contents: int | None,
) -> None:
    print(machine(), flush=True)
    sources = dict(sorted(find_test_contents(pictures).items())[:contents])
    pristine = pristine_photographs(pictures)
    ladders = [ladder for group in groups for ladder in GROUPS[group]]
    scores = scores_of(
        [(content, path, ladder) for content, path in sources.items() for ladder in (ORIGINAL, *ladders)],
        weights,
        pristine,
        KeptScores(kept),
        processes,
        scorers,
    )
    result = Result(
        tuple(sources),
        {
            ladder: np.array(
                [
                    [ordered_pairs(column) for column in np.concatenate([scores[c, ORIGINAL], scores[c, ladder]]).T]
                    for c in sources
                ]
            )
            for ladder in ladders
        },
        tuple(int(np.isnan(np.concatenate(list(scores.values()))[:, i]).sum()) for i in range(len(scorers))),
        scorers,
    )
    print(table(result, groups))


def scores_of(
    ladders: list[tuple[str, Path, str]],
    weights: str,
    pristine: list[Path],
    kept: KeptScores,
    processes: int,
    scorers: tuple[str, ...] = SCORERS,
) -> dict[tuple[str, str], np.ndarray]:
    """Scores of each ladder (content, its picture, name) by each scorer: (1, scorers) of an original, else (3, ...)."""
    identity = identities(weights, pristine)
    keys = {
        (content, ladder): [digest(identity[scorer], content, ladder, path) for scorer in scorers]
        for content, path, ladder in ladders
    }
    jobs = []
    for content, path, ladder in ladders:
        missing = tuple(s for s, key in zip(scorers, keys[content, ladder], strict=True) if key not in kept)
        if missing:
            jobs.append(_Job(content, path, ladder, missing))
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # for the workers
    with ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(weights, pristine)
    ) as pool:
        running = {pool.submit(_score, job): job for job in jobs}
        for done in tqdm(as_completed(running), total=len(jobs), unit="ladder", disable=None):
            job = running[done]
            key_of = dict(zip(scorers, keys[job.content, job.ladder], strict=True))
            kept.add((key_of[scorer], scores) for scorer, scores in done.result().items())
    return {place: np.array([kept[key] for key in row]).T for place, row in keys.items()}


def identities(weights: str, pristine: list[Path]) -> dict[str, str]:
    """What the scores of each of SCORERS depend on besides the picture: weights, code, the making of the copies."""
    copies = (Path(degradations.__file__), str((LARGEST, LEVELS)))
    lite = load_scorer(weights, device="cpu")
    # lite's code may become faster: it is known by what it says of a few pictures
    says = lite.score([Path(demo.__file__).with_name(f"{name}.jpg") for name in demo.PHOTOGRAPHS])
    return {
        "lite": digest("lite", lite.info.revision, *(f"{score:.3f}" for score in says), *copies),
        "BRISQUE": digest("BRISQUE", version("brisque"), Path(brisque_module.__file__), *copies),
        "NIQE": digest("NIQE", Path(niqe_module.__file__), *pristine, *copies),
    }


# -------------------------------------------------------------------------------------------------------- the pictures
def find_test_contents(pictures: Path) -> dict[str, Path]:
    """The contents kept out of training, by name.

    Raises:
        FileNotFoundError: One of them is not there.
    """
    places = (pictures / "photographs", pictures / "generated", Path(demo.__file__).parent)
    found = {}
    for content in sorted(TEST_CONTENTS):
        files = [path for place in places for path in (place / f"{content}.png", place / f"{content}.jpg")]
        path = next((path for path in files if path.is_file()), None)
        if path is None:
            raise FileNotFoundError(f"Expected {content}.png in photographs/ or generated/ of {pictures}, got none.")
        found[content] = path
    return found


def pristine_photographs(pictures: Path) -> list[Path]:
    """The lossless photographs that are not tested on.

    Raises:
        FileNotFoundError: There are none.
    """
    found = [path for path in sorted((pictures / "photographs").glob("kodim*.png")) if path.stem not in TEST_CONTENTS]
    if not found:
        raise FileNotFoundError(f"Expected photographs/kodim*.png in {pictures}, got none.")
    return found


@lru_cache(maxsize=2)
def _read(path: Path) -> Picture:
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    left, top = (max(side - LARGEST, 0) // 2 for side in rgb.size)
    cropped = rgb.crop((left, top, min(left + LARGEST, rgb.width), min(top + LARGEST, rgb.height)))
    return np.asarray(cropped, np.float32) / 255


def make_copies(original: Picture, content: str, ladder: str) -> list[Picture]:
    """The copies of a ladder, best first: one draw of its random numbers, three strengths."""
    seed = list(f"{content}/{ladder}".encode())
    if ladder in TEST_LADDERS:
        return [degrade(original, np.random.default_rng(seed)) for degrade in TEST_LADDERS[ladder]]
    degrade = FAMILIES[ladder.removeprefix("family ")]
    return [degrade(original, level, np.random.default_rng(seed)) for level in LEVELS]


# --------------------------------------------------------------------------------------------------------- the workers
@dataclass(frozen=True)
class _Job:
    content: str
    path: Path
    ladder: str
    scorers: tuple[str, ...]


_scorers: dict[str, Callable[[list[np.ndarray]], Sequence[float]]]


def _start_worker(weights: str, pristine: list[Path]) -> None:
    global _scorers
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DeprecationWarning)
    scorer, brisque = load_scorer(weights, device="cpu"), PublishedBrisque()
    niqe = Niqe.fit(np.asarray(Image.open(path).convert("RGB")) for path in pristine)
    _scorers = {
        "lite": lambda pictures: scorer.score(pictures).tolist(),
        "BRISQUE": lambda pictures: [brisque.quality(one) for one in pictures],
        "NIQE": lambda pictures: [niqe.quality(one) for one in pictures],
    }


def _score(job: _Job) -> dict[str, list[float]]:
    """Scores of the pictures of a job, by scorer."""
    original = _read(job.path)
    pictures = [original] if job.ladder == ORIGINAL else make_copies(original, job.content, job.ladder)
    rgb = [to_bytes(picture) for picture in pictures]
    return {name: list(_scorers[name](rgb)) for name in job.scorers}


# -------------------------------------------------------------------------------------------------------- the figures
def ordered_pairs(scores: Sequence[float] | np.ndarray) -> int:
    """Pairs in the right order, where the first picture is the best and the last the worst.

    A tie is not in order. A picture without a score (NaN) counts as the worst.
    """
    ranked = [-math.inf if math.isnan(score) else score for score in scores]
    return sum(better > worse for better, worse in combinations(ranked, 2))


def interval(by_content: np.ndarray, *, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Bootstrap 95 % interval of the mean over contents: by_content (N,)."""
    rng = np.random.default_rng(seed)
    means = by_content[rng.integers(len(by_content), size=(draws, len(by_content)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True)
class Result:
    """Pairs in order: per ladder (contents, scorers); and how many pictures each scorer could not score."""

    contents: tuple[str, ...]
    ordered: dict[str, np.ndarray]
    unscored: tuple[int, ...]
    scorers: tuple[str, ...] = SCORERS


def table(result: Result, groups: Sequence[str]) -> str:
    lines = [f"\nContents ({len(result.contents)}): {', '.join(result.contents)}."]
    unscored = ", ".join(f"{name} {count}" for name, count in zip(result.scorers, result.unscored, strict=True))
    lines += [f"Pictures without a score, counted as the worst: {unscored}.\n"]
    lines += [f"| pairs in order | pairs | {' | '.join(result.scorers)} |", "|---" * (2 + len(result.scorers)) + "|"]
    for group in groups:
        stacked = np.stack([result.ordered[ladder] for ladder in GROUPS[group]]) / PAIRS  # (ladders, contents, scorers)
        pairs = PAIRS * len(result.contents)
        for ladder, shares in zip(GROUPS[group], stacked, strict=True):
            lines.append(f"| {ladder} | {pairs} | {' | '.join(f'{share:.3f}' for share in shares.mean(0))} |")
        cells = []
        for by_content in stacked.mean(0).T:
            low, high = interval(by_content)
            cells.append(f"**{by_content.mean():.3f}** ({low:.3f}–{high:.3f})")
        lines.append(f"| **mean, {TITLES[group]}** | {pairs * len(stacked)} | {' | '.join(cells)} |")
    lines.append("\nIn brackets: bootstrap 95 % interval over contents.")
    if "bar" in groups and "lite" in result.scorers:
        column = result.scorers.index("lite")
        share = float(np.mean([result.ordered[ladder][:, column] for ladder in GROUPS["bar"]])) / PAIRS
        lines.append(
            f"Bar, lite at least {BAR:.0%} on its ladders: {'met' if share >= BAR else 'MISSED'} ({share:.1%})."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
