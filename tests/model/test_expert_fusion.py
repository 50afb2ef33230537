"""The heads against their formulas."""

from typing import Any

import torch
from torch import nn

from ma_agiqa_core.model.expert_fusion import ExpertFusion, PatchQuality


def test_score_is_the_gated_sum_of_three_experts() -> None:
    torch.manual_seed(0)
    fusion: Any = ExpertFusion(patches=4, semantic_dim=3, dropout=0.1).eval()
    quality, content, coherence = torch.rand(2, 4), torch.randn(2, 3), torch.randn(2, 3)

    found = fusion(quality, {"semantic_content": content, "coherence": coherence})

    for b in range(2):
        experts = [
            (fusion.semantic_content[0].weight @ content[b] + fusion.semantic_content[0].bias).clamp_min(0),
            (fusion.coherence[0].weight @ coherence[b] + fusion.coherence[0].bias).clamp_min(0),
            fusion.visual.weight @ quality[b] + fusion.visual.bias,  # the visual one has no ReLU
        ]
        gate = fusion.gate.weight @ torch.cat(experts) + fusion.gate.bias
        mixed = gate[0] * experts[0] + gate[1] * experts[1] + gate[2] * experts[2]
        assert torch.allclose(found[b], fusion.score.weight[0] @ mixed + fusion.score.bias[0], atol=1e-6)


def test_without_semantics_the_visual_expert_scores_alone() -> None:
    fusion = ExpertFusion(patches=4, semantic_dim=0, dropout=0.1)
    quality = torch.rand(2, 4)

    assert [name for name, _ in fusion.named_children()] == ["visual", "score"]
    assert torch.equal(fusion(quality, {}), fusion.score(fusion.visual(quality))[:, 0])


def test_patch_quality_is_score_times_weight() -> None:
    torch.manual_seed(0)
    head = PatchQuality(width=6, dropout=0.5).eval()
    x = torch.randn(2, 5, 6)

    def perceptron(layers: nn.Module, x: torch.Tensor) -> torch.Tensor:
        hidden, out = (part for part in layers.modules() if isinstance(part, nn.Linear))
        return nn.functional.linear(nn.functional.linear(x, hidden.weight, hidden.bias).relu(), out.weight, out.bias)

    expected = perceptron(head.score, x).relu() * perceptron(head.weight, x).sigmoid()
    assert torch.allclose(head(x), expected[..., 0], atol=1e-6)
    assert not torch.equal(head.train()(x), head(x))
