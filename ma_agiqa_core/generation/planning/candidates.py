"""The ways to prune that are tried: schedules of one and two stages, and margins, alone or with one limit of a count.

A margin drops whoever trails the best preview by more than so many times what a preview of that step can be wrong by.
It keeps many where candidates lie close together and few where one is ahead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from .model import ScoreModel
from .replay import Rule, Stage, full_gain

MOST_KEEP_COUNTS = 8  # tried per stage; with more candidates than that they are spread evenly by their logarithm
MOST_FRACTIONS = 8  # tried; of more, as many spread evenly
KINDS = ("schedule", "margin", "margin and limit")
WIDTHS = np.geomspace(0.5, 3.2, 24)  # of margins, in spreads


@dataclass(frozen=True, eq=False)
class Frontier:
    """The ways worth taking: by rising loss the cheapest that loses no more.

    Attributes:
        rules: The stages of each; the first prunes nothing.
        losses: What the model says that each loses of the full gain, 0 to 1, ascending.
        costs: What it costs, of finishing all, descending.
    """

    rules: tuple[Rule, ...]
    losses: np.ndarray
    costs: np.ndarray

    def cheapest(self, loss: float) -> int:
        """Which of them is the cheapest that loses no more than this."""
        return int(np.searchsorted(self.losses, loss + 1e-12, side="right")) - 1


def frontiers(
    model: ScoreModel, places: list[int], fractions: np.ndarray, deviates: np.ndarray, preview_cost: float = 0.0
) -> dict[str, Frontier]:
    """Tries all ways on groups drawn from the model; gives a frontier for each kind of them.

    Args:
        model: Of the scores.
        places: Which fractions may be pruned at, ascending.
        fractions: (F,) of the evaluations.
        deviates: (G, F + 1, n), see `ScoreModel.draw`.
        preview_cost: See `replay`.
    """
    previews, finals = model.draw(deviates)
    full = full_gain(finals).sum()
    kinds: dict[str, list[tuple[float, float, Rule]]] = {kind: [(0.0, 1.0, ())] for kind in KINDS}
    if full > 0:
        tried = schedules(places, previews, finals, fractions, preview_cost)
        margins = (
            one
            for some in _subsets(places, preview_cost)
            for one in _margins(model.spreads, some, previews, finals, fractions, preview_cost)
        )
        for rule, gain, cost in chain(tried, margins):
            kinds[_kind(rule)].append((max(1 - gain / full, 0.0), cost, rule))
    return {kind: _frontier(tried) for kind, tried in kinds.items()}


def _kind(rule: Rule) -> str:
    if rule[0].margin is None:
        return KINDS[0]
    return KINDS[1] if all(stage.keep is None for stage in rule) else KINDS[2]


def _frontier(tried: list[tuple[float, float, Rule]]) -> Frontier:
    tried.sort(key=lambda one: (one[0], one[1], len(one[2])))
    kept = [tried[0]]
    for one in tried[1:]:
        if one[1] < kept[-1][1]:
            kept.append(one)
    losses, costs, rules = zip(*kept, strict=True)
    return Frontier(rules, np.array(losses), np.array(costs))


def keep_counts(n: int) -> list[int]:
    """The keep counts that are tried, ascending, each below n."""
    if n - 1 <= MOST_KEEP_COUNTS:
        return list(range(1, n))
    return sorted({round(k) for k in np.geomspace(1, n - 1, MOST_KEEP_COUNTS)})


def thinned(places: list[int]) -> list[int]:
    """At most MOST_FRACTIONS of them, spread evenly, the last among them."""
    if len(places) <= MOST_FRACTIONS:
        return places
    return [places[round(i)] for i in np.linspace(0, len(places) - 1, MOST_FRACTIONS)]


Tried = Iterator[tuple[Rule, float, float]]
"""Rule, sum of gains, mean cost."""


def schedules(
    places: list[int], previews: np.ndarray, finals: np.ndarray, fractions: np.ndarray, preview_cost: float
) -> Tried:
    """All with one and two stages. One sorting serves every count that is kept by it."""
    n = finals.shape[1]
    counts, mean = keep_counts(n), finals.mean(1).sum()
    for at, first in enumerate(places):
        order, best = _sorted(previews[:, first], finals)
        early = fractions[first] + preview_cost
        for keep in counts:
            left = keep / n
            yield (Stage(first, keep),), best[keep - 1] - mean, early + left * (1 - fractions[first])
            rows = order[:, :keep]
            some = np.take_along_axis(finals, rows, 1)
            for second in places[at + 1 :]:
                _, best_of_some = _sorted(np.take_along_axis(previews[:, second], rows, 1), some)
                middle = early + left * (fractions[second] - fractions[first] + preview_cost)
                for last in counts:
                    if last < keep:
                        cost = middle + last / n * (1 - fractions[second])
                        yield (Stage(first, keep), Stage(second, last)), best_of_some[last - 1] - mean, cost


def _margins(
    spreads: np.ndarray,
    places: list[int],
    previews: np.ndarray,
    finals: np.ndarray,
    fractions: np.ndarray,
    preview_cost: float,
) -> Tried:
    """Margins of all widths at these places, with and without a limit at one of them; all widths at once."""
    groups, n = finals.shape
    mean = finals.mean(1).sum()
    counts = [keep for keep in keep_counts(n) if 1 < keep < n - 1]
    margins = WIDTHS[:, None] * spreads  # (W, F)

    def look(place: int, alive: np.ndarray) -> np.ndarray:
        scores = previews[:, place]
        best = np.where(alive, scores, -np.inf).max(-1, keepdims=True)
        wide = margins[:, place].reshape(-1, *[1] * (alive.ndim - 1))
        return alive & (scores >= best - wide)

    def cost_to(place: int, before: float, alive: np.ndarray) -> np.ndarray:
        return alive.mean((-1, -2)) * (fractions[place] - before + preview_cost)

    def ended(alive: np.ndarray, spent: np.ndarray, before: float) -> tuple[np.ndarray, np.ndarray]:
        gains = np.where(alive, finals, -np.inf).max(-1).sum(-1) - mean
        return gains, spent + alive.mean((-1, -2)) * (1 - before)

    def rules(limit: tuple[int, int] | None) -> Iterator[Rule]:
        for row in margins:
            yield tuple(
                Stage(place, limit[1] if limit and limit[0] == place else None, float(row[place])) for place in places
            )

    alive = np.ones((len(WIDTHS), groups, n), dtype=bool)
    spent, before = np.zeros(len(WIDTHS)), 0.0
    for at, place in enumerate(places):
        spent = spent + cost_to(place, before, alive)
        before = float(fractions[place])
        alive = look(place, alive)
        if counts:  # from here on with a limit, for each count
            order = np.argsort(-previews[:, place], axis=1, kind="stable")[None]
            ahead = np.empty(alive.shape, dtype=np.intp)
            np.put_along_axis(ahead, order, np.take_along_axis(alive, order, 2).cumsum(2), 2)
            some = alive[:, None] & (ahead[:, None] <= np.array(counts)[:, None, None])  # (W, K, G, n)
            then, since = np.broadcast_to(spent[:, None], some.shape[:2]), before
            for later in places[at + 1 :]:
                then = then + cost_to(later, since, some)
                since = float(fractions[later])
                some = look(later, some)
            gains, costs = ended(some, then, since)
            for number, keep in enumerate(counts):
                yield from zip(rules((place, keep)), gains[:, number], costs[:, number], strict=True)
    yield from zip(rules(None), *ended(alive, spent, before), strict=True)


def _subsets(places: list[int], preview_cost: float) -> list[list[int]]:
    """Where the margin is looked at: everywhere, and less often where every look costs something."""
    subsets = [places]
    if preview_cost > 0:
        subsets += [places[::-2][::-1], places[::-3][::-1], *([place] for place in places)]
    return [some for at, some in enumerate(subsets) if some and some not in subsets[:at]]


def _sorted(scores: np.ndarray, finals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orders (G, n) by falling score, and by k - 1 the sum of the best finals among the first k."""
    order = np.argsort(-scores, axis=1, kind="stable")
    return order, np.maximum.accumulate(np.take_along_axis(finals, order, 1), axis=1).sum(0)
