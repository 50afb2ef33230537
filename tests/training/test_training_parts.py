"""The parts of training against hand-computed values: settings, losses, augmentation, batches, rates, sets, pixels."""

import itertools
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ma_agiqa_core.compute.progress import watching
from ma_agiqa_core.labels.joined import merge_sets
from ma_agiqa_core.labels.labelled_set import LabelledPicture, LabelledSet
from ma_agiqa_core.labels.splits import Split
from ma_agiqa_core.model import MaAgiqa
from ma_agiqa_core.pictures.inputs import PictureError
from ma_agiqa_core.preprocess import normalised, visual_pixels
from ma_agiqa_core.training import network as network_module
from ma_agiqa_core.training.augmentation import augmented, generator, torch_seed
from ma_agiqa_core.training.batches import Batches, TrainingData
from ma_agiqa_core.training.curves_plot import plot_curves
from ma_agiqa_core.training.dct_patch_init import init_dct_patches
from ma_agiqa_core.training.losses import rank_loss, squared_error
from ma_agiqa_core.training.network import new_network, new_optimizer
from ma_agiqa_core.training.outputs import checkpoint_facts, is_better, selection_value
from ma_agiqa_core.training.picture_cache import PictureCache
from ma_agiqa_core.training.settings import PRESETS, TrainingSettings, differences, preset

NAN = math.nan


def start(settings: TrainingSettings, **options: Any) -> Any:
    values: dict[str, Any] = {"mean": torch.zeros(1), "deviation": torch.ones(1), "targets": ("quality",)}
    return new_network(settings, semantic_dim=0, **(values | options)).model


# ----------------------------------------------------------------------------------------------------------- settings
def test_the_default_preset_is_the_papers_protocol() -> None:
    paper = PRESETS["ma-agiqa"]
    assert (paper.epochs, paper.batch, paper.learning_rate, paper.weight_decay) == (30, 8, 1e-5, 1e-5)
    assert (paper.schedule, paper.period, paper.seed) == ("published", 50, 20)
    assert (paper.rotate, paper.flip, paper.flip_axis, paper.drop_last) == (0.7, 0.7, "vertical", True)
    assert (paper.rank_loss, paper.ema, paper.layer_decay, paper.mixed_precision) == (0, 0, 1, "no")
    switches = (paper.freeze_backbone, paper.scale_rate, paper.normalise_labels, paper.published_validation)
    assert not any(switches)
    assert paper.model.backbone == "vit_base_patch8_224.augreg_in21k_ft_in1k"


def test_the_published_schedule_is_torchs_cosine_stepped_once_a_batch() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    for step in range(230):
        assert PRESETS["ma-agiqa"].rate_factor(step, 9999) == pytest.approx(schedule.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        schedule.step()


def test_rates_of_the_other_schedules() -> None:
    cosine = preset("tiny", warmup=4)
    assert [round(cosine.rate_factor(step, 100), 3) for step in (0, 4, 50, 99)] == [0.2, 0.996, 0.5, 0.0]
    assert preset("tiny", schedule="constant", warmup=0).rate_factor(70, 100) == 1
    assert preset("ma-agiqa", batch=32, scale_rate=True).rate == pytest.approx(4e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs of at least 1, got 0"),
        ({"learning_rate": NAN}, "learning_rate above 0, got nan"),
        ({"ema": 1.0}, "ema from 0 to below 1, got 1.0"),
        ({"layer_decay": 0.0}, "layer_decay above 0 and up to 1, got 0.0"),
        ({"rank_loss": -1.0}, "rank_loss of at least 0, got -1.0"),
        ({"flip": 1.5}, "flip from 0 to 1, got 1.5"),
        ({"schedule": "linear"}, "schedule published, cosine, constant, got 'linear'"),
        ({"dct_patch_init": True}, "dct_patch_init or pretrained, got both"),
    ],
)
def test_settings_out_of_range_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PRESETS["ma-agiqa"], **changes)


def test_differences_name_what_changed_and_leave_the_harmless_out() -> None:
    before = {"settings": {"seed": 20, "epochs": 3, "model": {"width": 8}}, "data": {"n": 4}}
    now = {"settings": {"seed": 3, "epochs": 9, "model": {"width": 4}}, "data": {"n": 4}}
    assert differences(before, now, ["settings.epochs"]) == [
        "settings.seed 20, got 3",
        "settings.model.width 8, got 4",
    ]


