"""The tiny preset: it starts from lite's features, keeps the experts, resumes, and is compared with what knows less."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from safetensors.torch import load_file

from ma_agiqa_core import load_scorer
from ma_agiqa_core.checkpoint import load_checkpoint
from ma_agiqa_core.errors import MaAgiqaError
from ma_agiqa_core.labels.labelled_set import LabelledSet
from ma_agiqa_core.labels.splits import make_split
from ma_agiqa_core.training.baselines import Comparison, Measured, compare, comparison_lines
from ma_agiqa_core.training.progress import TrainingProgress
from ma_agiqa_core.training.ridge_fit import fit_ridge_on
from ma_agiqa_core.training.settings import preset
from ma_agiqa_core.training.train import TrainingResult, train


def run(labelled: LabelledSet, out: Path, epochs: int = 3, **options: object) -> TrainingResult:
    features = options.pop("features", None)
    settings = preset("tiny", epochs=epochs, features=features)
    return train(settings, labelled, make_split(labelled), out, device="cpu", **options)  # type: ignore[arg-type]


class StoppedAfter(TrainingProgress):
    def __init__(self, steps: int) -> None:
        self.left = steps

    def stepped(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def trained(made_up_table: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    from ma_agiqa_core.labels.labelled_set import read_labels

    labelled = read_labels(made_up_table, made_up_table.with_name("pictures"), score_column="mos")
    return run(labelled, tmp_path_factory.mktemp("described") / "run")


def test_it_learns_from_few_pictures_and_scores_as_it_was_measured(trained, made_up):
    assert trained.figures["quality"]["test"]["srcc"] > 0.8
    scorer = load_scorer(trained.model, device="cpu")
    rows = make_split(made_up).test
    scores = scorer.score([made_up.pictures[row].path for row in rows]).numpy()
    lines = (trained.model.parent / "predictions.csv").read_text().splitlines()
    predicted = {line.split(",")[0]: float(line.split(",")[3]) for line in lines[1:]}
    assert scores == pytest.approx([predicted[made_up.pictures[row].name] for row in rows], abs=1e-4)


def test_the_checkpoint_names_its_features_and_refuses_others(trained, tmp_path):
    config = load_checkpoint(trained.model).config
    assert config.backbone.startswith("lite@")
    assert config.description_columns > 700
    content = trained.model.read_bytes()
    revision = config.backbone.removeprefix("lite@").encode()
    other = tmp_path / "other.safetensors"
    other.write_bytes(content.replace(revision, b"0" * len(revision)))
    with pytest.raises(MaAgiqaError, match=r"revision '000.*Train it again"):
        load_scorer(other, device="cpu")


def test_it_is_compared_with_what_knows_less(trained):
    beside = json.loads((trained.model.parent / "metrics.json").read_text())["validation_beside"]["quality"]
    assert set(beside) >= {"model", "lite", "ridge on lite's features", "label_mean_rmse", "faults", "doubts"}
    assert beside["n"] == 4
    lines = comparison_lines(trained.comparisons)
    assert "SRCC on 4 validation pictures" in lines[0]
    assert "ridge on lite's features" in lines[0]


def test_a_run_that_was_stopped_resumes_to_the_same_weights(trained, made_up, tmp_path, one_thread):
    with pytest.raises(KeyboardInterrupt):
        run(made_up, tmp_path / "run", progress=StoppedAfter(3))
    resumed = run(made_up, tmp_path / "run", resume=True)
    once = run(made_up, tmp_path / "whole")
    first, second = load_file(resumed.model), load_file(once.model)
    assert all(torch.equal(first[name], second[name]) for name in first | second)


def test_the_experts_of_the_language_model_are_there(made_up, tmp_path, owl_folder):
    result = run(made_up, tmp_path / "run", epochs=1, semantic=str(owl_folder))
    assert load_checkpoint(result.model).config.vectors == ("semantic_content", "coherence")
    silenced = load_scorer(result.model, semantic="none", device="cpu")
    assert silenced.score([made_up.pictures[0].path]).isfinite().all()


def test_a_models_features_take_the_place_of_lites(made_up, tmp_path):
    folder = tiny_models.write_dinov2(tmp_path / "dino")
    result = run(made_up, tmp_path / "run", epochs=1, features=f"dinov2:{folder}")
    assert load_checkpoint(result.model).config.backbone.startswith(f"dinov2:{folder}@")
    assert load_scorer(result.model, device="cpu").score([made_up.pictures[0].path]).isfinite().all()


def test_a_cache_of_descriptions_gives_the_same_model(trained, made_up, tmp_path):
    for name in ("first", "second"):
        cached = run(made_up, tmp_path / name, picture_cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1
    expected = load_file(trained.model)
    assert all(torch.equal(part, expected[name]) for name, part in load_file(cached.model).items())


def test_ridge_regression_is_what_numpy_gives_for_its_penalty():
    random = np.random.default_rng(0)
    x = random.standard_normal((40, 6))
    y = x @ np.array([1.0, -2, 0, 0, 0.5, 0]) + 0.1 * random.standard_normal(40) + 3
    ridge = fit_ridge_on(x, y, {"all": 6})
    z = np.column_stack([(x - x.mean(0)) / x.std(0), np.ones(40)])
    expected = z @ np.linalg.lstsq(z, y, rcond=None)[0]
    assert ridge.predict(x) == pytest.approx(expected, abs=0.05)


def test_ridge_regression_listens_to_the_part_that_knows():
    random = np.random.default_rng(0)
    x = random.standard_normal((50, 205))
    y = x[:, 200:] @ np.ones(5)
    parts = {"noise": 200, "signal": 5}
    fresh = random.standard_normal((200, 205))
    alike, favoured = (
        np.corrcoef(fit_ridge_on(x, y, p).predict(fresh), fresh[:, 200:].sum(1))[0, 1] for p in ({"all": 205}, parts)
    )
    assert favoured > 0.9 > alike


@pytest.mark.parametrize(
    ("model", "leads", "rmse", "faults", "doubts", "is_unfit"),
    [
        (Measured(0.8, 0.6, 0.9), {"lite": Measured(0.3, 0.1, 0.5)}, 0.5, [], [], False),
        (Measured(0.8, 0.6, 0.9), {"lite": Measured(0.3, -0.1, 0.5)}, 0.5, [], ["lite may be chance"], False),
        (Measured(0.8, 0.6, 0.9), {"lite": Measured(-0.1, -0.3, 0.1)}, 0.5, ["lite, but the difference"], [], False),
        (Measured(0.8, 0.6, 0.9), {"lite": Measured(-0.1, -0.3, -0.01)}, 0.5, ["does not beat lite."], [], True),
        (Measured(0.2, -0.1, 0.4), {}, 0.5, ["interval holds zero"], [], True),
        (Measured(0.8, 0.6, 0.9), {}, 1.0, ["no better than the label mean"], [], True),
        (Measured(), {}, None, ["do not say what it has learned"], [], True),
    ],
)
def test_what_is_wrong_is_said_plainly(model, leads, rmse, faults, doubts, is_unfit):
    comparison = Comparison(20, model, {}, leads, rmse, 1.0)
    assert comparison.is_unfit == is_unfit
    for found, expected in ((comparison.faults, faults), (comparison.doubts, doubts)):
        assert len(found) == len(expected)
        assert all(words in sentence for words, sentence in zip(expected, found, strict=True))


def test_random_predictions_are_found_out(made_up):
    labels = np.array([[picture.scores["quality"]] for picture in made_up.pictures])
    guesses = np.random.default_rng(1).permutation(labels)
    paths, split = [picture.path for picture in made_up.pictures], make_split(made_up, "50/50/0")
    found = compare(paths, split, ("quality",), labels, guesses, None, torch.device("cpu"))["quality"]
    ridge = found.others["ridge on lite's features"].srcc
    assert ridge is not None
    assert ridge > 0.7
    assert found.is_unfit
