"""What a plan does in the loop is what it was replayed to do; budgets and early scorers there."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from ma_agiqa_core import CallableScorer
from ma_agiqa_core.generation import PruningPlan, QualityFilterCallback, best_of_n, calibrate, plan_pruning
from ma_agiqa_core.generation.planning.plan import Basis
from ma_agiqa_core.generation.planning.replay import Rule, Stage
from ma_agiqa_core.generation.pruning.rule import is_out, kept_rows
from ma_agiqa_core.generation.pruning.schedule import PruneSchedule

SIZE: dict[str, Any] = {"height": 16, "width": 16}
FRACTIONS = (0.25, 0.5, 0.75)
CALL: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 1.0, **SIZE}
PROMPT = "a red fox"


def brightness(pictures: Any, prompts: object) -> list[float]:
    return [float(np.asarray(picture).mean()) for picture in pictures]


BRIGHT = CallableScorer(brightness, name="bright", high=255.0)


@pytest.fixture(scope="module")
def pipe(tiny_pipelines: ModuleType) -> Any:
    return tiny_pipelines.pipeline("sd")


@pytest.fixture(scope="module")
def report(pipe: Any) -> Any:
    return calibrate(pipe, BRIGHT, PROMPT, n=6, fractions=FRACTIONS, **CALL)


def plan_of(rule: Rule, n: int = 6) -> PruningPlan:
    return PruningPlan(rule, n, 1.0, 1.0, None, Basis(np.array(FRACTIONS), FRACTIONS))


def widths(report: Any, share: float) -> list[float]:
    """A part of the range of each fraction's previews."""
    return [float(np.ptp(row) * share) for row in report.measured.previews[0]]


@pytest.mark.parametrize("strategy", ["batch", "sequential"])
@pytest.mark.parametrize("batch_size", [6, 2])
def test_best_of_n_does_what_was_replayed(pipe, report, strategy, batch_size):
    near = widths(report, 0.4)
    plan = plan_of((Stage(0, None, near[0]), Stage(1, 4, near[1]), Stage(2, None, near[2] / 8)))
    given: dict[str, Any] = {"n": 6, "batch_size": batch_size, "strategy": strategy, **CALL}
    result = best_of_n(pipe, BRIGHT, PROMPT, prune_at=plan, **given)
    again = best_of_n(pipe, BRIGHT, PROMPT, prune_at=plan.prune_at, **given)  # it carries the margins
    assert (again.seeds, again.history) == (result.seeds, result.history)
    gain, cost = plan.apply(report.measured.previews, report.measured.final)
    assert result.scores[0] - report.measured.final.mean() == pytest.approx(gain[0], abs=0.1)
    assert 1 <= len(result.history[-1].kept) < 6
    if strategy == "batch":
        assert result.network_evaluations == round(cost[0] * 24)


def test_as_many_as_are_wanted_stay_whatever_the_margin(pipe):
    result = best_of_n(pipe, BRIGHT, PROMPT, n=6, keep=3, prune_at=plan_of((Stage(1, None, 0.0),)), **CALL)
    assert len(result.images) == 3


def test_the_callback_takes_a_plan(pipe, report):
    plan = plan_of((Stage(0, None, widths(report, 0.3)[0]), Stage(2, 2)))
    with QualityFilterCallback(pipe, BRIGHT, prune_at=plan) as callback:
        pipe(
            PROMPT,
            num_images_per_prompt=6,
            generator=[torch.Generator("cpu").manual_seed(row) for row in range(6)],
            callback_on_step_end=callback,
            callback_on_step_end_tensor_inputs=callback.tensor_inputs,
            **CALL,
        )
    scores = callback.history[0].scores
    best = max(scores.values())
    near = widths(report, 0.3)[0]
    # the callback gives floats from 0 to 1, calibrate 8 bits
    assert callback.history[0].kept == tuple(row for row in range(6) if scores[row] >= best - near)
    assert len(callback.survivors) <= 2


def test_a_budget_is_what_finishing_as_many_would_take(pipe):
    random = np.random.default_rng(0)
    finals = random.normal(size=(30, 4))
    previews = finals[:, None] + random.normal(size=(30, 3, 4)) * np.array([1.0, 0.3, 0.1])[:, None]
    plan = plan_pruning(previews, finals, FRACTIONS)
    result = best_of_n(pipe, BRIGHT, PROMPT, budget=4, prune_at=plan, **CALL)
    assert len(result.history[0].scores) == plan.for_budget(4).n > 4
    assert 12 < result.network_evaluations <= 16
    with pytest.raises(ValueError, match=r"Expected a plan as prune_at with budget=4, got \{0.5: 2\}"):
        best_of_n(pipe, BRIGHT, PROMPT, budget=4, prune_at={0.5: 2}, **CALL)


