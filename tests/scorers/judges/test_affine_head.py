"""One affine map in the place of linear layers: against torch's own, layer by layer."""

from itertools import pairwise

import pytest
import torch

from ma_agiqa_core import MaAgiqaError
from ma_agiqa_core.scorers.judges.affine_head import AffineHead


def layers(*widths: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    table = {}
    for place, (width, to) in enumerate(pairwise(widths)):
        table[f"mlp.{2 * place}.weight"] = torch.randn(to, width, generator=generator)
        table[f"mlp.{2 * place}.bias"] = torch.randn(to, generator=generator)
    return table


def test_it_is_the_layers_one_after_the_other() -> None:
    table = layers(6, 9, 4, 1)
    features = torch.randn(5, 6, generator=torch.Generator().manual_seed(4))
    expected = features.double()
    for place in (0, 2, 4):
        expected = torch.nn.functional.linear(
            expected, table[f"mlp.{place}.weight"].double(), table[f"mlp.{place}.bias"].double()
        )
    head = AffineHead.of_layers(table, "mlp.", shift=0.5, scale=2.0)
    assert head.width == 6
    torch.testing.assert_close(head(features), ((expected[:, 0] - 0.5) / 2).float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.clear(), "no layers mlp.0.weight"),
        (lambda table: table.pop("mlp.2.bias"), "no whole layer mlp.2"),
        (lambda table: table.update({"mlp.2.weight": torch.ones(4, 8)}), r"\(4, 8\) after 9 features"),
        (lambda table: [table.pop(f"mlp.4.{part}") for part in ("weight", "bias")], "4 numbers at the end"),
        (lambda table: table["mlp.0.bias"].fill_(float("inf")), "not finite"),
    ],
)
def test_layers_that_are_none_of_a_head_are_refused(change, message) -> None:  # type: ignore[no-untyped-def]
    table = layers(6, 9, 4, 1)
    change(table)
    with pytest.raises(MaAgiqaError, match=message):
        AffineHead.of_layers(table, "mlp.")
