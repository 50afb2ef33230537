"""Several scorers as one.

"calibrated" averages the members' percentiles, so that a score means the same in every group. "rank" and
"zscore" compare the pictures of one call, which also works for members that were never calibrated.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from ..arguments.numbers import real_number
from ..arguments.options import shown
from ..compute.caller_state import as_loaded
from ..errors import MaAgiqaError
from ..pictures.inputs import Picture
from .identity import scorer_identity, scorer_settings
from .outcomes import outcomes_of, runs_callers_code
from .picture_scorer import Outcome, PictureScorer, in_groups
from .scorer import Scorer, ScorerInfo


class EnsembleScorer(PictureScorer):
    """The weighted mean of several scorers, itself a `Scorer`.

    Args:
        members: Scorers with their weights, above 0.
        combine: "calibrated": mean percentile, 0 to 1. "rank": mean rank in the group, 0 to 1, ties
            averaged, 1 is best. "zscore": mean of (score - mean) / standard deviation in the group.
            A group is one `score` call, or the pictures of one prompt in it where prompts are given.

    Raises:
        ValueError: No members, a weight that is not finite and positive, an unknown `combine`, or
            "calibrated" with a member that has no percentiles.

    Example:
        >>> from ma_agiqa_core import CallableScorer
        >>> bright = CallableScorer(lambda images, prompts: images.mean(dim=(1, 2, 3)), name="bright")
        >>> red = CallableScorer(lambda images, prompts: images[:, 0].mean(dim=(1, 2)), name="red")
        >>> ensemble = EnsembleScorer([(bright, 1), (red, 3)], combine="rank")
        >>> shades = torch.tensor([[0.2, 0.2, 0.2], [0.9, 0.1, 0.1], [0.6, 0.6, 0.6]])
        >>> ensemble.score(shades[:, :, None, None].expand(3, 3, 8, 8))
        tensor([0.0000, 0.8750, 0.6250])
    """

    def __init__(self, members: Iterable[tuple[Scorer, float]], combine: str = "calibrated") -> None:
        if not isinstance(members, Iterable):
            raise MaAgiqaError(f"Expected a list of (scorer, weight), got {shown(members)}.")
        members = tuple(_member(member) for member in members)
        if not members:
            raise MaAgiqaError("Expected at least one (scorer, weight), got none.")
        if combine != "calibrated" and combine not in _IN_GROUP:
            raise MaAgiqaError(f"Expected combine 'calibrated', 'rank' or 'zscore', got {combine!r}.")
        for member, weight in members:
            if not (math.isfinite(weight) and weight > 0):
                raise MaAgiqaError(f"Expected a finite weight above 0, got {weight:g} for {member.info.name}.")
            if combine == "calibrated" and (member.info.relative or not member.info.quantiles):
                lack = "is relative to its group" if member.info.relative else "has no quantiles"
                raise MaAgiqaError(
                    f"Expected calibrated members, got {member.info.name}, which {lack}. "
                    "Use combine='rank' or combine='zscore'."
                )
        self._members = members
        self._combine = combine
        self._info = _ensemble_info(self._members, combine)
        self.is_callers_own = any(runs_callers_code(member) for member, _ in members)

    @property
    def settings(self) -> tuple[str, ...]:
        """What the revision does not say of its members, for `scorer_identity`."""
        return tuple(f"({scorer_identity(member)})" for member, _ in self._members if scorer_settings(member))

    @property
    def info(self) -> ScorerInfo:
        return self._info

    def set_up(self) -> AbstractContextManager[None]:
        """Nothing: members may be the caller's own, and each of ours sets aside what it has to."""
        return nullcontext()

    def outcomes(
        self, pictures: Iterable[Picture], prompts: Sequence[str] | None, batch_size: int | None
    ) -> Iterator[Outcome]:
        """What all members say of every picture; see `PictureScorer.outcomes`.

        A picture that a member has no score for has none, and is left out of its group. Only as many pictures are held
        as fit into memory, unless a member compares them itself: it needs all of them.
        """
        scorers = {id(scorer): scorer for scorer in self._scorers()}
        is_one_group = any(scorer.info.relative for scorer in scorers.values())
        found: list[dict[int, Outcome]] = []
        texts = None if prompts is None else list(prompts)
        for group, of_group in [(list(pictures), texts)] if is_one_group else in_groups(pictures, texts):
            columns = {key: outcomes_of(scorer, group, of_group, batch_size) for key, scorer in scorers.items()}
            rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            if self.info.relative:
                found += rows
            else:
                yield from self._joined(rows, of_group)
        if self.info.relative:
            yield from self._joined(found, texts)

    def _joined(self, rows: Sequence[Mapping[int, Outcome]], texts: list[str] | None) -> list[Outcome]:
        """One outcome from those of each of `_scorers`, by its id, for every picture of a group."""
        reasons = [next((value for value in row.values() if isinstance(value, str)), None) for row in rows]
        columns = {
            id(scorer): torch.tensor(
                [math.nan if reason else row[id(scorer)] for row, reason in zip(rows, reasons, strict=True)],
                dtype=torch.float32,
                device="cpu",
            )
            for scorer in self._scorers()
        }
        scores = self._combined(columns, texts).tolist()
        return [score if reason is None else reason for score, reason in zip(scores, reasons, strict=True)]

    def _scorers(self) -> Iterator[Scorer]:
        """Those that look at pictures: the members, of members that are ensembles theirs."""
        for member, _ in self._members:
            if isinstance(member, EnsembleScorer):
                yield from member._scorers()
            else:
                yield member

    @as_loaded(float32_by_default=False)  # not around the members, which may be the caller's own
    def _combined(self, columns: dict[int, torch.Tensor], texts: list[str] | None) -> torch.Tensor:
        """(N,) float32 from the scores (N,) of each of `_scorers`, by its id."""
        own = [
            member._combined(columns, texts) if isinstance(member, EnsembleScorer) else columns[id(member)]
            for member, _ in self._members
        ]
        scores = torch.stack(own, dim=1).double()  # (N, members)
        valid = ~scores.isnan().any(dim=1)
        if self._combine == "calibrated":
            for column, (member, _) in enumerate(self._members):
                shares = [(member.info.percentile(score) or 0) / 100 for score in scores[:, column].tolist()]
                scores[:, column] = torch.tensor(shares, dtype=torch.float64)
        else:
            for rows in _groups(texts, valid):
                scores[rows] = _IN_GROUP[self._combine](scores[rows])
        weights = torch.tensor([weight for _, weight in self._members], dtype=torch.float64)
        combined = scores @ (weights / weights.sum())
        return combined.masked_fill(~valid, math.nan).float()


