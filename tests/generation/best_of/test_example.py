"""examples/best_of_n.py as a user runs it, on a pipeline in a folder."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from project_paths import ROOT

from ma_agiqa_core.records.png_metadata import read_metadata

EXAMPLE = ROOT / "examples" / "best_of_n.py"
LOCAL = ["--preview", "vae", "--local-files-only", "--device", "cpu", "--steps", "4"]


@pytest.fixture(scope="module")
def example(load_module: Callable[[Path], ModuleType]) -> ModuleType:
    return load_module(EXAMPLE)


@pytest.fixture(scope="module")
def folder(tiny_pipelines: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipelines") / "sdxl"
    tiny_pipelines.pipeline("sdxl").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("strategy", ["batch", "sequential"])
def test_the_best_of_each_prompt_are_saved(example: ModuleType, folder: Path, tmp_path: Path, strategy: str) -> None:
    choice = ["--n", "4", "--keep", "2", "--prune-at", "0.5:3", "--seed", "3", "--strategy", strategy]
    scorers = ["--scorer", "lite", "--observe", "lite"]
    result = CliRunner().invoke(
        example.main, ["a fox", "a whale", "--pipeline", str(folder), *choice, *scorers, *LOCAL, "--out", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    files = sorted(tmp_path.glob("*.png"))
    assert len(files) == 4
    metadata = [read_metadata(file) for file in files]
    assert [one and (one.rank, one.prompt, one.steps) for one in metadata] == [
        (1, "a fox", 4),
        (2, "a fox", 4),
        (1, "a whale", 4),
        (2, "a whale", 4),
    ]
    for file in files:
        assert str(file) in result.output
    assert "at 0.5 of the steps kept [" in result.output
    assert "observed" in result.output


def test_two_scorers_choose_by_rank(example: ModuleType, folder: Path, tmp_path: Path) -> None:
    arguments = ["--pipeline", str(folder), "--n", "3", "--prune-at", "", "--scorer", "lite", "--scorer", "lite"]
    result = CliRunner().invoke(example.main, ["a fox", *arguments, *LOCAL, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    (metadata,) = [read_metadata(file) for file in tmp_path.glob("*.png")]
    assert metadata is not None
    assert metadata.model == "ensemble(lite+lite)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pipeline", "no/such/folder"], "Expected"),
        (["--n", "0"], "Expected n as a whole number of at least 1, got 0"),
        (["--prune-at", "half"], "in the form 0.4:4, got 'half'"),
        (["--scorer", "none.safetensors"], "Expected"),
    ],
)
def test_mistakes_are_told_in_a_line(
    example: ModuleType, folder: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    usual = ["--pipeline", str(folder), "--scorer", "lite", *LOCAL, "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(example.main, ["a fox", *usual, *arguments])
    assert result.exit_code in (1, 2)
    assert message in result.output
    assert isinstance(result.exception, SystemExit)
    assert not (tmp_path / "out").exists()
