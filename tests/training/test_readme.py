"""The commands of docs/training.md as they stand there, on made-up sets of the same layout, in a tiny network."""

import csv
import dataclasses
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tiny_models
import torch
from training_fixtures import SMALL

from ma_agiqa_core import cli
from ma_agiqa_core.training import loop, settings

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
COUNT = 30


def commands() -> list[str]:
    """The lines that start with ma-agiqa, in order."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.startswith("ma-agiqa ")]


def write_set(folder: Path, names: list[str], random: np.random.Generator) -> list[float]:
    """Noise pictures, the brighter the better; their scores in 0..1."""
    folder.mkdir(parents=True)
    scores = random.uniform(0, 1, len(names))
    for name, score in zip(names, scores, strict=True):
        PIL.Image.fromarray(random.integers(0, int(60 + 190 * score), (24, 20, 3), dtype=np.uint8)).save(folder / name)
    return scores.tolist()


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, owl_folder: Path) -> Iterator[Path]:
    """A folder with the sets, small, the language model, small, and mine.csv with renders/."""
    place = tmp_path_factory.mktemp("training")
    random = np.random.default_rng(0)
    (place / "mplug-owl2").symlink_to(owl_folder)
    prompts = [f"prompt {number // 2}" for number in range(COUNT)]

    names = [f"{('sd1.5', 'DALLE2')[n % 2]}_normal_{n:03}.jpg" for n in range(COUNT)]
    scores = write_set(place / "AGIQA-3K" / "images", names, random)
    rows = [
        {"name": name, "prompt": prompt, "mos_quality": 4 * score, "std_quality": 1, "mos_align": 5 * score**2}
        for name, prompt, score in zip(names, prompts, scores, strict=True)
    ]
    write_table(place / "AGIQA-3K" / "data.csv", rows)

    names = [f"{('MJ', 'SDXL')[n % 2]}_{n:04}.png" for n in range(COUNT)]
    scores = write_set(place / "AIGCQA-20K" / "train", names, random)
    rows = [{"name": n, "prompt": p, "mos": 5 * s} for n, p, s in zip(names, prompts, scores, strict=True)]
    write_table(place / "AIGCQA-20K" / "info_train.csv", rows)

    names = [f"{60 * n}.png" for n in range(COUNT)]
    scores = write_set(place / "AIGCIQA2023" / "Image" / "allimg", names, random)
    targets = ("quality_mos", "authenticity_mos", "correspondence_mos")
    rows = [
        {"name": name, "prompt": prompt, **{target: 100 * score ** (power + 1) for power, target in enumerate(targets)}}
        for name, prompt, score in zip(names, prompts, scores, strict=True)
    ]
    write_table(place / "AIGCIQA2023" / "AIGCIQA2023.csv", rows)

    names = [f"{n}.jpg" for n in range(COUNT)]
    scores = write_set(place / "KonIQ-10k" / "512x384", names, random)
    rows = [
        {"image_name": n, "c_total": 100, "MOS": 3, "MOS_zscore": 90 * s} for n, s in zip(names, scores, strict=True)
    ]
    write_table(place / "KonIQ-10k" / "koniq10k_scores_and_distributions.csv", rows)

    openpyxl = pytest.importorskip("openpyxl")
    scores = write_set(place / "SPAQ" / "TestImage", names, random)
    book = openpyxl.Workbook()
    for row in [("Image name", "MOS"), *zip(names, [100 * score for score in scores], strict=True)]:
        book.active.append(row)
    (place / "SPAQ" / "Annotations").mkdir()
    book.save(place / "SPAQ" / "Annotations" / "MOS and Image attribute scores.xlsx")

    scores = write_set(place / "renders", names, random)
    rows = [{"name": n, "mos": s, "prompt": p} for n, s, p in zip(names, scores, prompts, strict=True)]
    write_table(place / "mine.csv", rows)
    tiny_models.write_checkpoint(place / "published.safetensors", 64)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield place
    torch.set_num_threads(before)


def test_every_command_is_understood(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for line in commands():
        name, *words = shlex.split(line)[1:]
        cli.cli.commands[name].make_context(name, words)  # raises where an option or a value is not known


def test_the_commands_for_labels_of_ones_own_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line for line in commands() if " renders" in line]
    assert [line.split()[1] for line in lines] == ["train", "train", *["evaluate"] * 3, "distill", "rank"]
    run_all(lines, place, monkeypatch, capsys)


@pytest.mark.long
def test_every_command_runs_as_it_stands(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = commands()
    assert sum(" train " in line for line in lines) == 12
    run_all(lines, place, monkeypatch, capsys)
    metrics = json.loads((place / "runs/agiqa-3k/metrics.json").read_text())
    assert metrics["test"]["n"] == 6
    assert (place / "agiqa-3k.png").is_file()
    assert not list((place / "runs").rglob("vectors")), "all of them took the cache"


def run_all(lines: list[str], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In a tiny network; training takes one epoch and draws no curves."""
    monkeypatch.chdir(place)
    small = dataclasses.replace(settings.PRESETS["tiny"], model=SMALL, features=None)
    monkeypatch.setitem(settings.PRESETS, "tiny", small)
    monkeypatch.setattr(loop, "plot_curves", lambda history, best_epoch, path: None)
    for line in lines:
        words = shlex.split(line)[1:]
        if words[0] == "convert":  # the published weights are not here: the fixture wrote a small checkpoint
            continue
        if words[0] == "train":
            words += ["--preset", "tiny", "--epochs", "1"]
        if words[0] == "evaluate":
            words += ["--resamples", "20"]
        code = cli.run([*words, "--device", "cpu"])
        output = capsys.readouterr()
        assert code == 0, f"{line}\n{output.out}\n{output.err}"


def test_published_figures_are_those_of_the_reference() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for figure in (
        ".8939 / .9273",
        ".8709 / .9136",
        ".8644 / .9050",
        ".8619 / .9006",
        ".9339 / .9482",
        ".9278 / .9321",
    ):
        assert figure in text
