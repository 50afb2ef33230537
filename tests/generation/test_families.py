"""The table of families as text, and what the loop of a pipeline that is not in it would need."""

import diffusers
import pytest
from click.testing import CliRunner
from project_paths import ROOT

from ma_agiqa_core.cli import cli
from ma_agiqa_core.errors import MaAgiqaError
from ma_agiqa_core.generation.families import families_text, main
from ma_agiqa_core.generation.pipelines.explain import Explanation, explain
from ma_agiqa_core.generation.pipelines.families import FAMILIES
from ma_agiqa_core.generation.pipelines.known.modular import GUIDERS
from ma_agiqa_core.generation.pipelines.refused import REFUSED
from ma_agiqa_core.generation.pipelines.schedulers import SCHEDULERS


def test_the_text_names_every_pipeline() -> None:
    text = families_text()
    for name in [*REFUSED, *(name for family in FAMILIES for name in family.pipelines)]:
        assert name in text


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_reading_the_loop_finds_what_the_table_says(family: object) -> None:
    """Of the pipelines that are known: whatever is cut there is among what the reader would have asked about."""
    for name in family.pipelines:  # type: ignore[attr-defined]
        if not hasattr(diffusers, name):
            continue
        found = explain(name)
        assert found.family == family.name  # type: ignore[attr-defined]
        assert set(found.networks or {}) & set(family.denoisers)  # type: ignore[attr-defined]
        assert "latents" in found.taken_back
        for count in family.row_counts:  # type: ignore[attr-defined]
            assert count in (*found.counts, *found.variables)


def test_a_pipeline_that_is_not_in_the_table() -> None:
    found = explain("SanaPAGPipeline")
    assert found.family is None
    assert found.networks is not None
    assert "encoder_attention_mask" in found.networks["transformer"]
    assert found.draws_noise
    text = found.text()
    assert "SanaPAGPipeline: not in the table." in text
    assert "Family(" in text
    assert "generator_in_step=True" in text


def explained(name: str) -> Explanation:
    """Of a pipeline that the oldest diffusers may not have."""
    if not hasattr(diffusers, name):
        pytest.skip(f"diffusers {diffusers.__version__} has no {name}")
    return explain(name)


def test_caches_are_found() -> None:
    assert explained("QwenImage21Pipeline").caches == ("cond_cache", "neg_cache")


@pytest.mark.parametrize(
    ("name", "counts"),
    [("ZImagePipeline", {"actual_batch_size"}), ("Ideogram4Pipeline", {"batch_size", "num_images_per_prompt"})],
)
def test_counts_are_found(name: str, counts: set[str]) -> None:
    assert set(explained(name).counts) >= counts


@pytest.mark.parametrize(
    ("name", "obstacle"),
    [
        ("LongCatImagePipeline", "callback_on_step_end in no loop"),
        ("PRXPipeline", "does not take `latents` back"),
    ],
)
def test_what_stands_in_the_way(name: str, obstacle: str) -> None:
    assert obstacle in explained(name).obstacles[0]


@pytest.mark.parametrize("name", ["NoSuchPipeline", "UNet2DConditionModel"])
def test_no_pipeline(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MaAgiqaError, match=f"Expected .*{name}"):
        explain(name)
    assert main(["--explain", name]) == 2
    assert name in capsys.readouterr().err


def test_the_page_says_what_the_tables_say() -> None:
    page = (ROOT / "docs" / "loop.md").read_text(encoding="utf-8")
    exact, refused = page.split("## What is exact")[1].split("## What is refused")
    for family in FAMILIES:
        for name in family.pipelines:
            assert f"`{name}`" in exact
    for name in REFUSED:
        assert f"`{name}`" in refused.split("## Modular")[0]
    for name in (*GUIDERS, *SCHEDULERS):
        assert f"`{name}`" in page
    count = sum(len(family.pipelines) for family in FAMILIES)
    assert f"It knows {count} pipelines" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_command() -> None:
    listed = CliRunner().invoke(cli, ["families"])
    assert listed.exit_code == 0
    assert "ZImagePipeline" in listed.output
    explained = CliRunner().invoke(cli, ["families", "--explain", "FluxPipeline"])
    assert explained.output.strip() == "FluxPipeline: exact, as a pipeline of the family 'flux'."
