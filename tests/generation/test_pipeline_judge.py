"""The judge that a pipeline carries: VQAScore by its own text encoder, on tiny random pipelines."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_chat_models
import torch
import transformers

from ma_agiqa_core import MaAgiqaError, load_scorer
from ma_agiqa_core.generation import best_of_n, pipeline_judge

PROMPTS = ["a red cat", "two dogs", "the sea"]


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((60, 90), (56, 56), (90, 40))]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    tiny_chat_models.save_qwen2_5_vl(folder)
    return folder


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen3")
    tiny_chat_models.save_qwen3_vl(folder)
    return folder


def qwen_image(folder: Path) -> Any:
    """A tiny Qwen-Image whose text encoder is the model in a folder; only its tokenizer comes along, as published."""
    import diffusers
    from tiny_pipelines import SCHEDULERS
    from tiny_pipelines.making import awaken

    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=tiny_chat_models.TEXT["hidden_size"],
        axes_dims_rope=(2, 2, 4),
    )
    autoencoder = diffusers.AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.1, 0.2, 0.0],
        latents_std=[1.0, 1.2, 0.9, 1.1],
    )
    return diffusers.QwenImagePipeline(
        transformer=awaken(transformer, 60),
        scheduler=SCHEDULERS["flow_euler_dynamic"](),
        vae=awaken(autoencoder, 61),
        text_encoder=transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder).eval(),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
    )


def flux2(folder: Path) -> Any:
    """A tiny FLUX.2 dev, which carries the whole processor as its tokenizer."""
    import diffusers
    from tiny_pipelines import SCHEDULERS
    from tiny_pipelines.flux import flux2_network, flux2_vae

    return diffusers.Flux2Pipeline(
        transformer=flux2_network(text=2 * tiny_chat_models.TEXT["hidden_size"]),
        scheduler=SCHEDULERS["flow_euler_dynamic"](),
        vae=flux2_vae(),
        text_encoder=transformers.Mistral3ForConditionalGeneration.from_pretrained(folder).eval(),
        tokenizer=transformers.AutoProcessor.from_pretrained(folder),
    )


def krea2(folder: Path) -> Any:
    """A tiny Krea 2, whose text encoder is a bare model with tied embeddings, and has only a tokenizer."""
    import diffusers
    from tiny_pipelines import SCHEDULERS
    from tiny_pipelines.qwen import krea2_network, qwen_vae

    bare = transformers.Qwen3VLForConditionalGeneration.from_pretrained(folder).eval().model
    bare.config.text_config.tie_word_embeddings = True
    return diffusers.Krea2Pipeline(
        transformer=krea2_network(text=tiny_chat_models.TEXT["hidden_size"]),
        scheduler=SCHEDULERS["flow_euler_dynamic"](),
        vae=qwen_vae(),
        text_encoder=bare,
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
        text_encoder_select_layers=(0, 1),
    )


class Carries:
    """Stands for a pipeline of which only the text encoder matters."""

    def __init__(self, text_encoder: Any, **components: Any) -> None:
        self.text_encoder = text_encoder
        self.__dict__.update(components)


def test_it_scores_as_the_same_model_loaded_from_its_files(qwen: Path, pictures: list[np.ndarray]) -> None:
    judge = pipeline_judge(qwen_image(qwen), processor=qwen)
    loaded = load_scorer(f"vqascore:{qwen}", device="cpu")
    expected = loaded.score(pictures, PROMPTS)
    assert expected.std() > 0
    torch.testing.assert_close(judge.score(pictures, PROMPTS), expected, atol=1e-6, rtol=1e-4)


def test_the_text_encoder_stays_as_it_is(qwen: Path, pictures: list[np.ndarray]) -> None:
    pipe = qwen_image(qwen)
    before = list(pipe.text_encoder.state_dict())
    call = {"prompt": "a red cat", "height": 16, "width": 16, "num_inference_steps": 2, "output_type": "np"}
    expected = pipe(**call, generator=torch.Generator().manual_seed(0)).images
    hooks = _hooks(pipe.text_encoder)  # transformers has some of its own
    pipeline_judge(pipe, processor=qwen).score(pictures, PROMPTS)
    assert list(pipe.text_encoder.state_dict()) == before
    assert _hooks(pipe.text_encoder) == hooks
    np.testing.assert_array_equal(pipe(**call, generator=torch.Generator().manual_seed(0)).images, expected)


def _hooks(model: Any) -> list[int]:
    return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]


def test_best_of_n_takes_it(qwen: Path) -> None:
    pipe = qwen_image(qwen)
    judge = pipeline_judge(pipe, processor=qwen)
    result = best_of_n(pipe, judge, "a red cat", n=3, keep=3, height=16, width=16, num_inference_steps=2)
    assert sorted(result.scores, reverse=True) == list(result.scores)
    again = judge.score(result.images, "a red cat")
    torch.testing.assert_close(again, torch.tensor(list(result.scores)), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("save", "make", "given", "call"),
    [
        ("save_mistral3", flux2, False, {"text_encoder_out_layers": (1, 2), "guidance_scale": 3.0}),
        ("save_qwen3_vl", krea2, True, {"guidance_scale": 2.0}),
    ],
    ids=["FLUX.2 dev", "Krea 2"],
)
def test_other_pipelines_judge_their_own_pictures(
    tmp_path: Path, pictures: list[np.ndarray], save: str, make: Any, given: bool, call: dict[str, Any]
) -> None:
    """Their scores are those of the same model loaded from its files, and dropping candidates by them is exact."""
    import diffusers

    if not hasattr(diffusers, {flux2: "Flux2Pipeline", krea2: "Krea2Pipeline"}[make]):
        pytest.skip(f"diffusers {diffusers.__version__} has no such pipeline")
    getattr(tiny_chat_models, save)(tmp_path)
    pipe = make(tmp_path)
    judge = pipeline_judge(pipe, processor=tmp_path if given else None)
    if not given:
        expected = load_scorer(f"vqascore:{tmp_path}", device="cpu").score(pictures, PROMPTS)
        assert expected.std() > 0
        torch.testing.assert_close(judge.score(pictures, PROMPTS), expected, atol=1e-6, rtol=1e-4)
    call |= {"height": 64, "width": 64, "num_inference_steps": 4, "max_sequence_length": 64, "output_type": "pt"}
    result = best_of_n(pipe, judge, "a red cat", n=3, prune_at={0.5: 1}, preview="vae", **call)
    alone = pipe(prompt="a red cat", generator=torch.Generator("cpu").manual_seed(result.seeds[0]), **call).images[0]
    assert (result.images[0] - alone).abs().max() <= 1e-4
    scores = result.history[0].scores
    assert result.history[0].kept == (max(scores, key=lambda row: scores[row]),)
    assert len(set(scores.values())) == 3


def test_a_bare_model_with_tied_embeddings_answers_too(qwen3: Path, pictures: list[np.ndarray]) -> None:
    """Krea 2's text encoder has no LM head: its embeddings are the head."""
    whole = transformers.Qwen3VLForConditionalGeneration.from_pretrained(qwen3).eval()
    whole.lm_head.weight = whole.get_input_embeddings().weight
    processor = transformers.AutoProcessor.from_pretrained(qwen3)
    expected = pipeline_judge(Carries(whole, processor=processor)).score(pictures, PROMPTS)
    bare = whole.model
    bare.config.text_config.tie_word_embeddings = True
    judge = pipeline_judge(Carries(bare), processor=processor)
    torch.testing.assert_close(judge.score(pictures, PROMPTS), expected, atol=1e-6, rtol=1e-4)


