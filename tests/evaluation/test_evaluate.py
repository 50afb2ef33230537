"""Figures against scipy, their intervals against scipy's bootstrap, and choices within a prompt counted by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from ma_agiqa_core import metrics
from ma_agiqa_core.evaluation.agreement import FIGURES, Agreement, agreement
from ma_agiqa_core.evaluation.bootstrap import draw_counts, krcc_of_resamples, srcc_of_resamples
from ma_agiqa_core.evaluation.evaluate import Evaluation, evaluate
from ma_agiqa_core.evaluation.scatter_plot import draw_scatter
from ma_agiqa_core.evaluation.text import evaluation_text, latex_rows, markdown_rows
from ma_agiqa_core.evaluation.within_prompt import within_prompt


def noisy_predictions(n: int, decimals: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Predictions with ties, and labels from 0 to 5."""
    random = np.random.default_rng(n)
    labels = random.random(n) * 5
    return np.round(labels + random.normal(size=n), decimals), labels


@pytest.mark.parametrize("name", FIGURES)
def test_intervals_are_those_of_scipys_bootstrap(name: str) -> None:
    predictions, labels = noisy_predictions(60)
    settings = {"fit": True} if name in ("plcc", "rmse") else {}
    expected = scipy.stats.bootstrap(
        (predictions, labels),
        lambda x, y: getattr(metrics, name)(x, y, **settings),
        paired=True,
        vectorized=False,
        n_resamples=100,
        method="percentile",
        random_state=np.random.default_rng(3),
    ).confidence_interval
    figure = getattr(agreement(predictions, labels, resamples=100, seed=3), name)
    assert figure.value == pytest.approx(getattr(metrics, name)(predictions, labels, **settings), abs=1e-12)
    assert (figure.low, figure.high) == pytest.approx(tuple(expected), abs=1e-4)  # two searches for a fit


def test_every_resample_has_scipys_correlations() -> None:
    predictions, labels = noisy_predictions(40, decimals=0)
    labels = np.round(labels)
    counts = draw_counts(40, 25, seed=0)
    assert (counts.sum(1) == 40).all()
    srcc, krcc = (of(counts, predictions, labels) for of in (srcc_of_resamples, krcc_of_resamples))
    for count, spearman, kendall in zip(counts, srcc, krcc, strict=True):
        x, y = (np.repeat(values, count.astype(int)) for values in (predictions, labels))
        assert spearman == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)
        assert kendall == pytest.approx(scipy.stats.kendalltau(x, y).statistic, abs=1e-12)


def test_large_sets_are_worked_through_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, labels = noisy_predictions(50)
    whole = agreement(predictions, labels, resamples=64)
    monkeypatch.setattr("ma_agiqa_core.evaluation.bootstrap._NUMBERS_AT_ONCE", 150)
    monkeypatch.setattr("ma_agiqa_core.evaluation.bootstrap._PAIRS_AT_ONCE", 350)
    parts = agreement(predictions, labels, resamples=64)
    for name in FIGURES:
        assert getattr(parts, name) == pytest.approx(getattr(whole, name))


def test_the_seed_decides() -> None:
    pair = noisy_predictions(30)
    first = agreement(*pair, seed=1, resamples=100)
    assert agreement(*pair, seed=1, resamples=100) == first
    assert agreement(*pair, seed=2, resamples=100).srcc != first.srcc


@pytest.mark.parametrize(
    ("predictions", "labels", "reason"),
    [
        ([1, 2, 3, 4], [3, 3, 3, 3], "all 4 labels are 3: correlation is undefined"),
        ([2.5] * 4, [1, 2, 3, 4], "all 4 predictions are 2.5: correlation is undefined"),
        ([1], [1], "1 picture: correlation needs two or more"),
        ([], [], "0 pictures: correlation needs two or more"),
        ([1, 2, 3], [1, 3, 2], "3 pictures: the fit behind PLCC and RMSE needs 4"),
    ],
)
def test_what_is_undefined_is_said(predictions: list[float], labels: list[float], reason: str) -> None:
    measured = agreement(predictions, labels)
    assert measured.undefined == reason
    assert measured.plcc.value is None
    facts = json.loads(json.dumps(measured.to_dict(), allow_nan=False))
    assert facts["plcc"] is None
    assert facts["intervals"]["plcc"] is None
    text = evaluation_text(evaluate(predictions, labels, name="set"))
    assert reason in text
    assert "undefined" in text
    assert "nan" not in text.lower()


