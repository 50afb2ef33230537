"""Several scorers as one.

"calibrated" averages the members' percentiles, so that a score means the same in every group. "rank" and
"zscore" compare the pictures of one call, which also works for members that were never calibrated.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import PIL.Image
import torch

from ..arguments.numbers import real_number
from ..arguments.options import shown
from ..compute.caller_state import as_loaded
from ..errors import MaAgiqaError
from ..pictures.groups import picture_groups
from ..pictures.inputs import Picture, PictureError, PictureInput, Pictures, as_picture_list, path_text
from ..pictures.prompts import Prompts, check_score_options, resolve_prompts
from .identity import scorer_identity, scorer_settings
from .picture_scorer import score_again
from .scorer import Scorer, ScorerInfo, as_scores


class EnsembleScorer:
    """The weighted mean of several scorers, itself a `Scorer`.

    Args:
        members: Scorers with their weights, above 0.
        combine: "calibrated": mean percentile, 0 to 1. "rank": mean rank in the group, 0 to 1, ties
            averaged, 1 is best. "zscore": mean of (score - mean) / standard deviation in the group.
            A group is one `score` call, or the pictures of one prompt in it where prompts are given.

    Raises:
        ValueError: No members, a weight that is not finite and positive, an unknown `combine`, or
            "calibrated" with a member that has no percentiles.
    """

    def __init__(self, members: Iterable[tuple[Scorer, float]], combine: str = "calibrated") -> None:
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
        self.info = _ensemble_info(self._members, combine)

    @property
    def settings(self) -> tuple[str, ...]:
        """What the revision does not say of its members, for `scorer_identity`."""
        return tuple(f"({scorer_identity(member)})" for member, _ in self._members if scorer_settings(member))

    def score(
        self,
        images: Pictures,
        prompts: Prompts = None,
        batch_size: int | None = None,
        on_error: str = "raise",
    ) -> torch.Tensor:
        """Scores pictures; see `Scorer.score`.

        A picture that any member scores NaN is NaN and left out of its group. Files are decoded once for all members,
        a few at a time; only members that are relative and no ensembles read them again, all of them at once.
        """
        check_score_options(batch_size, on_error)
        pictures = as_picture_list(images)
        texts = resolve_prompts(prompts, len(pictures), self.info.needs_prompt)
        given = images if isinstance(images, torch.Tensor) and images.ndim == 4 else pictures
        has_files = any(path_text(picture) is not None for picture in pictures)
        scorers = {id(scorer): scorer for scorer in self._scorers()}
        apart = {key: scorer for key, scorer in scorers.items() if has_files and not scorer.info.relative}
        scored = _scored_in_groups(list(apart.values()), pictures, texts, batch_size, on_error)
        columns = dict(zip(apart, scored, strict=True))
        for key, scorer in scorers.items():
            if key not in apart:
                returned = scorer.score(given, texts, batch_size, on_error)
                columns[key] = as_scores(returned, len(pictures), scorer.info.name)
        return self._combined(columns, texts)

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


def _scored_in_groups(
    scorers: Sequence[Scorer],
    pictures: Sequence[PictureInput],
    texts: list[str] | None,
    batch_size: int | None,
    on_error: str,
) -> list[torch.Tensor]:
    """The scores (N,) of each scorer, none of which is relative; a group is decoded once and then forgotten.

    Raises:
        PictureError: A picture cannot be read or scored, and `on_error` is "raise".
    """
    columns = [torch.full((len(pictures),), math.nan) for _ in scorers]
    for group in picture_groups(pictures) if scorers else ():
        readable = [picture for picture in group if picture.error is None]
        rows = [picture.index for picture in readable]
        opened = [_opened(picture, pictures[picture.index]) for picture in readable]
        prompts = [texts[row] for row in rows] if texts else None
        for scorer, column in zip(scorers, columns, strict=True):
            if opened:
                returned = scorer.score(opened, prompts, batch_size, "nan")
                column[rows] = as_scores(returned, len(rows), scorer.info.name)
        if on_error == "raise":
            _raise_first(group, dict(zip(rows, opened, strict=True)), scorers, columns, texts)
    return columns


def _opened(picture: Picture, given: PictureInput) -> PictureInput:
    """A file's pixels, as every kind of scorer takes them; anything else as it was given."""
    if picture.path is None or picture.pixels is None:
        return given
    return PIL.Image.fromarray(picture.pixels.movedim(0, -1).numpy())


def _raise_first(
    group: Sequence[Picture],
    opened: dict[int, PictureInput],
    scorers: Sequence[Scorer],
    columns: Sequence[torch.Tensor],
    texts: list[str] | None,
) -> None:
    """Raises for the first picture without a score, if there is one; its scorer is asked again for the reason."""
    for picture in group:
        index = picture.index
        if picture.error is not None:
            raise PictureError(index, picture.path, picture.error)
        failed = next((s for s, column in zip(scorers, columns, strict=True) if column[index].isnan()), None)
        if failed is not None:
            outcome = score_again(failed, opened[index], texts[index] if texts else None)
            reason = outcome if isinstance(outcome, str) else f"{failed.info.name} has no finite score for it"
            raise PictureError(index, picture.path, reason)


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
