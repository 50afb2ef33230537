"""CLIPScore, PickScore and SigLIP against transformers' own forward, and every mistake before anything is loaded."""

import json
import logging
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from ma_agiqa_core import EnsembleScorer, MaAgiqaError, PictureError, Scorer, cli, load_scorer, rank
from ma_agiqa_core.scorers import clip_files
from ma_agiqa_core.scorers.clip import ClipScorer

PROMPTS = ["a red cat", "two dogs", "a red cat", "", "the sea, seen from far above"]
TEXTS = [prompt or "x" for prompt in PROMPTS]
LONG = "a very long prompt " * 8


@pytest.fixture(scope="module")
def clip_folder(tiny_models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_clip(tmp_path_factory.mktemp("clip") / "tiny-clip")


@pytest.fixture(scope="module")
def pickscore_folder(tiny_models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_clip(tmp_path_factory.mktemp("clip") / "PickScore_v1")


@pytest.fixture(scope="module")
def siglip_folder(tiny_models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_clip(tmp_path_factory.mktemp("clip") / "tiny-siglip", model_type="siglip")


@pytest.fixture(scope="module")
def scorer(clip_folder: Path) -> Scorer:
    return load_scorer(f"clip:{clip_folder}", device="cpu")


@pytest.fixture(scope="module")
def pictures(noise_pictures):
    """Noise of unlike sizes, darkened by unlike factors: random towers see plain noise all alike."""
    return [picture // (number + 1) for number, picture in enumerate(noise_pictures)]


@torch.no_grad()
def forward(folder, pictures, texts, *, with_pillow=False, **padding):
    """transformers' own model on all pictures and texts at once, as the model's page shows it."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    if with_pillow:  # transformers 4 calls it CLIPImageProcessor
        kind = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
        processor.image_processor = kind.from_pretrained(folder)
    images = [PIL.Image.fromarray(picture) for picture in pictures]
    inputs = processor(text=texts, images=images, return_tensors="pt", truncation=True, **padding)
    return model, model(**inputs)


def test_clipscore_is_that_of_torchmetrics_and_ends_at_zero(scorer, clip_folder, pictures):
    _, output = forward(clip_folder, pictures, TEXTS, padding=True, max_length=77)
    cosines = torch.nn.functional.cosine_similarity(output.image_embeds, output.text_embeds)
    assert cosines.min() < -0.1
    expected = torch.maximum(100 * cosines, torch.zeros(5))  # torchmetrics.functional.multimodal.clip_score
    scores = scorer.score(pictures, TEXTS)
    assert scores.dtype == torch.float32
    assert scores.std() > 1
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("known_by", ["name", "origin"])
def test_pickscore_is_that_of_its_page(known_by, tiny_models, pickscore_folder, tmp_path, pictures):
    folder = pickscore_folder
    if known_by == "origin":
        folder = tiny_models.write_clip(tmp_path / "mine", _name_or_path="yuvalkirstain/PickScore_v1")
    model, output = forward(folder, pictures, TEXTS, with_pillow=True, padding=True, max_length=77)
    expected = model.logit_scale.exp() * (output.text_embeds @ output.image_embeds.T).diagonal()
    scorer = load_scorer(f"clip:{folder}", device="cpu")
    assert isinstance(scorer, ClipScorer)
    assert scorer.formula == "pickscore"
    assert scorer.info.high == pytest.approx(99.484, abs=0.01)
    assert scorer.info.low == -scorer.info.high
    assert "PickScore, exp(logit_scale) * cos" in scorer.info.description
    torch.testing.assert_close(scorer.score(pictures, TEXTS), expected.detach(), rtol=0, atol=1e-4)


def test_siglip_is_its_own_logit(siglip_folder, pictures):
    texts = ["a red cat", "two dogs", "a red cat", "x", "the sea"]
    _, output = forward(siglip_folder, pictures, texts, padding="max_length", max_length=64)
    scores = load_scorer(f"clip:{siglip_folder}", device="cpu").score(pictures, texts)
    assert scores.std() > 1
    torch.testing.assert_close(scores, output.logits_per_image.diagonal(), rtol=0, atol=1e-4)


def test_a_long_prompt_is_cut_and_the_log_says_so_once(scorer, pictures, caplog):
    letters = LONG.replace(" ", "")
    with caplog.at_level(logging.WARNING, logger="ma_agiqa_core.scorers.clip"):
        scores = scorer.score(pictures, LONG)
        scorer.score(pictures[:1], LONG)
        scorer.score(pictures, "short")
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"reads the first 77 of the {len(letters) + 2} tokens of the prompt {LONG!r}" in message
    torch.testing.assert_close(scorer.score(pictures, LONG + "with another end"), scores, rtol=0, atol=1e-4)
    assert (scorer.score(pictures, "short") - scores).abs().max() > 0.01


def test_the_scorer_says_what_it_is(scorer, clip_folder):
    info = scorer.info
    assert isinstance(scorer, Scorer)
    assert (info.name, info.low, info.high) == ("clipscore(tiny-clip)", 0.0, 100.0)
    assert info.needs_prompt
    assert not info.relative
    assert info.percentile(20.0) is None
    assert "CLIPScore, 100 * max(cos, 0)" in info.description
    assert "77 tokens" in info.description
    assert load_scorer(f"clip:{clip_folder}", device="cpu", revision=info.revision).info == info
    with pytest.raises(ValueError, match=f"revision 'other', got '{info.revision}'"):
        load_scorer(f"clip:{clip_folder}", revision="other")


def test_it_ranks_and_joins_an_ensemble_by_rank(scorer, pictures):
    expected = scorer.score(pictures, TEXTS)
    assert rank(scorer, pictures, prompts=TEXTS).kept[0].index == int(expected.argmax())
    both = EnsembleScorer([(scorer, 1), (load_scorer("lite", device="cpu"), 1)], combine="rank")
    assert both.info.needs_prompt
    assert both.score(pictures, "a red cat").shape == (5,)
    with pytest.raises(ValueError, match="has no quantiles"):
        EnsembleScorer([(scorer, 1)])


def test_prompts_are_needed(scorer, pictures):
    with pytest.raises(ValueError, match="Expected prompts, got None"):
        scorer.score(pictures)
    with pytest.raises(ValueError, match="prompt for picture 3, got an empty one"):
        scorer.score(pictures, PROMPTS)
    with pytest.raises(ValueError, match="one for each of 5 pictures, got 2"):
        scorer.score(pictures, ["a", "b"])
    with pytest.raises(ValueError, match="batch_size of at least 1"):
        scorer.score(pictures, "a", batch_size=0)
    assert scorer.score([], "a").shape == (0,)


def test_half_a_character_in_a_prompt_costs_only_its_picture(scorer, siglip_folder, pictures):
    prompts = [TEXTS[0], "cut \ud83d", *TEXTS[2:]]
    for other in (scorer, load_scorer(f"clip:{siglip_folder}", device="cpu")):
        scores = other.score(pictures, prompts, on_error="nan")
        assert scores.isnan().tolist() == [False, True, False, False, False]
        expected = other.score([pictures[0], *pictures[2:]], [TEXTS[0], *TEXTS[2:]])
        torch.testing.assert_close(scores[scores.isfinite()], expected)
        with pytest.raises(PictureError, match=r"Picture 1 .*half a character, '\\ud83d' at 4, .*write it again"):
            other.score(pictures, prompts)
        assert other.score(pictures[:2], "\udc00", on_error="nan").isnan().all()
    assert [picture.index for picture in rank(scorer, pictures, prompts=prompts).failed] == [1]


def test_strange_prompts_are_scored(scorer, siglip_folder, pictures, caplog):
    whole = ["a\0cat", "\u202eredrum", "🐈\u200d⬛", np.str_("a red cat"), "a cat " * 5_000]
    for other in (scorer, load_scorer(f"clip:{siglip_folder}", device="cpu")):
        scores = other.score(pictures, whole)
        assert scores.isfinite().all()
        torch.testing.assert_close(scores[3], other.score(pictures[3:4], "a red cat")[0])
    assert max(len(record.getMessage()) for record in caplog.records) < 500, "of a long one the log has the beginning"


def test_pictures_that_cannot_be_scored(scorer, clip_folder, pictures, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    mixed = [pictures[0], tmp_path / "broken.png", pictures[1]]
    assert scorer.score(mixed, "a", on_error="nan").isnan().tolist() == [False, True, False]
    with pytest.raises(PictureError, match=r"Picture 1 .*broken\.png"):
        scorer.score(mixed, "a")
    broken = load_scorer(f"clip:{clip_folder}", device="cpu")
    assert isinstance(broken, ClipScorer)
    broken.model.visual_projection.weight.data.fill_(float("inf"))
    with pytest.raises(PictureError, match="its score is nan: use dtype 'float32'"):
        broken.score(pictures, "a")


def test_half_precision_is_near(scorer, clip_folder, pictures):
    half = load_scorer(f"clip:{clip_folder}", device="cpu", dtype="bfloat16")
    torch.testing.assert_close(half.score(pictures, TEXTS), scorer.score(pictures, TEXTS), rtol=0.1, atol=2)


def without(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).unlink()
    return folder


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: without(f, "preprocessor_config.json"), "Expected preprocessor_config.json in .*got none.*Download"),
        (lambda f: without(f, "vocab.json"), "Expected tokenizer.json in .*got none"),
        (lambda f: without(f, "model.safetensors"), "got neither"),
        (lambda f: without(f, "config.json"), "Expected config.json in"),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "got 'bert'. Use CLIP, SigLIP"),
        (lambda f: (f / "config.json").write_text("not json"), "Expected JSON in"),
    ],
)
def test_an_incomplete_folder_is_refused_before_anything_is_loaded(tiny_models, tmp_path, monkeypatch, damage, message):
    folder = tiny_models.write_clip(tmp_path / "model")
    damage(folder)
    monkeypatch.setattr(clip_files, "load_clip", None)
    with pytest.raises(ValueError, match=message):
        load_scorer(f"clip:{folder}", device="cpu")


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        ("clip:", {}, ValueError, "folder or Hub id after 'clip:', got none"),
        ("clip:./nowhere", {}, FileNotFoundError, "got './nowhere': no such folder"),
        ("clip:{folder}", {"dtype": "int3"}, ValueError, "got 'int3'"),
        ("clip:{folder}", {"device": "abacus"}, ValueError, "got 'abacus'"),
        ("clip:{folder}", {"semantic": "owl"}, ValueError, "Expected no semantic= .*got 'owl'"),
        ("clip:{folder}", {"quantization": "int8"}, ValueError, "Expected no quantization= .*got 'int8'"),
        ("clip:owner/absent", {"local_files_only": True}, FileNotFoundError, "hf download owner/absent"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(clip_folder, monkeypatch, model, options, error, message):
    monkeypatch.setattr(clip_files, "load_clip", None)
    with pytest.raises(error, match=message):
        load_scorer(model.format(folder=clip_folder), **options)


def test_weights_that_lack_or_do_not_fit_are_refused(tiny_models, tmp_path):
    folder = tiny_models.write_clip(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"for visual_projection\.weight"):
        load_scorer(f"clip:{folder}", device="cpu")
    (folder / "model.safetensors").write_bytes(b"12345678 not safe")
    with pytest.raises(ValueError, match=r"damaged .*model\.safetensors.*Download it again"):
        load_scorer(f"clip:{folder}", device="cpu")


def test_pickscore_without_a_tokenizer_takes_that_of_the_model_it_was_tuned_from(
    tiny_models, clip_folder, tmp_path, monkeypatch, pictures
):
    folder = tiny_models.write_clip(tmp_path / "pickscore")
    expected = load_scorer(f"clip:{folder}", device="cpu").score(pictures, TEXTS)
    without(folder, "preprocessor_config.json", "vocab.json", "merges.txt", "tokenizer_config.json")
    with pytest.raises(FileNotFoundError, match=r"got none\. PickScore uses those of laion/CLIP-ViT-H-14"):
        load_scorer(f"clip:{folder}", device="cpu", local_files_only=True)
    monkeypatch.setattr(clip_files, "hub_file", lambda model, name, **_: clip_folder / name)
    torch.testing.assert_close(load_scorer(f"clip:{folder}", device="cpu").score(pictures, TEXTS), expected)


@pytest.mark.parametrize(
    ("file", "name"), [("preprocessor_config.json", "image_mean"), ("tokenizer_config.json", "model_max_length")]
)
def test_settings_that_cannot_be_used_are_refused_before_the_first_picture(tiny_models, tmp_path, file, name):
    folder = tiny_models.write_clip(tmp_path / "clip")
    settings = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**settings, name: "x"}))
    with pytest.raises(MaAgiqaError, match=r"picture preprocessing in .*got settings that cannot be used"):
        load_scorer(f"clip:{folder}", device="cpu")


def test_rank_on_the_command_line(clip_folder, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number, picture in enumerate(pictures):
        PIL.Image.fromarray(picture).save(tmp_path / f"{number}.png")
    lines = [json.dumps({"path": f"{number}.png", "prompt": text}) for number, text in enumerate(TEXTS)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    command = ["rank", ".", "--model", f"clip:{clip_folder}", "--device", "cpu", "--json"]
    assert cli.run(command) == cli.WRONG_USAGE
    assert "Give --prompts FILE" in capsys.readouterr().err
    assert cli.run([*command, "--prompts", "prompts.jsonl"]) == 0
    ranking = json.loads(capsys.readouterr().out)
    expected = load_scorer(f"clip:{clip_folder}", device="cpu").score(pictures, TEXTS)
    assert [record["path"] for record in ranking["kept"]] == [f"{i}.png" for i in expected.argsort(descending=True)]
    assert ranking["model"]["needs_prompt"]


def test_models_lists_it(clip_folder, tmp_path, monkeypatch, capsys):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert cli.run(["models", str(clip_folder), "--json"]) == 0
    _, found = json.loads(capsys.readouterr().out)["models"]
    assert (found["name"], found["kind"], found["source"]) == ("tiny-clip", "scorer", "folder")
    assert f"--model clip:{clip_folder}" in found["description"]
    assert found["revision"] == load_scorer(f"clip:{clip_folder}", device="cpu").info.revision


def test_a_hub_id_is_taken_from_this_machine_without_asking(clip_folder, pictures, tmp_path, monkeypatch):
    from huggingface_hub import constants

    from ma_agiqa_core.model_files import hub

    cached = tmp_path / "models--owner--pickscore"
    shutil.copytree(clip_folder, cached / "snapshots" / ("d" * 40))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("d" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "check_reachable", None)
    scorer = load_scorer("clip:owner/pickscore", device="cpu")
    assert scorer.info.name == "pickscore(owner/pickscore)"
    assert load_scorer(f"clip:owner/pickscore@{'d' * 40}", device="cpu").info == scorer.info
    assert scorer.score(pictures, TEXTS).isfinite().all()
    with pytest.raises(FileNotFoundError, match="at revision 'other'"):
        load_scorer("clip:owner/pickscore", revision="other", local_files_only=True)