def test_few_pictures_have_figures_without_an_interval() -> None:
    measured = agreement([1, 2, 3, 5], [1, 2, 4, 3])
    assert measured.srcc.value == pytest.approx(0.8)
    assert measured.plcc.value is not None
    assert measured.plcc.low is None


@pytest.mark.parametrize("n", [4, 6, 30])
def test_backwards_scores_claim_no_agreement(n: int) -> None:
    labels = np.random.default_rng(n).random(n) * 5
    evaluation = evaluate(-labels, labels, resamples=50)
    for name in ("srcc", "plcc", "krcc"):
        figure = getattr(evaluation.overall, name)
        assert figure.value == pytest.approx(-1, abs=0.01)
        assert figure.high is None or figure.high < -0.9
    assert evaluation.overall.rmse.value == pytest.approx(labels.std())
    assert evaluation.overall.to_dict()["note"] == evaluation.overall.note
    assert "higher predictions go with lower labels" in evaluation_text(evaluation)


def test_what_few_pictures_are_worth_is_said() -> None:
    labels = np.arange(16.0)
    evaluation = evaluate(labels + labels % 3, labels, resamples=50, generators=[*"mmmmmmmmmmmffftt"])
    text = evaluation_text(evaluation)
    for said in ("f: 3 pictures have no intervals, their figures are mostly chance", "t: 2 pictures have no"):
        assert said in text
    assert "m: " not in text
    six = agreement([1, 2, 3, 5, 4, 6], [1, 2, 4, 3, 6, 5], resamples=200)
    assert "6 pictures are too few for the 4-parameter fit (10)" in six.note
    assert six.fit is None
    assert six.plcc.value == pytest.approx(metrics.plcc([1, 2, 3, 5, 4, 6], [1, 2, 4, 3, 6, 5]))
    assert six.rmse.low is not None
    assert six.rmse.high is not None
    assert six.rmse.value is not None
    assert six.rmse.low <= six.rmse.value <= six.rmse.high


def test_choosing_within_prompts_is_counted_as_defined() -> None:
    prompts = ["a", "a", "a", "b", "b", "c", "d", "d", None, " "]
    labels = [1.0, 2.0, 3.0, 1.0, 5.0, 9.0, 2.0, 2.0, 0.0, 0.0]
    #             a: the second is picked   b: tied   c: alone   d: nothing to choose
    predictions = [0.0, 2.0, 1.0, 7.0, 7.0, 1.0, 1.0, 2.0, 0.0, 9.0]
    within = within_prompt(predictions, labels, prompts)
    assert (within.prompts, within.pictures, within.k, within.left_out) == (2, 5, (2, 3), 2)
    assert within.best_picked.value == pytest.approx((0 + 1 / 2) / 2)
    assert within.by_chance == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert within.share_of_gain.value == pytest.approx((0 + 0) / (1 + 2))
    assert within.srcc.value == pytest.approx((scipy.stats.spearmanr([0, 2, 1], [1, 2, 3]).statistic + 0) / 2)


