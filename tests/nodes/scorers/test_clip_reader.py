"""A CLIP that sees as a scorer: ComfyUI's own Qwen3-VL, small and of random numbers."""

from types import SimpleNamespace

import pytest
import torch

pytestmark = pytest.mark.comfyui_only

LANGUAGE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
EYES = {"hidden_size": 32, "intermediate_size": 64, "depth": 2, "num_heads": 2, "deepstack_visual_indexes": [0, 1]}


def initialised(clip):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        for name, weights in clip.cond_stage_model.named_parameters():
            if weights.ndim > 1:
                torch.nn.init.normal_(weights, std=weights[0].numel() ** -0.5)
            else:
                torch.nn.init.constant_(weights, float(name.endswith("weight")))
    return clip


@pytest.fixture
def sighted(comfy_modules, monkeypatch):
    """ComfyUI's CLIP with Qwen3-VL."""
    qwen3vl = pytest.importorskip("comfy.text_encoders.qwen3vl", reason="this ComfyUI has no text model that sees")
    from comfy.sd import CLIP

    monkeypatch.setitem(qwen3vl.QWEN3VL_VISION, "qwen3vl_4b", EYES)
    monkeypatch.setattr(qwen3vl, "QWEN3VL_VISION_COMMON", qwen3vl.QWEN3VL_VISION_COMMON | {"num_heads": 2})
    target = SimpleNamespace(
        params={}, clip=qwen3vl.te(model_type="qwen3vl_4b"), tokenizer=qwen3vl.tokenizer("qwen3vl_4b")
    )
    return initialised(CLIP(target, model_options={"qwen3vl_4b_model_config": LANGUAGE, "dtype": torch.float32}))


@pytest.fixture
def blind(comfy_modules):
    """ComfyUI's CLIP of Stable Diffusion 1.5."""
    from comfy import sd1_clip
    from comfy.sd import CLIP

    config = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    target = SimpleNamespace(params={}, clip=sd1_clip.SD1ClipModel, tokenizer=sd1_clip.SD1Tokenizer)
    options = {"clip_l_model_config": config, "dtype": torch.float32}
    return CLIP(target, model_options=options)


@pytest.fixture
def judge(pack_module):
    return pack_module("nodes.scorers.clip_reader").clip_judge


def pictures(count=2, side=64):
    return list(torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(2)))


def test_the_score_is_the_probability_of_yes(sighted, judge):
    scorer = judge(sighted)

    with torch.inference_mode():
        scores = scorer.score(pictures(), ["a cat", "a dog"])
        expected = [probability_of_yes(sighted, *given) for given in zip(pictures(), ("a cat", "a dog"), strict=True)]

    assert scores.tolist() == pytest.approx(expected, rel=1e-3)
    assert len(set(scores.tolist())) == 2
    assert scorer.info.needs_prompt
    assert (scorer.info.low, scorer.info.high) == (0, 1)


def probability_of_yes(clip, picture, prompt):
    """Straight through the network, without ComfyUI's generation of text."""
    pixels = (picture * 255).round() / 255
    text = f'Does this image show "{prompt}"?'
    tokens = clip.tokenize(text, image=pixels.movedim(0, -1)[None], thinking=False)
    (rows,) = tokens.values()
    inner = clip.cond_stage_model.qwen3vl_4b
    embeds, _, _, info = inner.process_tokens([[entry[0] for entry in row] for row in rows], torch.device("cpu"))
    answer = inner.transformer(None, embeds=embeds, embeds_info=info)[0]
    logits = answer[0, -1] @ inner.transformer.model.embed_tokens.weight.T
    return float(logits.softmax(-1)[9454])  # "Yes" in Qwen's vocabulary


def test_the_text_model_is_left_as_it_was(sighted, judge):
    own = [module for module in sighted.cond_stage_model.modules() if hasattr(module, "sample_token")]
    judge(sighted).score(pictures(1), "a cat")

    assert "sample_token" not in vars(own[0])
    assert sighted.generate(sighted.tokenize("a cat"), do_sample=False, max_length=2)


def test_another_question(sighted, judge):
    asked = judge(sighted, 'Is "{prompt}" what you see?').score(pictures(1), "a cat")

    assert asked.tolist() != judge(sighted).score(pictures(1), "a cat").tolist()
    with pytest.raises(ValueError, match=r"Expected .{prompt}. in the question"):
        judge(sighted, "Is it good?")


def test_a_clip_without_eyes_is_told_which_have_some(blind, judge):
    with pytest.raises(ValueError, match=r"sees pictures and answers, got SD1ClipModel.*Qwen3-VL, Qwen3\.5, Gemma 3"):
        judge(blind)


def test_the_bar_counts_pictures_not_tokens(sighted, pack_module, run_node, progress, batch):
    scorer = run_node(pack_module("nodes.clip_judge").ClipJudge, clip=sighted).args[0]
    node = pack_module("nodes.score_images").ScoreImages
    run_node(node, hidden={"unique_id": "7"}, scorer=scorer, images=batch[:2].repeat(1, 2, 2, 1), prompt="a cat")

    assert {total for _, total, _ in progress} == {2}
