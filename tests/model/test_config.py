"""What a config accepts and refuses."""

import json
from typing import Any

import pytest

from ma_agiqa_core.model import MaAgiqaConfig


def test_default_is_the_published_model() -> None:
    config = MaAgiqaConfig()

    assert (config.backbone, config.backbone_blocks) == ("vit_base_patch8_224", (6, 7, 8, 9))
    assert (config.stage_widths, config.semantic_dim, config.swin_scale) == ((768, 384), 4096, 0.8)


def test_json_brings_a_config_back(tiny_config: MaAgiqaConfig) -> None:
    assert MaAgiqaConfig.from_dict(json.loads(json.dumps(tiny_config.to_dict()))) == tiny_config


def test_lists_and_whole_numbers_are_taken_for_tuples_and_floats() -> None:
    values: dict[str, Any] = {"swin_depths": [2, 2], "dropout": 0}

    config = MaAgiqaConfig(**values)

    assert config.swin_depths == (2, 2)
    assert isinstance(config.dropout, float)
    assert hash(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 0}, "Expected image_size of at least 1, got 0."),
        ({"window_size": -4}, "Expected window_size of at least 1, got -4."),
        ({"semantic_dim": -1}, "Expected semantic_dim of at least 0, got -1."),
        ({"swin_depths": ()}, "Expected swin_depths of at least 1, got ()."),
        ({"stage_widths": (768, 0)}, "Expected stage_widths of at least 1, got (768, 0)."),
        ({"stage_widths": (768,)}, "Expected two stage_widths, got (768,)."),
        ({"dropout": 1.0}, "Expected dropout from 0 to below 1, got 1.0."),
        ({"drop_path": float("nan")}, "Expected drop_path from 0 to below 1, got nan."),
        ({"swin_scale": float("inf")}, "Expected a finite swin_scale, got inf."),
        ({"backbone_blocks": (7, 6)}, "Expected ascending backbone_blocks counted from 0, got (7, 6)."),
        ({"backbone_blocks": (-1,)}, "Expected ascending backbone_blocks counted from 0, got (-1,)."),
        ({"swin_heads": (4,)}, "Expected swin_heads for 2 layers, got (4,)."),
        ({"swin_heads": (4, 5)}, "Expected swin_heads that divide (768, 384), got (4, 5)."),
        ({"backbone": 8}, "Expected str as backbone, got 8."),
        ({"semantic_dim": 4096.0}, "Expected int as semantic_dim, got 4096.0."),
        ({"semantic_dim": True}, "Expected int as semantic_dim, got True."),
        ({"swin_heads": ["4", 4]}, "Expected a tuple of int as swin_heads, got ('4', 4)."),
        ({"swin_scale": "0.8"}, "Expected float as swin_scale, got '0.8'."),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the text follows
        MaAgiqaConfig(**change)

    assert str(refusal.value) == message


def test_fields_are_checked_by_name() -> None:
    values = MaAgiqaConfig().to_dict()
    del values["window_size"]

    with pytest.raises(ValueError, match="got none of window_size"):
        MaAgiqaConfig.from_dict(values)
    with pytest.raises(ValueError, match="got the unknown depth, width"):
        MaAgiqaConfig.from_dict(MaAgiqaConfig().to_dict() | {"width": 3, "depth": 2})
    with pytest.raises(ValueError, match=r"Expected the fields of a config, got \[\]"):
        MaAgiqaConfig.from_dict([])  # type: ignore[arg-type]
