"""Early scorers on made-up previews: one learns what the judge cannot see; none where there is nothing."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
from scipy.stats import spearmanr

from ma_agiqa_core import CallableScorer, cli
from ma_agiqa_core.generation import QualityFilterCallback, load_early_scorer
from ma_agiqa_core.generation.early.kept_previews import keep_prompt, read_kept
from ma_agiqa_core.metrics import srcc
from ma_agiqa_core.scorers.lite.student import PARTS
from ma_agiqa_core.training.distillation.early import distill_previews
from ma_agiqa_core.training.distillation.early_students import Lessons, Student, rank_correlations

FRACTIONS = (0.2, 0.6)


def keep(
    folder: Path, prompts: int, *, is_telling: bool, n: int = 6, seed: int = 0, prompt_counts: bool = False
) -> None:
    """Grey noise whose brightness at the left foretells the final score; the judge is misled by the right.

    `prompt_counts`: half of the final score is something that only the judge sees.
    """
    random = np.random.default_rng(seed)
    for number in range(prompts):
        quality = random.normal(size=n)
        shown = quality if is_telling else random.normal(size=n)
        hidden = random.normal(size=n)
        pictures, judged = {}, []
        for fraction in FRACTIONS:
            right = random.normal(size=n)
            pixels = random.normal(128, 10, (n, 16, 16, 1))
            pixels[:, :, :8] += 20 * shown[:, None, None, None]
            pixels[:, :, 8:] += 20 * right[:, None, None, None]
            grey = pixels.clip(0, 255).astype(np.uint8).repeat(3, axis=3)
            pictures[fraction] = [PIL.Image.fromarray(one) for one in grey]
            judged.append(
                hidden + 0.3 * right if prompt_counts else right + 0.2 * quality + 0.5 * random.normal(size=n)
            )
        keep_prompt(
            folder,
            number,
            pictures,
            prompt=f"prompt {number}",
            judge="right@1",
            pipeline="TinyPipeline",
            previews=np.array(judged),
            finals=quality + 10 * number + (hidden if prompt_counts else 0),
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    keep(folder, 15, is_telling=True)
    return folder


def test_what_is_kept_is_read_back(folder):
    kept = read_kept(folder)
    assert [one.prompt for one in kept] == [f"prompt {number}" for number in range(15)]
    assert kept[0].fractions == FRACTIONS
    assert kept[0].previews.shape == (2, 6)
    assert all(file.is_file() for row in kept[0].files for file in row)


def test_a_student_learns_what_the_judge_does_not_see(folder, tmp_path):
    early = distill_previews(folder, tmp_path / "early.safetensors")
    assert early.measured["student"] > 0.8 > 0.4 > early.measured["judge"]
    loaded = load_early_scorer(tmp_path / "early.safetensors")
    assert (loaded.judge, loaded.pipeline, loaded.measured) == ("right@1", "TinyPipeline", early.measured)
    fresh = tmp_path / "fresh"
    keep(fresh, 6, is_telling=True, seed=9)
    agreement = []
    for prompt in read_kept(fresh):
        for fraction, files in zip(FRACTIONS, prompt.files, strict=True):
            scores = loaded.at(fraction).score(list(files)).numpy()
            agreement.append(spearmanr(scores, prompt.finals).statistic)
    assert np.mean(agreement) > 0.8


def test_what_only_the_judge_sees_weighs_in(tmp_path):
    keep(tmp_path / "kept", 15, is_telling=True, prompt_counts=True)
    early = distill_previews(tmp_path / "kept", tmp_path / "early.safetensors")
    assert early.measured["beside_the_judge"]
    assert early.measured["student"] > 0.9 > early.measured["judge"]
    loaded = load_early_scorer(tmp_path / "early.safetensors")
    judge = CallableScorer(lambda images, _: [float(np.asarray(one).mean()) for one in images], name="right@1")
    kept = read_kept(tmp_path / "kept")[0]
    scores, judged = (one.score(list(kept.files[0])).double().numpy() for one in (loaded.at(0.2, judge), judge))
    assert loaded.beside is not None
    weight, slope = loaded.beside
    alone = replace(loaded, beside=None).at(0.2).score(list(kept.files[0])).double().numpy()
    assert scores - alone == pytest.approx(judged * (weight + (0.2 - loaded.middle) * slope), rel=1e-4, abs=1e-4)
    other = CallableScorer(lambda images, _: [0.0] * len(images), name="other")
    for given, got in ((None, "none"), (other, "other")):
        with pytest.raises(ValueError, match=rf"Expected the judge right@1, beside which .+ got {got}"):
            loaded.at(0.2, given)
    with pytest.raises(ValueError, match=r"Expected the judge right@1, .+ got other"):
        QualityFilterCallback(SimpleNamespace(), other, prune_at={0.2: 2}, early_scorer=loaded)


def test_a_few_far_lower_scores_do_not_disorder_the_rest():
    random = np.random.default_rng(3)
    quality = random.normal(size=(20, 1, 8))
    finals = -np.exp(4 * quality[:, 0])  # like a log-probability: mostly near 0, now and then far below
    judged = -np.exp(4 * (quality + 0.3 * random.normal(size=(20, 2, 8))))
    lessons = Lessons(random.normal(size=(20, 2, 8, sum(PARTS.values()))), judged, finals, np.array(FRACTIONS))
    judge = rank_correlations(judged, finals).mean()
    assert judge > 0.8
    assert Student.of(lessons, is_beside=True).mean == pytest.approx(judge, abs=0.02)


def test_rank_correlations_are_spearmans_and_0_where_nothing_varies():
    random = np.random.default_rng(0)
    scores, finals = random.normal(size=(3, 2, 6)).round(1), random.normal(size=(3, 6)).round(1)
    scores[1, 0] = 0
    found = rank_correlations(scores, finals)
    assert found[1, 0] == 0
    assert found[2, 1] == pytest.approx(srcc(scores[2, 1], finals[2]))


def test_a_student_that_is_no_better_is_refused(tmp_path):
    keep(tmp_path / "kept", 12, is_telling=False)
    with pytest.raises(ValueError, match="better than right@1 itself on prompts left out"):
        distill_previews(tmp_path / "kept", tmp_path / "early.safetensors")
    assert not (tmp_path / "early.safetensors").exists()


def test_mistakes(folder, tmp_path):
    keep(tmp_path / "few", 3, is_telling=True)
    with pytest.raises(ValueError, match="at least 10 prompts, got 3"):
        distill_previews(tmp_path / "few", tmp_path / "early.safetensors")
    with pytest.raises(FileNotFoundError, match="folder of kept previews"):
        read_kept(tmp_path / "absent")
    file = tmp_path / "few" / "prompt-0001" / "scores.json"
    facts = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(facts | {"judge": "another"}), encoding="utf-8")
    with pytest.raises(ValueError, match="previews with one judge, got 'right@1' and 'another'"):
        read_kept(tmp_path / "few")
    file.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="scores of kept previews in"):
        read_kept(tmp_path / "few")
    with pytest.raises(FileNotFoundError, match="Expected a file of an early scorer"):
        load_early_scorer(tmp_path / "absent.safetensors")
    (tmp_path / "no.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="Expected an early scorer in"):
        load_early_scorer(tmp_path / "no.safetensors")


def test_the_command(tmp_path, capsys):
    folder, out = tmp_path / "kept", tmp_path / "early.safetensors"
    keep(folder, 10, is_telling=True, n=4)
    assert cli.run(["distill", "--previews", str(folder), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["judge"] == "right@1"
    assert out.is_file()
    assert cli.run(["distill", "--previews", str(folder), "--out", str(out)]) == 0
    assert "rank correlation with the final score" in capsys.readouterr().out
    assert cli.run(["distill", "--previews", str(folder), "--teacher", "lite", "--out", str(out)]) == 2
    assert cli.run(["distill", "--images", str(folder), "--out", str(out)]) == 2
    assert "--teacher" in capsys.readouterr().err