# ------------------------------------------------------------------------------------------------------------- losses
def test_parts_of_a_step_add_up_to_the_mean_squared_error_of_known_labels() -> None:
    predictions = torch.tensor([[1.0, 5.0], [2.0, 0.0], [4.0, 1.0], [0.0, 3.0]])
    labels = torch.tensor([[2.0, NAN], [2.0, 3.0], [1.0, NAN], [NAN, 1.0]])
    counts = labels.isfinite().sum(0)

    parts = [squared_error(predictions[rows], labels[rows], counts) for rows in ([0, 2], [1], [3])]

    expected = (1 + 0 + 9) / 3 + (9 + 4) / 2
    assert float(sum(parts)) == pytest.approx(expected)


def test_a_missing_label_gives_no_gradient() -> None:
    predictions = torch.zeros(2, 1, requires_grad=True)
    squared_error(predictions, torch.tensor([[NAN], [1.0]]), torch.tensor([1])).backward()
    assert predictions.grad is not None
    assert predictions.grad.tolist() == [[0.0], [-2.0]]


def test_rank_loss_is_the_mean_hinge_over_ordered_pairs() -> None:
    predictions = torch.tensor([[1.0], [3.0], [2.5], [9.0]])
    labels = torch.tensor([[3.0], [1.0], [2.0], [NAN]])
    pairs = [(a, b) for a, b in itertools.permutations(range(3), 2) if labels[a] > labels[b]]
    hinges = [max(0.0, float((labels[a] - labels[b]) - (predictions[a] - predictions[b]))) for a, b in pairs]

    assert float(rank_loss(predictions, labels)) == pytest.approx(sum(hinges) / 3)
    assert float(rank_loss(predictions[:1], labels[:1])) == 0


# --------------------------------------------------------------------------------------------- augmentation and batches
def test_augmentation_is_as_often_and_what_it_says() -> None:
    picture = torch.arange(3 * 4 * 4).view(3, 4, 4)
    views: dict[tuple[int, bool], Tensor] = {
        (turn, flip): torch.rot90(picture, turn, (1, 2)).flip(1) if flip else torch.rot90(picture, turn, (1, 2))
        for turn in range(4)
        for flip in (False, True)
    }
    found: Counter[tuple[int, bool]] = Counter()
    for row in range(4000):
        view = augmented(picture, PRESETS["ma-agiqa"], generator(20, row))
        found[next(kind for kind, pixels in views.items() if torch.equal(pixels, view))] += 1

    assert sum(n for (_, flip), n in found.items() if flip) / 4000 == pytest.approx(0.7, abs=0.03)
    assert sum(n for (turn, _), n in found.items() if turn) / 4000 == pytest.approx(0.7, abs=0.03)
    for turn in (1, 2, 3):
        assert sum(n for (t, _), n in found.items() if t == turn) / 4000 == pytest.approx(0.7 / 3, abs=0.03)


class _NumberedPixels(PictureCache):
    """A picture of the row's number, without files."""

    def __init__(self, rows: int) -> None:
        super().__init__([Path(f"{row}.png") for row in range(rows)], 2)

    def __getitem__(self, row: int) -> Tensor:
        return torch.full((3, 2, 2), row, dtype=torch.uint8)


def numbered_batches(process: int = 0, processes: int = 1, **changes: Any) -> Batches:
    labels = torch.arange(50.0)[:, None].clone()
    labels[7] = NAN
    data = TrainingData(_NumberedPixels(50), labels, {"coherence": torch.arange(50.0)[:, None].repeat(1, 3)})
    return Batches(data, preset("tiny", batch=8, **changes), process, processes, workers=2)


def test_processes_and_parts_share_each_step_of_one_process() -> None:
    rows = tuple(range(5, 26))  # 21: steps of 8, 8 and 5
    whole = [batch.rows.tolist() for batch in numbered_batches().epoch(rows, 3)]
    shared = [list(numbered_batches(process, 2, accumulate=3).epoch(rows, 3)) for process in (0, 1)]

    assert sorted(itertools.chain.from_iterable(whole)) == list(rows)
    assert whole != [batch.rows.tolist() for batch in numbered_batches().epoch(rows, 4)]
    for step, expected in enumerate(whole):
        parts = [batch for process in shared for batch in process[3 * step : 3 * step + 3]]
        counted = [row for b in parts if b.share for row in b.rows.tolist()]
        assert sorted(counted) == sorted(expected)
        assert sum(b.share for b in parts) == pytest.approx(1)
        assert all(b.labels.isnan().all() for b in parts if not b.share)
        assert {float(b.counts) for b in parts} == {len(expected) - expected.count(7)}


def test_an_epoch_goes_on_at_any_step_with_the_same_batches() -> None:
    rows = tuple(range(50))
    batches = numbered_batches()
    all_steps = [(b.rows.tolist(), b.pixels, b.vectors["coherence"]) for b in batches.epoch(rows, 0)]
    rest = [(b.rows.tolist(), b.pixels, b.vectors["coherence"]) for b in batches.epoch(rows, 0, first_step=4)]

    assert [step[0] for step in rest] == [step[0] for step in all_steps[4:]]
    assert all(torch.equal(a[1], b[1]) for a, b in zip(rest, all_steps[4:], strict=True))
    assert all(row == vector[0] for step in rest for row, vector in zip(step[0], step[2], strict=True))