def test_choosing_right_and_wrong() -> None:
    labels = np.tile([1.0, 2.0, 3.0, 4.0], 10)
    prompts = [str(i // 4) for i in range(40)]
    right, wrong = (within_prompt(sign * labels, labels, prompts) for sign in (1, -1))
    for figure in (right.best_picked, right.share_of_gain, right.srcc):
        assert (figure.value, figure.low, figure.high) == pytest.approx((1, 1, 1))
    assert (wrong.best_picked.value, wrong.share_of_gain.value, wrong.srcc.value) == pytest.approx((0, -1, -1))
    assert right.by_chance == 0.25


def test_an_interval_over_prompts_is_that_of_scipys_bootstrap() -> None:
    predictions, labels = noisy_predictions(90)
    prompts = [str(i // 3) for i in range(90)]
    each = [scipy.stats.spearmanr(predictions[i : i + 3], labels[i : i + 3]).statistic for i in range(0, 90, 3)]
    expected = scipy.stats.bootstrap(
        (np.nan_to_num(each),), np.mean, n_resamples=500, method="percentile", random_state=np.random.default_rng(20)
    ).confidence_interval
    srcc = within_prompt(predictions, labels, prompts, resamples=500).srcc
    assert (srcc.low, srcc.high) == pytest.approx(tuple(expected))


def test_no_prompt_leaves_anything_to_choose() -> None:
    evaluation = evaluate([1, 2, 3, 4], [2, 2, 5, 5], prompts=["a", "a", "b", "b"])
    assert evaluation.within_prompt is not None
    assert evaluation.within_prompt.share_of_gain.value is None
    assert "nothing to choose" in evaluation_text(evaluation)
    json.dumps(evaluation.to_dict(), allow_nan=False)
    assert evaluate([1, 2], [1, 2], prompts=["a", "b"]).within_prompt is None


def test_failed_pictures_are_counted_and_left_out() -> None:
    predictions, labels = noisy_predictions(20)
    predictions[[3, 7]] = np.nan
    generators = ["x", "y"] * 10
    evaluation = evaluate(predictions, labels, name="set", generators=generators, resamples=50)
    keep = np.isfinite(predictions)
    assert evaluation.failed == 2
    assert evaluation.overall == agreement(predictions[keep], labels[keep], resamples=50)
    assert {name: group.n for name, group in evaluation.by_generator.items()} == {"x": 10, "y": 8}
    assert "18 pictures (2 more could not be scored)" in evaluation_text(evaluation)
    assert evaluate(predictions, labels, generators=["x"] * 20, resamples=0).by_generator == {}


def test_sequences_of_unlike_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \(3,\), \(2,\), 2 and 2"):
        evaluate([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match=r"got \(2,\), \(2,\), 1 and 2"):
        evaluate([1, 2], [1, 2], generators=["a"])


def test_rows_for_a_paper() -> None:
    predictions, labels = noisy_predictions(50)
    evaluation = evaluate(predictions, 30 * labels, name="set_1", resamples=50)
    undefined = evaluate([1, 1], [1, 2], name="other")
    header, ruler, row, empty = markdown_rows("my|model", [evaluation, undefined]).splitlines()
    assert header == "| model | test set | n | SRCC | PLCC | KRCC | RMSE |"
    assert ruler.count("---") == 7
    assert row.startswith(rf"| my\|model | set_1 | 50 | {metrics.srcc(predictions, labels):.4f}".replace("0.", "."))
    assert f"{metrics.rmse(predictions, 30 * labels, fit=True):.4f} [" in row  # 30.1234 keeps its 0
    assert empty == "| my\\|model | other | 2 | – | – | – | – |"
    comment, row = latex_rows("100%_best", [evaluation]).splitlines()
    assert comment.startswith("% model & test set")
    assert row.startswith(r"100\%\_best & set\_1 & 50 & .")
    assert row.endswith(r"] \\")


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_the_scatter_is_drawn(tmp_path: Path, ending: str) -> None:
    predictions, labels = noisy_predictions(40)
    first = evaluate(predictions, labels, name="a $ set", generators=["_x", "y$"] * 20, resamples=20)
    second = evaluate([1, 1, 1], [1, 2, 3], name="nothing to fit")
    file = tmp_path / f"scatter{ending}"
    draw_scatter([first, second, Evaluation("empty", np.array([]), np.array([]), (), Agreement(0))], file, model="m_$")
    assert file.stat().st_size > 5000
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(ValueError, match=r"\.png, \.svg, \.pdf, got .*scatter\.txt"):
        draw_scatter([first], tmp_path / "scatter.txt")
    with pytest.raises(ValueError, match="got none"):
        draw_scatter([], file)


def test_too_few_to_resample_have_no_interval() -> None:
    few = agreement([1, 2, 3, 4], [1, 3, 2, 4])
    assert (few.srcc.value, few.srcc.low) == (pytest.approx(0.8), None)
    one = within_prompt([1, 2, 3], [1, 2, 3], ["a", "a", "a"])
    assert (one.best_picked.value, one.best_picked.low, one.share_of_gain.low) == (1, None, None)
