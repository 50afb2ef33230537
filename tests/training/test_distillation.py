"""Students of made-up teachers: that they follow, what their files say, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFilter
import pytest
import scipy.stats
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ma_agiqa_core import CallableScorer, load_scorer
from ma_agiqa_core.metrics import srcc
from ma_agiqa_core.scorers.lite.student import KNOTS, PARTS, StudentNetwork
from ma_agiqa_core.training.distillation.distill import FEWEST, Distilled, distill, distilled_text, follow
from ma_agiqa_core.training.distillation.ridge import fit_ridge, matching_curve, normal_curves, normal_ranks

COUNT, FEW = 110, 60

pytestmark = pytest.mark.usefixtures("small_crops")


def brightness(images: list[Any], _: object = None) -> list[float]:
    return [np.asarray(image).mean() / 51 for image in images]


def sharpness(images: list[Any], _: object = None) -> list[float]:
    """Less, the stronger a picture was blurred: the mean step between neighbours."""
    return [np.abs(np.diff(np.asarray(image.convert("L"), np.float64), axis=1)).mean() for image in images]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures of coloured clouds and grain, brightened and blurred at random."""
    torch.set_num_threads(1)
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(COUNT):
        coarse = random.integers(0, 256, (random.integers(2, 7), random.integers(2, 7), 3), dtype=np.uint8)
        cloud = np.asarray(PIL.Image.fromarray(coarse).resize((72, 64), PIL.Image.Resampling.BICUBIC), np.float64)
        grainy = cloud * random.uniform(0.3, 1.2) + random.normal(0, random.uniform(5, 40), (64, 72, 1))
        picture = PIL.Image.fromarray(grainy.clip(0, 255).astype(np.uint8))
        picture.filter(PIL.ImageFilter.GaussianBlur(random.uniform(0, 3))).save(folder / f"{number:03d}.png")
    return sorted(folder.iterdir())


def test_a_student_follows_a_made_up_teacher(pictures: list[Path], tmp_path: Path) -> None:
    teacher = CallableScorer(sharpness, name="sharpness", revision="7", low=0, high=60, trained_on="a rule")
    taught = pictures[:90]
    result = distill(teacher, taught, tmp_path / "lite-mine.safetensors")
    assert (result.taught, result.held_out.n, result.failed) == (72, 18, 0)
    assert result.held_out.srcc.value is not None
    assert result.held_out.srcc.value >= 0.9

    student = load_scorer(result.path, device="cpu")
    new = pictures[90:]  # unknown to it
    expected, scores = teacher.score(new), student.score(new)
    assert srcc(scores, expected) >= 0.9
    assert (scores - expected).abs().mean() < 0.3 * expected.std()  # on the teacher's own scale
    torch.testing.assert_close(student.score(new, batch_size=1), scores, rtol=0, atol=1e-4)

    info = student.info
    assert (info.name, info.low, info.high, info.targets) == ("lite-mine", 0.0, 60.0, ())
    assert info.trained_on == "scores of sharpness@7 for 72 pictures"
    assert f"SRCC {result.held_out.srcc.value:.3f} with it on 18 held-out pictures" in info.description
    known = teacher.score(taught)
    assert info.percentile(float(known.median())) == pytest.approx(50, abs=1)
    assert (info.quantiles[0], info.quantiles[-1]) == pytest.approx((float(known.min()), float(known.max())))
    with safe_open(result.path, framework="pt") as file:
        facts = json.loads(file.metadata()["ma_agiqa.distilled"])
    assert (facts["teacher"], facts["teacher_trained_on"], facts["taught_on"]) == ("sharpness", "a rule", 72)
    assert facts["held_out"]["srcc"] == result.held_out.srcc.value