def test_a_model_without_a_head_is_refused(qwen3: Path) -> None:
    bare = transformers.Qwen3VLForConditionalGeneration.from_pretrained(qwen3).eval().model
    with pytest.raises(MaAgiqaError, match="Qwen3VLModel, which has no LM head"):
        pipeline_judge(Carries(bare), processor=qwen3)


def test_a_text_encoder_that_only_reads_is_refused() -> None:
    config = transformers.Qwen3Config(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        vocab_size=8,
    )
    with pytest.raises(MaAgiqaError, match="Qwen3ForCausalLM reads text only"):
        pipeline_judge(Carries(transformers.Qwen3ForCausalLM(config)))


def test_no_text_encoder_is_refused() -> None:
    with pytest.raises(MaAgiqaError, match="got Carries without one"):
        pipeline_judge(Carries(None))


def test_a_processor_that_is_not_there_is_named(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ma_agiqa_core.model_files.hub.check_reachable", _unreachable)
    with pytest.raises(FileNotFoundError, match="pass processor=FOLDER"):
        pipeline_judge(qwen_image(qwen))


def _unreachable() -> None:
    raise OSError("no network here")


def test_an_incomplete_processor_is_named(qwen: Path) -> None:
    processor = transformers.AutoProcessor.from_pretrained(qwen)
    processor.chat_template = None
    with pytest.raises(MaAgiqaError, match="no chat_template"):
        pipeline_judge(qwen_image(qwen), processor=processor)


def test_models_that_take_turns_on_the_card_are_sent_away(qwen: Path, pictures: list[np.ndarray]) -> None:
    """enable_model_cpu_offload's hooks, with the CPU as the device: what is sent away is counted."""
    from accelerate import cpu_offload_with_hook

    pipe = qwen_image(qwen)
    sent: list[str] = []
    _, text_hook = cpu_offload_with_hook(pipe.text_encoder, "cpu")
    _, network_hook = cpu_offload_with_hook(pipe.transformer, "cpu", prev_module_hook=text_hook)
    pipe._all_hooks = [text_hook, network_hook]
    for name, hook in (("text encoder", text_hook), ("transformer", network_hook)):
        hook.offload = lambda name=name: sent.append(name)
    judge = pipeline_judge(pipe, processor=qwen)
    pipe.text_encoder.register_forward_pre_hook(lambda *call: sent.append("judged"))
    judge.score(pictures[0], PROMPTS[0])
    assert list(dict.fromkeys(sent)) == ["transformer", "judged", "text encoder"]


def test_another_question_is_asked(qwen: Path, pictures: list[np.ndarray]) -> None:
    pipe = qwen_image(qwen)
    usual, other = (
        pipeline_judge(pipe, processor=qwen, question=question).score(pictures, PROMPTS)
        for question in (None, "Is this {prompt}?")
    )
    assert not torch.allclose(usual, other)
    with pytest.raises(MaAgiqaError, match="'Is it\\?'"):
        pipeline_judge(pipe, processor=qwen, question="Is it?")
