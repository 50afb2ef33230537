"""What a rule keeps and costs, against a plain loop over prompts and candidates."""

import numpy as np
import pytest

from ma_agiqa_core.generation.planning.replay import Rule, Stage, replay

FRACTIONS = np.array([0.2, 0.5, 0.8])
RULES: list[Rule] = [
    (),
    (Stage(0, 3),),
    (Stage(0, 4), Stage(2, 1)),
    (Stage(0, margin=1.5), Stage(1, margin=0.5), Stage(2, margin=0.1)),
    (Stage(0, 5, 2.0), Stage(1, 2, 0.7)),
]


def by_hand(rule: Rule, previews: np.ndarray, final: np.ndarray, preview_cost: float) -> tuple[float, float]:
    rows, cost, before = list(range(len(final))), 0.0, 0.0
    for stage in rule:
        cost += len(rows) * (FRACTIONS[stage.place] - before + preview_cost)
        before = FRACTIONS[stage.place]
        scores = previews[stage.place]
        best = max(scores[row] for row in rows)
        if stage.margin is not None:
            rows = [row for row in rows if scores[row] >= best - stage.margin]
        rows = sorted(sorted(rows, key=lambda row: (-scores[row], row))[: stage.keep])
    return max(final[rows]) - final.mean(), (cost + len(rows) * (1 - before)) / len(final)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("preview_cost", [0.0, 0.03])
def test_gain_and_cost_are_those_of_a_plain_loop(rule, preview_cost):
    random = np.random.default_rng(0)
    finals = random.normal(size=(20, 6)).round(1)  # some are equal
    previews = (finals[:, None] + random.normal(size=(20, 3, 6))).round(1)
    gain, cost = replay(rule, previews, finals, FRACTIONS, preview_cost)
    for prompt in range(20):
        assert (gain[prompt], cost[prompt]) == pytest.approx(
            by_hand(rule, previews[prompt], finals[prompt], preview_cost)
        )