def test_the_last_partial_batch_is_left_out_where_it_is_asked_for() -> None:
    assert numbered_batches().steps(range(20)) == 3
    assert numbered_batches(drop_last=True).steps(range(20)) == 2
    assert numbered_batches(drop_last=True).steps(range(5)) == 1  # there is no whole one


# ------------------------------------------------------------------------------------------------------------- pixels
def test_pixels_are_those_of_scorers_with_and_without_the_cache(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{side}.png" for side in (20, 33, 64)]
    for path, side in zip(paths, (20, 33, 64), strict=True):
        PIL.Image.fromarray(random.integers(0, 256, (side, 24, 3), dtype=np.uint8)).save(path)
    pixels = PictureCache(paths, 32)
    expected = visual_pixels(paths, size=32)

    assert torch.equal(normalised(torch.stack([pixels[row] for row in range(3)])), expected)
    counted: list[int] = []
    again = PictureCache(paths, 32)
    with watching(counted.append):
        pixels.keep_in(tmp_path / "cache")
        again.keep_in(tmp_path / "cache")
    assert torch.equal(normalised(torch.stack([again[row] for row in range(3)])), expected)
    assert sum(counted) == 3  # the second time it was there
    PIL.Image.new("RGB", (9, 9)).save(paths[0])
    PictureCache(paths, 32).keep_in(tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.np*"))) == 2  # of other pictures another file


def test_a_broken_picture_leaves_no_cache(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match="not a picture"):
        PictureCache([tmp_path / "a.png"], 8).keep_in(tmp_path / "cache")
    assert list((tmp_path / "cache").glob("*.np*")) == []


# ------------------------------------------------------------------------------------------------------------ network
def test_layer_decay_slows_the_earlier_blocks() -> None:
    settings = preset("tiny", layer_decay=0.5, learning_rate=1.0)
    network = network_module.TrainedNetwork(start(settings))
    rates = {
        id(p): g["highest"]
        for g in new_optimizer(network, settings, torch.device("cpu")).param_groups
        for p in g["params"]
    }
    by_name = {name: rates[id(parameter)] for name, parameter in network.model.named_parameters()}

    assert by_name["fusion.score.weight"] == by_name["stage1.reduce.weight"] == 1
    assert [by_name[f"features.vit.blocks.{block}.mlp.fc1.weight"] for block in range(4)] == [0.0625, 0.125, 0.25, 0.5]
    assert by_name["features.vit.patch_embed.proj.weight"] == by_name["features.vit.pos_embed"] == 0.03125


def test_heads_start_at_the_labels_mean_and_spread_and_no_patch_is_dead() -> None:
    model = start(
        PRESETS["tiny"],
        mean=torch.tensor([50.0, 3.0]),
        deviation=torch.tensor([20.0, 1.0]),
        targets=("quality", "authenticity"),
    )
    with torch.no_grad():
        scores = model.eval().forward_all(torch.rand(8, 3, 64, 64) * 2 - 1)

    assert float(scores["quality"].mean()) == pytest.approx(50, abs=20)
    assert float(scores["authenticity"].mean()) == pytest.approx(3, abs=1)
    plain, raised = (start(preset("tiny", score_bias=bias)).patch_quality.score[-2].bias for bias in (0.0, 0.5))
    assert torch.allclose(raised - plain, torch.full_like(plain, 0.5))


def test_the_papers_preset_starts_as_its_layers_do() -> None:
    assert PRESETS["ma-agiqa"].score_bias == 0
    small = replace(PRESETS["ma-agiqa"], model=replace(PRESETS["tiny"].model, semantic_dim=0), pretrained=False)
    network = start(small)
    torch.manual_seed(torch_seed(20, 3))
    plain = MaAgiqa(network.config).state_dict()

    assert all(torch.equal(value, plain[name]) for name, value in network.state_dict().items())


def made_up_scores(pictures: int, aligned: int) -> LabelledSet:
    """Quality of all pictures, alignment of the first ones."""
    rows = [
        LabelledPicture(
            Path(f"{row}.png"), f"{row}.png", {"quality": row, **({"alignment": 1} if row < aligned else {})}
        )
        for row in range(pictures)
    ]
    return LabelledSet("mine", tuple(rows), 0, pictures, 0, {"quality": (0, pictures), "alignment": (0, 5)})


@pytest.mark.parametrize(
    ("aligned", "middle", "of"),
    [
        (60, 7.0, "alignment: predictions for 60 pictures that were not trained on"),
        (20, 1.0, "alignment: labels of 10 training pictures"),
    ],
)
def test_percentiles_are_of_pictures_with_a_label(aligned: int, middle: float, of: str) -> None:
    held_out = np.full((100, 2), 3.0)
    held_out[:, 1] = [7.0 if row < aligned else np.nan for row in range(100)]
    training = np.full((40, 2), 2.0)
    training[:, 1] = [1.0 if row < 10 else np.nan for row in range(40)]

    facts, said = checkpoint_facts(made_up_scores(100, 50), ("quality", "alignment"), held_out, training, None)

    assert facts.quantiles[50] == 3
    assert facts.further["alignment"].quantiles[50] == middle
    assert said == f"quality: predictions for 100 pictures that were not trained on; {of}"


def test_cosine_filters_are_orthogonal_and_grow_with_the_frequency() -> None:
    projection = nn.Conv2d(3, 36, 4, stride=4)
    init_dct_patches(projection)
    flat = projection.weight.detach().flatten(1).double()
    norms = flat.norm(dim=1)
    products = (flat @ flat.T / (norms[:, None] * norms)).fill_diagonal_(0)
    repeated = len({tuple(row) for row in flat.numpy().round(6).tolist()}) < len(flat)  # 24 grey of 16 frequencies

    assert repeated
    assert products[24:, 24:].abs().max() < 1e-6
    assert products[:24, 24:].abs().max() < 1e-6
    assert norms[0] == pytest.approx(0.3, rel=1e-3)
    assert norms[23] / norms[0] == pytest.approx(1 + math.hypot(3, 3), rel=1e-3)


def test_the_backbones_weights_are_timms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    published = timm.create_model("vit_tiny_patch16_224")
    save_file(published.state_dict(), tmp_path / "model.safetensors")
    asked: list[str] = []

    def hub_file(model: str, *_: object, **__: object) -> Path:
        asked.append(model)
        return tmp_path / "model.safetensors"

    monkeypatch.setattr(network_module, "hub_file", hub_file)
    tag = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    settings = preset("tiny", pretrained=True, dct_patch_init=False)
    vit = start(replace(settings, model=replace(settings.model, backbone=tag))).features.vit

    assert asked == [f"timm/{tag}"]
    theirs = published.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in vit.state_dict().items() if name != "pos_embed")


# ------------------------------------------------------------------------------------------------------- sets, choice
def test_joined_sets_have_all_rows_and_one_scale_a_target(tmp_path: Path) -> None:
    def labelled(name: str, target: str, low: float, high: float) -> LabelledSet:
        pictures = tuple(
            LabelledPicture(tmp_path / f"{name}{n}.png", f"{n}", {target: score}) for n, score in enumerate((low, high))
        )
        return LabelledSet(name, pictures, low, high, 1)

    sets = [labelled("a", "quality", 0, 5), labelled("b", "quality", 0, 100), labelled("c", "authenticity", 1, 2)]
    both, split = merge_sets(sets, [Split((0,), (1,), ()), Split((1,), (), (0,)), Split((0, 1), (), ())])

    assert both.name == "a+b+c"
    assert both.targets == ("quality", "authenticity")
    assert [dict(picture.scores) for picture in both.pictures][:4] == [{"quality": x} for x in (0, 5, 0, 5)]
    assert split == Split((0, 3, 4, 5), (1,), (2,))
    assert both.unlabelled == 3
    with pytest.raises(ValueError, match="Expected each picture in one set"):
        merge_sets([sets[0], sets[0]], [Split((0,), (), ()), Split((1,), (), ())])


def test_the_best_epoch_is_chosen_by_the_sum_and_an_undefined_one_never_beats_it() -> None:
    assert selection_value({"quality": {"srcc": 0.5, "plcc": 0.25}}) == 0.75
    two = {"quality": {"srcc": 0.5, "plcc": 0.5}, "alignment": {"srcc": 0.0, "plcc": 0.5}}
    assert selection_value(two) == 0.75
    assert selection_value({"quality": {"srcc": None, "plcc": None}}) is None
    assert is_better(0.5, None)
    assert is_better(None, None)
    assert not is_better(None, 0.1)
    assert not is_better(0.5, 0.5)


def test_curves_are_drawn_with_gaps(tmp_path: Path) -> None:
    history = [
        {"epoch": epoch, "loss": 1 / epoch, "val": {"quality": {"srcc": value, "plcc": value}}}
        for epoch, value in ((1, None), (2, 0.5))
    ]
    plot_curves(history, 2, tmp_path / "curves.png")
    with PIL.Image.open(tmp_path / "curves.png") as image:
        assert image.size == (1080, 432)
