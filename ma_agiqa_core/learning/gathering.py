"""From picks of files to described pictures and what was said of them, with what was lost or contradicts itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.special import ndtri
from scipy.stats import rankdata

from ..arguments.options import first_names
from ..errors import MaAgiqaError
from ..picks.finding import Found, find_picked
from ..picks.pick import PickedPicture, Picks
from ..pictures.inputs import Picture, iterate_pictures
from ..records.picture_state import picture_digest
from ..records.record import path_text
from ..scorers.picture_features.features import PictureFeatures, unit_range
from ..scorers.prior import Prior
from .copies import COPIES, clusters, joined_groups, thumbnail
from .evidence import Evidence

FEWEST_FOLDERS = 4  # with likes and dislikes in each; fewer do not make folds


@dataclass(frozen=True)
class Gathered:
    """Pictures and evidence.

    Attributes:
        paths: (N) files of the pictures.
        descriptions: (N, D).
        prior: (N,) standardised scores of the prior.
        lite: (N,) standardised scores of lite.
        evidence: On them.
        groups: (N,) that no fold may part.
        grouped_by: What the groups are of, for people: "prompts", "folders" or "pictures".
        moved: Files that were found by their digest.
        missing: Pictures that were not found, by the paths in the picks.
        unreadable: Paths of files that cannot be read, with the reason.
        copies: Pictures that are copies of others.
        contradictions: Pairs that were picked both ways, and pictures that were marked both ways.
        likes: Marks of each kind, of pictures that are there; the last mark of a picture counts.
        dislikes: Likewise.
    """

    paths: tuple[Path, ...]
    descriptions: np.ndarray
    prior: np.ndarray
    lite: np.ndarray
    evidence: Evidence
    groups: np.ndarray
    grouped_by: str
    moved: tuple[str, ...]
    missing: tuple[str, ...]
    unreadable: dict[str, str]
    copies: int
    contradictions: int

    @property
    def likes(self) -> int:
        return int((self.evidence.liked == 1).sum())

    @property
    def dislikes(self) -> int:
        return int((self.evidence.liked == 0).sum())


def gather(
    picks: Picks,
    features: PictureFeatures,
    prior: Prior,
    lite: Prior,
    *,
    bases: Sequence[Path] = (),
    search: Sequence[Path] = (),
    progress: Callable[[Sequence[Path]], Iterable[Path]] = iter,
) -> Gathered:
    """Finds, reads and describes the pictures of picks.

    Args:
        picks: Any.
        features: To describe them by.
        prior: To set out from.
        lite: To compare with.
        bases: Folders that relative paths may be relative to.
        search: Folders in which moved pictures are looked for.
        progress: Wraps the files that are iterated over, to show progress.

    Raises:
        ValueError: No picks, none of whose pictures is there, or nothing that can be learned from.
    """
    if not len(picks):
        raise MaAgiqaError("Expected picks to learn from, got none. Mark some pictures first.")
    found = find_picked(picks.pictures(), bases, search)
    files, row_of = _distinct(found)
    if not files:
        raise MaAgiqaError(
            f"Expected the pictures of {len(found.missing)} picks, got none of them: "
            f"{first_names(picture.path for picture in found.missing)}. Say where they are now (on the command line "
            "--images)."
        )
    described = _Described(files, features, prior, lite, progress)
    rows = {picture: described.kept[row] for picture, row in row_of.items() if row in described.kept}
    thumbnails = np.stack(described.thumbnails) if described.kept else np.zeros((0, 1))
    same = clusters(thumbnails)
    evidence, contradictions = _evidence(picks, rows, same)
    if not evidence.has_both_kinds():
        raise MaAgiqaError(_one_class(evidence, found, described))
    kept = [files[row] for row in described.kept]
    groups, grouped_by = _groups(picks, rows, kept, evidence, thumbnails)
    return Gathered(
        tuple(kept),
        np.stack(described.descriptions),
        np.array(described.prior),
        np.array(described.lite),
        evidence,
        groups,
        grouped_by,
        tuple(picture.path for picture in found.moved),
        tuple(picture.path for picture in found.missing),
        described.unreadable,
        len(kept) - int(same.max() + 1),
        contradictions,
    )


def _distinct(found: Found) -> tuple[list[Path], dict[PickedPicture, int]]:
    """Files of unlike content, and which of them each picture is."""
    files: list[Path] = []
    of_content: dict[str, int] = {}
    row_of = {}
    for picture, path in found.paths.items():
        digest = picture_digest(path)
        if digest not in of_content:
            of_content[digest] = len(files)
            files.append(path)
        row_of[picture] = of_content[digest]
    return files, row_of


class _Described:
    """Files read and described, those that can be.

    Attributes:
        kept: By row of the files the row here.
    """

    def __init__(
        self,
        files: Sequence[Path],
        features: PictureFeatures,
        prior: Prior,
        lite: Prior,
        progress: Callable[[Sequence[Path]], Iterable[Path]],
    ) -> None:
        self.kept: dict[int, int] = {}
        self.thumbnails: list[np.ndarray] = []
        self.descriptions: list[np.ndarray] = []
        self.prior: list[float] = []
        self.lite: list[float] = []
        self.unreadable: dict[str, str] = {}
        for picture in iterate_pictures(progress(files)):
            reason = picture.error or self._add(picture, features, prior, lite)
            if reason is not None:
                self.unreadable[path_text(files[picture.index])] = reason

    def _add(self, picture: Picture, features: PictureFeatures, prior: Prior, lite: Prior) -> str | None:
        description = features.describe_group([picture], 1)[0]
        if isinstance(description, str):
            return description
        outcomes = [each.standardised([picture], description[None])[0] for each in (prior, lite)]
        for outcome in outcomes:
            if isinstance(outcome, str):
                return outcome
        self.kept[picture.index] = len(self.kept)
        self.descriptions.append(description.double().numpy())
        self.prior.append(float(outcomes[0]))
        self.lite.append(float(outcomes[1]))
        self.thumbnails.append(thumbnail(unit_range(picture, torch.device("cpu"))))
        return None


def _evidence(picks: Picks, rows: dict[PickedPicture, int], same: np.ndarray) -> tuple[Evidence, int]:
    """What was said of pictures that are there, and how often it contradicts itself."""
    last: dict[int, bool] = {}
    contradictions = 0
    for mark in picks.marks:
        if (row := rows.get(mark.picture)) is not None:
            contradictions += last.get(row, mark.is_liked) != mark.is_liked
            last[row] = mark.is_liked
    pairs = [(rows[p.better], rows[p.worse]) for p in picks.pairs if p.better in rows and p.worse in rows]
    pairs = [(better, worse) for better, worse in pairs if better != worse]
    times = Counter(pairs)
    for (better, worse), count in times.items():
        contradictions += min(count, times[worse, better]) if better < worse else 0
    ratings: dict[int, list[float]] = {}
    for rating in picks.ratings:
        if (row := rows.get(rating.picture)) is not None:
            ratings.setdefault(row, []).append(rating.value)
    marked, liked = np.array(list(last), int), np.array(list(last.values()), float)
    betters, worses = np.array(pairs, int).reshape(-1, 2).T
    rated = np.array(list(ratings), int)
    evidence = Evidence(
        marked,
        liked,
        _shared(list(zip(same[marked], liked, strict=True))),
        betters,
        worses,
        _shared(list(zip(same[betters], same[worses], strict=True))),
        rated,
        _normal_ranks(np.array([np.mean(values) for values in ratings.values()])),
        _shared(list(same[rated])),
    )
    return evidence, contradictions


def _shared(keys: Sequence[object]) -> np.ndarray:
    """Weights such that equal keys have 1 together."""
    times = Counter(keys)
    return np.array([1 / times[key] for key in keys], float)


def _normal_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks as deviates of the normal distribution, ties averaged: few raters have a scale of equal steps."""
    return ndtri((rankdata(values) - 0.5) / len(values)) if len(values) else values


