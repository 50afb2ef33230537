"""The whole chain on the command line with small random models: extract, train, evaluate, rank, distill."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import made_up_set
import pytest

from ma_agiqa_core import cli, load_scorer, rank
from ma_agiqa_core.metrics import srcc
from ma_agiqa_core.semantic.lazy_model import LazyModel
from ma_agiqa_core.training import settings

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line in an empty working directory, with the scorers that there are."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.run([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


def test_from_vectors_to_a_student(
    run: Run,
    owl_folder: Path,
    tmp_path: Path,
    one_thread: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = made_up_set.write(tmp_path / "set", 60, side=32)
    pictures = labels.with_name("pictures")
    tiny = settings.PRESETS["tiny"]
    small = dataclasses.replace(tiny.model, image_size=32, stage_widths=(16, 8), swin_mlp_width=16)
    monkeypatch.setitem(settings.PRESETS, "tiny", dataclasses.replace(tiny, model=small, features=None))
    data: list[object] = ["--labels", labels, "--images", pictures, "--score-column", "mos"]
    semantic: list[object] = ["--semantic", owl_folder, "--cache", "vectors", "--device", "cpu"]

    code, _, err = run("extract", pictures, *semantic)
    assert (code, "60 of 60 pictures have semantic vectors" in err) == (0, True)

    def refuse(model: LazyModel) -> None:
        raise AssertionError("the language model was asked again")

    monkeypatch.setattr(LazyModel, "_load", refuse)
    code, _, err = run("train", *data, *semantic, "--preset", "tiny", "--epochs", 4, "--out", "run")
    assert code == 0, err
    metrics = json.loads(Path("run/metrics.json").read_text())
    model = Path("run/model.safetensors")

    test = [*data, "--split", "70/10/20", "--resamples", 50]
    code, out, err = run("evaluate", *test, *semantic, "--model", model, "--json", "--plot", "scatter.png")
    report = json.loads(out)
    assert code == 0, err
    assert report["overall"]["n"] == metrics["test"]["n"] == 12
    # What training wrote; figures behind a fit are left out, since 12 pictures do not determine it.
    for figure in ("srcc", "krcc"):
        assert report["overall"][figure] == pytest.approx(metrics["test"][figure], abs=1e-4)
    assert Path("scatter.png").stat().st_size > 5000
    silenced: dict[str, list[object]] = {
        "coherence": [*semantic, "--without", "coherence"],
        "coherence-semantic_content": ["--semantic", "none"],
    }
    for experts, options in silenced.items():
        code, out, err = run("evaluate", *test, *options, "--model", model, "--json")
        assert code == 0, err
        assert json.loads(out)["model"]["name"].endswith(f"-without-{experts}")

    scorer = load_scorer(model, semantic=owl_folder, cache="vectors", device="cpu")
    files = sorted(pictures.iterdir())
    best = rank(scorer, files, top_k=3).kept
    code, out, err = run("rank", pictures, *semantic, "--model", model, "--top", 3, "--json")
    assert code == 0, err
    assert [picture["index"] for picture in json.loads(out)["kept"]] == [picture.index for picture in best]

    teacher = ["--teacher", model, *semantic]
    code, out, err = run("distill", *teacher, "--images", pictures, "--out", "mine.safetensors", "--json")
    distilled = json.loads(out)
    assert code == 0, err
    assert (distilled["taught_on"], distilled["held_out"]["n"]) == (48, 12)
    student = load_scorer("mine.safetensors", device="cpu")
    assert srcc(student.score(files), scorer.score(files)) > 0.5
