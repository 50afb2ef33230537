"""The table, the recommendation, the text, JSON and the plot of a calibration, from made-up scores."""

import json
import math
from typing import Any

import numpy as np
import PIL.Image
import pytest
from scipy.stats import spearmanr

from ma_agiqa_core.generation.calibration.replay import Measured
from ma_agiqa_core.generation.calibration.report import CalibrationReport, Setting, make_report

FRACTIONS = {0.2: 4, 0.5: 10, 0.8: 16}


def report_of(
    prompts: int = 30, n: int = 8, *, final: np.ndarray | None = None, observed: bool = False, **changes: Any
) -> CalibrationReport:
    random = np.random.default_rng(0)
    final = random.normal(5, 1, (prompts, n)) if final is None else final
    previews = np.stack([final + random.normal(0, spread, final.shape) for spread in (3, 1, 0.1)], axis=1)
    measured = Measured(previews, final, np.array([4, 10, 16]) * 2.0 * n, 40.0 * n)
    setting: dict[str, Any] = {
        "pipeline": "StableDiffusionPipeline",
        "scheduler": "DDIMScheduler",
        "n": n,
        "steps": 20,
        "scheduler_calls": 20,
        "fractions": FRACTIONS,
        "seed": 0,
        "arguments": {"guidance_scale": 7.5},
        "preview": "vae",
        "scorer": "lite@1",
        "observer": "clip@2" if observed else None,
        "target_share": 0.9,
    } | changes
    names = tuple(f"prompt {number}" for number in range(len(final)))
    seen = random.normal(30, 1, final.shape) if observed else None
    return make_report(Setting(**setting), names, measured, seen, 0.25)


@pytest.fixture(scope="module")
def report() -> CalibrationReport:
    return report_of(observed=True)


def test_the_table_is_that_of_a_plain_loop(report):
    measured = report.measured
    for index, row in enumerate(report.table):
        pairs = list(zip(measured.previews[:, index], measured.final, strict=True))
        correlations = [spearmanr(preview, final).statistic for preview, final in pairs]
        assert row.rank_correlation == pytest.approx(np.mean(correlations))
        low, high = row.rank_correlation_interval
        assert low < row.rank_correlation < high
        assert high - low == pytest.approx(2 * 1.96 * np.std(correlations, ddof=1) / 30**0.5, rel=0.25)
        for keep in range(1, 8):
            kept = [np.argsort(-preview, kind="stable")[:keep] for preview, _ in pairs]
            survives = [final.argmax() in rows for rows, (_, final) in zip(kept, pairs, strict=True)]
            lost = [final.max() - final[rows].max() for rows, (_, final) in zip(kept, pairs, strict=True)]
            assert row.winner_survives[keep] == pytest.approx(np.mean(survives))
            assert row.regret[keep] == pytest.approx(np.mean(lost))
            assert row.share_of_gain[keep] == pytest.approx(1 - np.mean(lost) / measured.full_gain.mean())
            assert row.cost[keep] == pytest.approx((row.step + (20 - row.step) * keep / 8) / 20)
    assert [row.fraction for row in report.table] == [0.2, 0.5, 0.8]
    assert report.table[0].rank_correlation < report.table[1].rank_correlation < report.table[2].rank_correlation


def test_the_recommendation_keeps_the_wanted_share_and_says_what_it_holds_for(report):
    best = report.recommended
    assert (best.n, best.steps, best.scheduler, best.reason) == (8, 20, "DDIMScheduler", "")
    assert best.share_of_gain >= 0.9
    assert best.share_of_gain_held_out >= 0.9
    assert best.cost < 1
    assert best.network_evaluations == pytest.approx(best.cost * 320)
    assert list(best.prune_at) == sorted(best.prune_at)
    assert list(best.prune_at.values()) == sorted(best.prune_at.values(), reverse=True)
    assert (
        report_of(target_share=0.5).recommended.cost < best.cost < report_of(target_share=1.0).recommended.cost + 1e-9
    )


def test_fractions_at_one_step_are_pruned_at_once():
    report = report_of(fractions={0.49: 10, 0.5: 10, 0.51: 10})
    assert len(report.table) == 3
    assert list(report.recommended.prune_at) in ([], [0.49])


def test_nothing_to_gain():
    report = report_of(final=np.full((3, 4), 5.0), n=4)
    assert report.recommended.prune_at == {}
    assert report.recommended.cost == 1
    assert "score alike" in report.recommended.reason
    assert math.isnan(report.table[0].rank_correlation)
    assert math.isnan(report.table[0].share_of_gain[1])
    assert "prune nothing: all candidates of a prompt score alike" in str(report)
    assert report.to_dict()["table"][0]["rank_correlation"] is None
    assert report.to_dict()["table"][0]["share_of_gain"]["1"] is None


@pytest.mark.parametrize(("prompts", "more"), [(1, 9), (2, 8), (9, 1)])
def test_too_few_prompts(prompts, more):
    report = report_of(prompts)
    assert report.recommended.prune_at == {}
    assert report.recommended.share_of_gain_lower_bound is None
    assert f"prune nothing: {prompts} prompt" in str(report)
    assert f"Take {more} more, 10 at least." in str(report)


def test_a_stranger_can_read_it(report):
    text = str(report)
    assert max(map(len, text.splitlines())) <= 150
    for part in (
        "StableDiffusionPipeline with DDIMScheduler, 20 steps: 30 prompts, best of 8 by lite@1.",
        f"One picture at random scores {report.random:.2f}, the best of 8 {report.best:.2f} (+",
        "for 320 network evaluations.",
        "clip@2, only reported: ",
        "rank correlation",
        "winner survives",
        "regret in score",
        "20% (step 4)",
        "keep 1",
        "keep 4",
        f"Recommended: prune_at={report.recommended.prune_at}",
        "on prompts left out of the choice",
        f"Expect {report.recommended.share_of_gain_lower_bound:.0%} or more on new prompts.",
        "It holds for n=8, 20 steps and DDIMScheduler, and for this scorer.",
        "as long as 0.25 network evaluations",
    ):
        assert part in text
    assert "Only" not in text
    assert "Only 1 prompt: take 20 or more" in str(report_of(1))
    assert "best of 2 by" in str(report_of(3, n=2))


def test_json(report, tmp_path):
    report.save(tmp_path / "report.json")
    saved = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert saved == json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert saved["format"] == 1
    assert {float(f): k for f, k in saved["recommended"]["prune_at"].items()} == report.recommended.prune_at
    assert saved["setting"]["arguments"] == {"guidance_scale": 7.5}
    assert np.array(saved["scores"]["previews"]).shape == (30, 3, 8)
    assert np.array(saved["scores"]["final"]).shape == (30, 8)
    assert len(saved["prompts"]) == 30
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("prompts", [1, 2, 30])
def test_plot(tmp_path, prompts):
    report_of(prompts).plot(tmp_path / "report.png")
    with PIL.Image.open(tmp_path / "report.png") as picture:
        assert picture.format == "PNG"
        assert picture.size[0] > picture.size[1] > 400
        colours = picture.getcolors(1 << 20)
    assert colours is not None
    assert len(colours) > 20


def test_plot_of_nothing_to_gain(tmp_path):
    report_of(final=np.full((3, 4), 5.0), n=4).plot(tmp_path / "report.png")
    assert (tmp_path / "report.png").is_file()
