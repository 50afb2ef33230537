"""A made-up set, and settings with which an epoch on it takes a fraction of a second."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up_set
import pytest
import torch

from ma_agiqa_core.labels.labelled_set import LabelledSet, read_labels
from ma_agiqa_core.labels.splits import make_split
from ma_agiqa_core.model import MaAgiqaConfig
from ma_agiqa_core.training import loop
from ma_agiqa_core.training.settings import TrainingSettings, preset
from ma_agiqa_core.training.train import TrainingResult, train

SMALL = MaAgiqaConfig(
    backbone="test_vit",
    image_size=32,  # 2 x 2 patches
    backbone_blocks=(0, 1),
    stage_widths=(16, 8),
    channel_attention_blocks=1,
    window_size=2,
    swin_mlp_width=16,
    swin_heads=(2, 2),
    semantic_dim=0,
)


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def made_up_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The labels of 40 pictures of 32 px; the pictures lie in pictures/ beside it."""
    return made_up_set.write(tmp_path_factory.mktemp("made-up") / "set", 40, side=32)


@pytest.fixture
def made_up(made_up_table: Path) -> LabelledSet:
    return read_labels(made_up_table, made_up_table.with_name("pictures"), score_column="mos")


@pytest.fixture
def small_settings() -> TrainingSettings:
    """Three epochs of four steps (28 pictures, eight a step)."""
    return replace(preset("tiny", model=SMALL, epochs=3, batch=8, warmup=0), features=None)


@pytest.fixture
def run_training(
    made_up: LabelledSet, small_settings: TrainingSettings, one_thread: None
) -> Callable[..., TrainingResult]:
    """Trains on the made-up set: run(out, epochs=..., semantic=..., ...), settings and arguments by name.

    The curves are drawn on request: it takes as long as the training.
    """

    def run(out: Path, *, labelled: LabelledSet = made_up, draws: bool = False, **options: Any) -> TrainingResult:
        fields = {name: options.pop(name) for name in list(options) if hasattr(small_settings, name)}
        settings = replace(small_settings, **fields)
        with pytest.MonkeyPatch.context() as patch:
            if not draws:
                patch.setattr(loop, "plot_curves", lambda history, best_epoch, path: None)
            return train(settings, labelled, make_split(labelled), out, device="cpu", **options)

    return run