class Dark:
    """The opposite of brightness, and which fractions it was asked for."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def at(self, fraction: float) -> CallableScorer:
        self.asked.append(fraction)
        return CallableScorer(lambda p, t: [-x for x in brightness(p, t)], name="dark", low=-255.0)


@pytest.mark.parametrize("strategy", ["batch", "sequential"])
def test_an_early_scorer_judges_the_previews_and_only_them(pipe, strategy):
    early = Dark()
    given: dict[str, Any] = {"n": 4, "strategy": strategy, "prune_at": {0.5: 2, 0.75: 1}, **CALL}
    result = best_of_n(pipe, BRIGHT, PROMPT, early_scorer=early, **given)
    plain = best_of_n(pipe, early.at(0.5), PROMPT, **given)
    assert result.seeds == plain.seeds
    assert result.scores[0] == pytest.approx(-plain.scores[0])
    assert {0.5, 0.75} == set(early.asked)
    with pytest.raises(ValueError, match="prune_at with early_scorer, got none"):
        best_of_n(pipe, BRIGHT, PROMPT, early_scorer=early, n=2, **CALL)
    with pytest.raises(ValueError, match=r"early_scorer with \.info and \.score, got 3"):
        best_of_n(pipe, BRIGHT, PROMPT, early_scorer=3, **given)
    with pytest.raises(ValueError, match=r"Expected counts with early_scorer, got the margins \[0\.5\], .* of bright"):
        best_of_n(pipe, BRIGHT, PROMPT, early_scorer=early, **given | {"prune_at": plan_of((Stage(1, None, 0.5),), 4)})


def test_the_callbacks_early_scorer(pipe):
    survivors = []
    for scorer, early in ((BRIGHT, Dark()), (Dark().at(0.5), None)):
        with QualityFilterCallback(pipe, scorer, prune_at={0.5: 1}, early_scorer=early) as callback:
            pipe(
                PROMPT,
                num_images_per_prompt=4,
                generator=[torch.Generator("cpu").manual_seed(row) for row in range(4)],
                callback_on_step_end=callback,
                callback_on_step_end_tensor_inputs=callback.tensor_inputs,
                **CALL,
            )
        survivors.append(callback.survivors)
    assert survivors[0] == survivors[1]


def test_rows_that_trail_by_more_than_the_margin_go():
    scores = {0: 1.0, 1: 0.5, 2: 0.9, 3: -1.0}
    assert kept_rows(scores, 4, margin=0.2) == [0, 2]
    assert kept_rows(scores, 1, margin=0.2) == [0]
    assert kept_rows(scores, 4, margin=0.2, least=3) == [0, 1, 2]
    assert kept_rows(scores, 4, margin=0.2, groups={0: "a", 1: "b", 2: "a", 3: "b"}) == [0, 1, 2]
    assert is_out([0.5], [[0.8]], 4, margin=0.2)
    assert not is_out([0.5], [[0.6]], 4, margin=0.2)
    assert not is_out([0.9, 0.5], [[0.8, 0.8]], 4, margin=0.2)  # it may have been dropped before
    assert not is_out([0.5], [[0.8]], 4, margin=0.2, least=2)


def test_stopping_one_by_one_leaves_what_pruning_together_leaves():
    """Against all candidates at once, by chance many times over: nobody is stopped who would have stayed."""
    random = np.random.default_rng(0)
    for _ in range(300):
        scores = random.normal(size=(6, 3))
        margins, keep = random.uniform(0, 2, 3), sorted(random.integers(1, 7, 3), reverse=True)
        alive = list(range(6))
        for stage in range(3):
            alive = kept_rows({row: scores[row, stage] for row in alive}, keep[stage], margin=margins[stage])
        for row in alive:
            for stage in range(3):
                earlier = [list(scores[other, :3]) for other in range(row)]
                assert not is_out(list(scores[row, : stage + 1]), earlier, keep[stage], margin=margins[stage])


def test_plans_are_read_with_their_margins():
    plan = plan_of((Stage(0, None, 0.5), Stage(1, 3)))
    schedule = PruneSchedule.of(plan)
    assert schedule.stages == ((0.25, 6), (0.5, 3))
    assert schedule.margins == (0.5, None)
    assert PruneSchedule.of(plan.prune_at) == schedule
    with pytest.raises(ValueError, match="at most 4 candidates"):
        schedule.check(4, 1)