def _member(given: object) -> tuple[Scorer, float]:
    """A member as it was given, its weight as a float."""
    pair = given if isinstance(given, tuple | list) and len(given) == 2 else (given, None)
    scorer, weight = pair[0], real_number(pair[1])
    if not isinstance(scorer, Scorer):
        raise MaAgiqaError(f"Expected (scorer, weight) as a member, got {shown(given)}.")
    if weight is None:
        raise MaAgiqaError(f"Expected ({scorer.info.name}, weight) as a member, got the weight {shown(pair[1])}.")
    return scorer, weight


def _ensemble_info(members: tuple[tuple[Scorer, float], ...], combine: str) -> ScorerInfo:
    infos = [member.info for member, _ in members]
    return ScorerInfo(
        name=f"ensemble({'+'.join(info.name for info in infos)})",
        revision=f"{combine}:" + "+".join(f"{m.info.name}@{m.info.revision}*{weight:g}" for m, weight in members),
        low=-math.inf if combine == "zscore" else 0.0,
        high=math.inf if combine == "zscore" else 1.0,
        trained_on="; ".join(dict.fromkeys(info.trained_on for info in infos if info.trained_on)),
        needs_prompt=any(info.needs_prompt for info in infos),
        relative=combine != "calibrated",
        description=f"{combine} mean of {', '.join(info.name for info in infos)}",
    )


def _groups(texts: list[str] | None, valid: torch.Tensor) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for row in valid.nonzero().flatten().tolist():
        groups.setdefault(texts[row] if texts else "", []).append(row)
    return list(groups.values())


def _ranks(scores: torch.Tensor) -> torch.Tensor:
    """(n, members) -> average ranks per column, scaled to 0..1, 1 is best; a lone picture is best."""
    if len(scores) == 1:
        return torch.ones_like(scores)
    columns = scores.T.contiguous()  # (members, n)
    ordered = columns.sort(dim=1).values
    below, up_to = torch.searchsorted(ordered, columns), torch.searchsorted(ordered, columns, right=True)
    return ((below + up_to - 1).double() / 2 / (len(scores) - 1)).T


def _zscores(scores: torch.Tensor) -> torch.Tensor:
    """(n, members) -> (score - mean) / standard deviation per column, 0 where all are equal."""
    spread = scores.std(dim=0, correction=0)
    differs = scores.amax(dim=0) > scores.amin(dim=0)  # rounding can leave a spread among equals
    return torch.where(differs, (scores - scores.mean(dim=0)) / spread, 0.0)


_IN_GROUP: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"rank": _ranks, "zscore": _zscores}
