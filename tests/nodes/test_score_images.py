"""Score Images and Combine Image Scorers."""

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch


@pytest.fixture
def node(pack_module: Callable[[str], Any]) -> Any:
    return pack_module("nodes.score_images").ScoreImages


def test_every_picture_has_its_score(
    node: Any, run_node: Callable[..., Any], managed: Callable[..., Any], batch: torch.Tensor
) -> None:
    images, scores, best, report = run_node(node, scorer=managed(), images=batch).args[:4]
    assert scores == pytest.approx([0.7, 0.3, 0.1, 0.9, 0.5])
    assert best == pytest.approx(0.9)
    assert [tuple(image.shape) for image in images] == [(5, 24, 32, 3)]
    assert images[0].data_ptr() == batch.data_ptr()  # a batch is passed on, not copied
    assert report.splitlines()[2].split() == ["1", "3", "0.900"]


def test_a_list_of_mixed_sizes(
    node: Any, run_node: Callable[..., Any], managed: Callable[..., Any], batch: torch.Tensor
) -> None:
    large = torch.full((1, 40, 20, 3), 0.2)
    images, scores, *_ = run_node(node, scorer=managed(), images=[batch[:2], large]).args
    assert scores == pytest.approx([0.7, 0.3, 0.2])
    assert [tuple(image.shape) for image in images] == [(1, 24, 32, 3)] * 2 + [(1, 40, 20, 3)]


def shown_on_node(ui: dict[str, Any]) -> list[PIL.Image.Image]:
    import folder_paths

    assert {shown["type"] for shown in ui["images"]} == {"temp"}
    files = [Path(folder_paths.get_temp_directory(), shown["subfolder"], shown["filename"]) for shown in ui["images"]]
    return [PIL.Image.open(file).convert("RGB") for file in files]


def test_the_node_shows_all_pictures_on_one_sheet(
    node: Any, run_node: Callable[..., Any], managed: Callable[..., Any], batch: torch.Tensor
) -> None:
    """ComfyUI lists every picture that a node shows among its assets, and the first one is the cover of the job."""
    ui = run_node(node, scorer=managed(), images=batch).ui
    (sheet,) = shown_on_node(ui)
    seen = np.unique(np.asarray(sheet.convert("L")))
    assert {230, 178, 128, 76, 26} <= {int(grey) + off for grey in seen for off in (-1, 0, 1)}
    assert sheet.width > 2 * 32
    assert ui["text"][0].startswith("mean (about 0 to 1; higher is better)")