def test_the_figure_is_that_of_the_file_on_the_held_out_pictures(pictures: list[Path], tmp_path: Path) -> None:
    teacher = CallableScorer(sharpness, name="sharpness", high=60)
    scores = teacher.score(pictures[:40]).tolist()
    result = follow(teacher.info, pictures[:40], scores, tmp_path / "a.safetensors", seed=3)
    again = follow(teacher.info, pictures[:40], scores, tmp_path / "b.safetensors", seed=3, name="a")
    assert again.held_out == result.held_out
    first, second = load_file(result.path), load_file(again.path)
    assert all(torch.equal(first[name], second[name]) for name in first)
    import random

    rows = list(range(40))
    random.Random(3).shuffle(rows)
    held_out = sorted(rows[:8])
    said = load_scorer(result.path, device="cpu").score([pictures[row] for row in held_out])
    assert srcc(said, [scores[row] for row in held_out]) == pytest.approx(result.held_out.srcc.value, abs=1e-6)


def test_what_cannot_be_scored_or_read_is_left_out(pictures: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    some = [*pictures[:40], broken]
    scores = [float(number) for number in range(41)]
    scores[3] = float("nan")
    result = follow(CallableScorer(brightness, name="b").info, some, scores, tmp_path / "s.safetensors")
    assert (result.taught + result.held_out.n, result.failed) == (39, 2)


def test_noise_teaches_nothing_and_that_is_said(pictures: list[Path], tmp_path: Path) -> None:
    teacher = CallableScorer(brightness, name="dice")
    scores = np.random.default_rng(0).random(60).tolist()
    result = follow(teacher.info, pictures[:60], scores, tmp_path / "s.safetensors")
    assert result.held_out.srcc.value is not None
    assert result.held_out.srcc.value < 0.6
    assert "It follows loosely: give it more pictures" in distilled_text(result, teacher.info)
    assert load_scorer(result.path, device="cpu").score(pictures[:3]).isfinite().all()


def test_plain_colours_of_any_size_are_no_trap(tmp_path: Path) -> None:
    pictures = []
    for number in range(60):
        pictures.append(tmp_path / f"{number}.png")
        PIL.Image.new("RGB", (8 + number % 5, 9), (4 * number,) * 3).save(pictures[-1])
    teacher = CallableScorer(brightness, name="brightness", high=5)
    result = distill(teacher, pictures[::2], tmp_path / "s.safetensors")
    assert result.held_out.srcc.value is not None
    assert result.held_out.srcc.value > 0.95
    student = load_scorer(result.path, device="cpu")
    scores = student.score(pictures)
    assert srcc(scores, teacher.score(pictures)) > 0.98
    torch.testing.assert_close(student.score(pictures[:12], batch_size=1), scores[:12], rtol=0, atol=1e-4)


def test_few_and_equal_scores_are_refused(pictures: list[Path], tmp_path: Path) -> None:
    out, info = tmp_path / "s.safetensors", CallableScorer(brightness, name="teacher").info
    with pytest.raises(ValueError, match=f"at least {FEWEST} pictures with a score of teacher, got 10"):
        follow(info, pictures[:10], [1.0] * 10, out)
    with pytest.raises(ValueError, match="different scores of teacher, got 2 for all 50 pictures"):
        follow(info, pictures[:50], [2.0] * 50, out)
    with pytest.raises(ValueError, match=r"ends in \.safetensors, got .*s\.pt"):
        distill(CallableScorer(brightness, name="teacher"), pictures, tmp_path / "s.pt")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        distill(CallableScorer(brightness, name="teacher"), pictures, tmp_path / "nowhere" / "s.safetensors")
    with pytest.raises(ValueError, match="scale of its own as a teacher, got teacher"):
        distill(CallableScorer(brightness, name="teacher", relative=True), pictures, out)
    assert not list(tmp_path.iterdir())


def test_a_damaged_student_is_refused(pictures: list[Path], tmp_path: Path) -> None:
    result = follow(
        CallableScorer(brightness, name="b").info, pictures[:40], list(range(40)), tmp_path / "s.safetensors"
    )
    state = load_file(result.path)
    with safe_open(result.path, framework="pt") as file:
        metadata = file.metadata()
    del state["weight"]
    save_file(state, result.path, metadata)
    with pytest.raises(ValueError, match=r"Expected the tensors of a student, got others.*weight"):
        load_scorer(result.path)


def test_ridge_finds_the_weights_and_its_left_out_errors_are_exact() -> None:
    random = np.random.default_rng(0)
    parts = [3, 40]
    x = random.normal(size=(60, 43))
    x -= x.mean(0)
    true = np.r_[1.0, -2.0, 0.5, np.zeros(40)]  # the large part says nothing
    y = x @ true + 0.1 * random.normal(size=60)
    y -= y.mean()
    fit = fit_ridge(x, y, parts)
    assert fit.scales[0] > fit.scales[1]
    np.testing.assert_allclose(fit.weight, true, atol=0.1)
    # each picture left out in turn, at the scales and the penalty that were found
    wide = x * np.repeat(np.array(fit.scales) / np.sqrt(parts), parts)
    errors = []
    for penalty in np.linalg.eigvalsh(wide.T @ wide).max() * np.logspace(-8, 2, 400):
        inner = np.linalg.inv(wide.T @ wide + penalty * np.eye(43)) @ wide.T
        weight = inner @ y / np.repeat(np.sqrt(parts), parts) * np.repeat(fit.scales, parts)
        errors.append(np.abs(weight - fit.weight).max())
        if errors[-1] == min(errors):
            near = penalty
    for row in (0, 17):
        keep = np.arange(60) != row
        mean, level = wide[keep].mean(0), y[keep].mean()
        inner = (wide[keep] - mean).T @ (wide[keep] - mean) + near * np.eye(43)
        weight = np.linalg.solve(inner, (wide[keep] - mean).T @ (y[keep] - level))
        assert level + (wide[row] - mean) @ weight == pytest.approx(fit.left_out[row], abs=0.01)


def test_normal_ranks_and_the_curve() -> None:
    assert normal_ranks(np.array([5.0, 1.0, 9.0])) == pytest.approx(scipy.stats.norm.ppf([0.5, 1 / 6, 5 / 6]))
    random = np.random.default_rng(0)
    sums, scores = matching_curve(random.normal(size=300), np.repeat([0.0, 1.0, 5.0], 100))
    assert (np.diff(sums) > 0).all()
    assert (np.diff(scores.astype(np.float32)) > 0).all()
    assert (scores[0], scores[-1]) == pytest.approx((0, 5), abs=1e-2)


def test_columns_become_normal() -> None:
    random = np.random.default_rng(0)
    columns = np.stack([random.lognormal(size=500), np.full(500, 7.0), random.integers(0, 2, 500)], 1)
    network = StudentNetwork(load_scorer("lite", device="cpu").network)  # type: ignore[attr-defined]
    knots, heights = normal_curves(columns)
    network.knots[:3], network.heights[:3] = torch.from_numpy(knots), torch.from_numpy(heights)
    wide = torch.zeros(500, sum(PARTS.values()))
    wide[:, :3] = torch.from_numpy(columns)
    normal = network.normalise(wide)[:, :3].numpy()
    assert scipy.stats.kstest(normal[:, 0], "norm").pvalue > 0.1
    assert np.abs(normal[:, 1]).max() < 1e-12
    assert len(np.unique(normal[:, 2].round(3))) == 2
    wide[:, :3] *= 1 + 1e-6  # rounding
    assert np.abs(network.normalise(wide)[:, :3].numpy() - normal).max() < 1e-3


def test_the_curve_goes_on_beyond_its_ends_to_the_limits() -> None:
    network = StudentNetwork(load_scorer("lite", device="cpu").network)  # type: ignore[attr-defined]
    network.weight[0] = 1
    network.knots[-1] = torch.linspace(0, 2, KNOTS)
    network.heights[-1] = torch.where(network.knots[-1] < 1, 1 + network.knots[-1], 2 * network.knots[-1])
    network.limits.copy_(torch.tensor([0.0, 5.0]))
    normal = torch.zeros(7, sum(PARTS.values()))
    normal[:, 0] = torch.tensor([-9.0, -0.5, 0.0, 0.5, 1.5, 2.25, 9.0])
    assert network.predict(normal).tolist() == pytest.approx([0.0, 0.5, 1.0, 1.5, 3.0, 4.5, 5.0])
    assert network.describe(torch.rand(2, 3, 20, 7)).shape == (2, sum(PARTS.values()))


def test_the_command(
    run: Callable[..., tuple[int, str, str]], pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few").mkdir()
    for picture in pictures[:FEW]:
        shutil.copy(picture, "few")
    given = ["--teacher", "brightness@7", "--images", "few", "--out", "mine.safetensors"]
    code, out, err = run("distill", *given)
    assert code == 0
    assert "Student:  mine.safetensors, taught on 48 pictures" in out
    assert "with brightness on 12 held-out pictures" in out
    assert "rank YOUR_FOLDER --model mine.safetensors" in out
    assert f"{FEW} of {FEW} pictures scored by brightness" in err
    (tmp_path / "broken.png").write_bytes(b"no picture")
    code, out, err = run("distill", *given, "--images", "broken.png", "--json")
    report = json.loads(out)
    assert (code, report["failed"], report["taught_on"], report["held_out"]["n"]) == (1, 1, 48, 12)
    assert report["held_out"]["srcc"] >= 0.9
    assert report["teacher"]["name"] == "brightness"
    assert "broken.png" in err


def test_the_teachers_own_file_is_not_overwritten(
    run: Callable[..., tuple[int, str, str]], pictures: list[Path], tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher.safetensors"
    distill(CallableScorer(brightness, name="brightness", high=60), pictures[:FEWEST], teacher)
    before = teacher.read_bytes()

    code, out, err = run("distill", "--teacher", teacher, "--images", pictures[0].parent, "--out", teacher)

    assert (code, out) == (2, "")
    assert "Expected another file than the teacher's" in err
    assert teacher.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--out", "mine.pt"], "ending in .safetensors, got mine.pt"),
        (["--out", "nowhere/mine.safetensors"], "Expected an existing folder for mine.safetensors"),
        (["--teacher", "relative"], "scale of its own as a teacher, got relative"),
        (["--teacher", "missing"], "got 'missing'"),
        (["--teacher", "needs-prompt"], "Give --prompts FILE"),
        (["--images", "absent"], "absent, which does not exist"),
        ([], "Expected at least 30 pictures to learn from, got 4. Add more"),
    ],
)
def test_mistakes_are_one_line(
    run: Callable[..., tuple[int, str, str]], folder: Path, changes: list[str], message: str
) -> None:
    given = ["--teacher", "brightness", "--images", "photos", "--out", "mine.safetensors"]
    code, out, err = run("distill", *given, *changes)
    assert (code, out) == (2, "")
    assert message in err
    assert not (folder / "mine.safetensors").exists()


@pytest.fixture(scope="module")
def plain(pictures: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    """A student of brightness, learned with nothing set."""
    teacher = CallableScorer(brightness, name="brightness", low=0, high=5)
    return distill(teacher, pictures[:FEWEST], tmp_path_factory.mktemp("plain") / "plain.safetensors")


@pytest.mark.parametrize(
    "state",
    [
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.param(torch.inference_mode, marks=pytest.mark.long),
        pytest.param(lambda: torch.device("meta"), marks=pytest.mark.long),
    ],
    ids=["autocast", "inference mode", "default device meta"],
)
def test_a_student_learns_the_same_whatever_the_caller_has_set(
    pictures: list[Path], plain: Distilled, tmp_path: Path, state: Callable[[], Any]
) -> None:
    teacher = CallableScorer(brightness, name="brightness", low=0, high=5)
    with state():
        inside = distill(teacher, pictures[:FEWEST], tmp_path / "inside.safetensors")
    assert inside.held_out == plain.held_out
    ours, theirs = load_file(inside.path), load_file(plain.path)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