def _groups(
    picks: Picks,
    rows: dict[PickedPicture, int],
    files: Sequence[Path],
    evidence: Evidence,
    thumbnails: np.ndarray,
) -> tuple[np.ndarray, str]:
    """What no fold may part: prompts, else folders, else single pictures; copies of a picture in any case."""
    copies = clusters(thumbnails, alike=COPIES)
    prompts = {row: picture.prompt for picture, row in rows.items() if picture.prompt is not None}
    if len(prompts) == len(files) and len(set(prompts.values())) > 1:
        names = [prompts[row] or "" for row in range(len(files))]
        return joined_groups(_numbered(names), copies), "prompts"
    folders = _numbered([str(file.parent.absolute()) for file in files])
    if _is_mixed(folders, evidence):
        return joined_groups(folders, copies), "folders"
    return copies, "pictures"


def _numbered(names: Sequence[str]) -> np.ndarray:
    return np.unique(names, return_inverse=True)[1].reshape(len(names))


def _is_mixed(folders: np.ndarray, evidence: Evidence) -> bool:
    """Whether there are enough folders, and picks of both kinds in most: not one of likes and one of dislikes."""
    names = np.unique(folders)
    if len(names) < FEWEST_FOLDERS:
        return False
    return 2 * sum(evidence.within(folders == name).has_both_kinds() for name in names) > len(names)


def _one_class(evidence: Evidence, found: Found, described: _Described) -> str:
    lost = len(found.missing) + len(described.unreadable)
    also = f" Of {lost} more pictures the files are missing or cannot be read." if lost else ""
    if len(evidence.rated):
        return (
            f"Expected unlike ratings to learn from, got {len(evidence.rated)} that are all alike.{also} Rate some "
            "pictures higher or lower."
        )
    if len(evidence.marked):
        kind, other = ("likes", "dislikes") if evidence.liked[0] else ("dislikes", "likes")
        return (
            f"Expected likes and dislikes, got {len(evidence.marked)} {kind} and no {other}.{also} A taste is learned "
            f"from both: mark some pictures with {'d' if kind == 'likes' else 'l'}, too."
        )
    return f"Expected picks of pictures that can be read, got none.{also} Say where they are (--images)."