def test_the_node_shows_single_pictures_best_first_or_nothing(
    node: Any, run_node: Callable[..., Any], managed: Callable[..., Any], batch: torch.Tensor
) -> None:
    drawn = shown_on_node(run_node(node, scorer=managed(), images=batch, show="single pictures").ui)
    greys = [int(np.asarray(picture)[12, picture.width // 2, 0]) for picture in drawn]
    assert greys == pytest.approx([230, 178, 128, 76, 26], abs=2)
    assert {picture.height > 24 for picture in drawn} == {True}  # the caption stands below
    ui = run_node(node, scorer=managed(), images=batch, show="nothing").ui
    assert list(ui) == ["text"]
    with pytest.raises(ValueError, match=r"^Expected show one sheet, single pictures, nothing, got 'all'\. Choose"):
        run_node(node, scorer=managed(), images=batch, show="all")


def test_large_pictures_are_small_on_the_node_and_of_the_same_colours(
    node: Any, run_node: Callable[..., Any], managed: Callable[..., Any]
) -> None:
    quarters = torch.tensor([[0.2, 0.4], [0.6, 0.8]]).repeat_interleave(1601, 1).repeat_interleave(801, 0)
    large = quarters[None, :, :, None].expand(1, -1, -1, 3)  # 1602 × 3202: neither is a multiple of what it is made
    (picture,) = shown_on_node(run_node(node, scorer=managed(), images=large, show="single pictures").ui)
    assert 384 <= picture.width <= 400
    for x, y, value in ((100, 50, 51), (300, 50, 102), (100, 150, 153), (300, 150, 204)):
        assert picture.getpixel((x, y)) == pytest.approx((value,) * 3, abs=2)


def test_progress_on_the_node_counts_pictures(
    node: Any,
    run_node: Callable[..., Any],
    managed: Callable[..., Any],
    batch: torch.Tensor,
    progress: list[tuple[float, float, Any]],
) -> None:
    run_node(node, hidden={"unique_id": "7"}, scorer=managed(), images=batch)
    assert progress[-1] == (5, 5, "7")


def test_several_scorers_share_one_progress_bar(node, run_node, managed, batch, progress):
    other = managed(lambda images, prompts: [0.5] * len(images), name="other")
    run_node(node, hidden={"unique_id": "7"}, scorer=managed(), scorer_2=other, images=batch)
    assert {total for _, total, _ in progress} == {10}
    values = [value for value, _, _ in progress]
    assert values == sorted(values)
    assert (5 in values, values[-1]) == (True, 10)
    seen = len(progress)
    reads = managed(needs_prompt=True, name="reads")
    with pytest.raises(ValueError, match="Expected a prompt for reads"):
        run_node(node, scorer=managed(), scorer_2=reads, images=1 - batch)
    assert len(progress) == seen  # told before anything is scored


def test_prompts_reach_the_scorer_one_for_all_or_one_each(
    node: Any, run_node: Callable[..., Any], managed: Callable[..., Any], batch: torch.Tensor
) -> None:
    scorer = managed(lambda images, prompts: [float(len(prompt)) for prompt in prompts], needs_prompt=True, high=100)
    assert run_node(node, scorer=scorer, images=batch, prompt="cat").args[1] == [3.0] * 5
    assert run_node(node, scorer=scorer, images=batch[:2], prompt=["a", "bb"]).args[1] == [1.0, 2.0]
    batches = [batch[:2], torch.zeros(1, 8, 8, 3), batch[2:4]]
    by_batch = run_node(node, scorer=scorer, images=batches, prompt=["a", "bb", "ccc"]).args[1]
    assert by_batch == [1.0, 1.0, 2.0, 3.0, 3.0]
    with pytest.raises(ValueError, match=r"^Expected one prompt, or one for each of 5 pictures, got 2\. Connect a"):
        run_node(node, scorer=scorer, images=batch, prompt=["a", "bb"])
    with pytest.raises(ValueError, match=r"^Expected a prompt for mean, .* got none\. Connect the text"):
        run_node(node, scorer=scorer, images=batch)


def test_an_ensemble_of_two_scorers(
    node: Any,
    pack_module: Callable[[str], Any],
    run_node: Callable[..., Any],
    managed: Callable[..., Any],
    batch: torch.Tensor,
    progress: list[tuple[float, float, Any]],
) -> None:
    combine = pack_module("nodes.ensemble_scorer").EnsembleScorer
    dark = managed(lambda images, prompts: [1 - float(image.mean()) for image in images], name="dark")
    both = run_node(combine, scorer_1=managed(), scorer_3=dark, weight_3=3.0, combine="rank").args[0]
    scores = run_node(node, hidden={"unique_id": "1"}, scorer=both, images=batch).args[1]
    assert scores == pytest.approx([0.375, 0.625, 0.75, 0.25, 0.5])  # ranks 3 1 0 4 2 of 4, and three times reversed
    assert list(progress[-1]) == [10, 10, "1"]
    assert both.identity == "rank(mean*1+dark*3)"
    with pytest.raises(ValueError, match=r"^Expected calibrated members, got mean, which has no quantiles\. Use"):
        run_node(combine, scorer_1=managed(), combine="calibrated")


def test_more_than_four_scorers(pack_module: Callable[[str], Any], run_node: Callable[..., Any], managed: Any) -> None:
    combine = pack_module("nodes.ensemble_scorer").EnsembleScorer
    if "more_scorers" not in [given.id for given in combine.GET_SCHEMA().inputs]:
        pytest.skip("sockets do not grow in this ComfyUI")
    several = {number: managed(name=f"n{number}") for number in ("6", "5")}
    more = run_node(combine, scorer_1=managed(), weight_1=2.0, more_scorers=several, combine="zscore").args[0]
    assert more.identity == "zscore(mean*2+n5*1+n6*1)"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(0, 8, 8, 3), r"^Expected at least one picture, got an empty batch\. Check the node that"),
        (
            torch.full((2, 8, 8, 3), torch.nan),
            r"got NaN or infinite ones in picture 0 \(the first is 0\)\. Often a VAE",
        ),
        (torch.zeros(2, 8, 8, 2), r"^Expected images \[batch, height, width, 3\], got a tensor \(2, 8, 8, 2\)\. Conn"),
    ],
)
def test_bad_pictures_are_refused_in_a_sentence(
    node: Any, run_node: Callable[..., Any], managed: Callable[..., Any], images: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run_node(node, scorer=managed(), images=images)


def test_alpha_lies_over_white_and_stays_in_the_picture(
    node: Any, run_node: Callable[..., Any], managed: Callable[..., Any]
) -> None:
    picture = torch.cat([torch.zeros(1, 8, 8, 3), torch.full((1, 8, 8, 1), 0.25)], dim=3)
    images, scores, *_ = run_node(node, scorer=managed(), images=picture).args
    assert scores == pytest.approx([0.75])
    assert images[0].shape == (1, 8, 8, 4)


def test_half_precision_and_values_outside_are_as_in_a_saved_file(
    node: Any, run_node: Callable[..., Any], managed: Callable[..., Any]
) -> None:
    picture = torch.full((1, 512, 512, 3), 0.5, dtype=torch.float16)  # its sum overflows
    picture[:, :256] = 1.25
    assert run_node(node, scorer=managed(), images=picture).args[1] == pytest.approx([0.75])


@pytest.fixture
def outputs(node: Any, run_node: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Runs the node; gives its outputs by id."""
    names = [output.id for output in node.GET_SCHEMA().outputs]
    return lambda **inputs: dict(zip(names, run_node(node, **inputs).args, strict=True))


def test_percentiles_where_the_scorer_has_them(outputs, managed, batch):
    out = outputs(scorer=managed(quantiles=(0.0, 0.5, 1.0)), images=batch)
    assert out["percentiles"] == pytest.approx([70, 30, 10, 90, 50])
    assert [score.percentile for score in out["scores"]] == out["percentiles"]
    for none in (managed(), managed(relative=True)):
        assert outputs(scorer=none, images=batch)["percentiles"].message == "mean has no percentiles."


def test_several_scorers_side_by_side(outputs, managed, batch):
    dark = managed(lambda images, prompts: [1 - float(image.mean()) for image in images], name="dark")
    out = outputs(scorer=managed(), scorer_2=dark, images=batch)
    assert out["scores"] == pytest.approx([0.7, 0.3, 0.1, 0.9, 0.5])  # of the first
    assert out["agreement"] == pytest.approx(-1)
    assert out["disagreement"] == pytest.approx([0.5, 0.5, 1, 1, 0])
    lines = out["report"].splitlines()
    assert lines[0].split() == ["picture", "mean", "dark"]
    assert lines[1].split() == ["3", "0.900", "(#1)", "0.100", "(#5)"]
    assert lines[6] == "rank correlation of mean and dark: -1.00"
    assert lines[7].startswith("they differ most on picture 2 (#5, #1), picture 3 (#1, #5), ")


def test_one_scorer_alone_agrees_with_nobody(outputs, managed, batch):
    out = outputs(scorer=managed(), images=batch)
    for name in ("agreement", "disagreement"):
        assert out[name].message == "only one scorer is connected to Score Images. Connect a second one."


def test_captions_say_the_places_by_the_others(node, run_node, managed, batch, pack_module, monkeypatch):
    strip, notes = pack_module("nodes.sockets.score_strip"), []
    true = strip.strip_sheet

    def drawing(*args, **given):
        notes.append(given["notes"])
        return true(*args, **given)

    monkeypatch.setattr(strip, "strip_sheet", drawing)
    dark = managed(lambda images, prompts: [1 - float(image.mean()) for image in images], name="dark")
    run_node(node, scorer=managed(), images=batch)
    run_node(node, scorer=managed(), scorer_3=dark, images=batch)
    run_node(node, scorer=managed(), scorer_2=managed(), scorer_4=dark, images=batch[:2])
    assert notes == [
        [""] * 5,
        ["other: #4", "other: #2", "other: #1", "other: #5", "other: #3"],
        ["others: #1, #2", "others: #2, #1"],
    ]


def test_without_overlay_the_pictures_alone_stand_best_first(node, run_node, managed, batch):
    import folder_paths

    ui = run_node(node, scorer=managed(), images=batch, overlay=False).ui
    shown = []
    for entry in ui["images"]:
        with PIL.Image.open(Path(folder_paths.get_temp_directory(), entry["filename"])) as picture:
            assert picture.size == (32, 24)
            shown.append(picture.convert("L").getpixel((16, 12)))
    assert shown == pytest.approx([230, 178, 128, 76, 26], abs=1)
    clear = torch.zeros(1, 8, 8, 4)
    (entry,) = run_node(node, scorer=managed(), images=clear, overlay=False).ui["images"]
    with PIL.Image.open(Path(folder_paths.get_temp_directory(), entry["filename"])) as picture:
        assert picture.getpixel((4, 4)) == pytest.approx((255, 255, 255), abs=1)


class Video:
    """A VIDEO of grey frames, as nodes carry it."""

    def __init__(self, *greys: float) -> None:
        self._greys = greys

    def get_components(self) -> Any:
        frames = torch.tensor(self._greys)[:, None, None, None].expand(-1, 6, 8, 3)
        return types.SimpleNamespace(images=frames)


def test_of_a_video_the_first_frame_is_scored(outputs, managed):
    out = outputs(scorer=managed(), images=[Video(0.2, 0.9), Video(0.6, 0.1, 0.1)])
    assert out["scores"] == pytest.approx([0.2, 0.6])
    (frames,) = out["scored_images"]
    assert frames[:, 0, 0, 0].tolist() == pytest.approx([0.2, 0.6])
    with pytest.raises(ValueError, match="Expected a video with at least one frame, got an empty one"):
        outputs(scorer=managed(), images=Video())
