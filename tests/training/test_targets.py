"""Several targets, end to end: the heads, the question about the prompt, files of either age, scorers, commands."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tiny_models
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ma_agiqa_core import MaAgiqaError, PictureError, cli, load_scorer
from ma_agiqa_core.checkpoint import CheckpointFacts, TargetScale, load_checkpoint, read_facts, save_checkpoint
from ma_agiqa_core.labels.labelled_set import LabelledPicture
from ma_agiqa_core.model import MaAgiqa, MaAgiqaConfig
from ma_agiqa_core.preprocess import visual_pixels
from ma_agiqa_core.scorers.ma_agiqa import MaAgiqaScorer
from ma_agiqa_core.semantic import SemanticExtractor
from ma_agiqa_core.semantic.published_mplug_owl2 import PublishedMplugOwl2
from ma_agiqa_core.semantic.questions import ALIGNMENT_QUESTION, QUESTIONS, questions_for
from ma_agiqa_core.training.semantic_vectors import semantic_vectors

TARGETS = ("quality", "alignment", "authenticity")
PROMPTS = ["a cat", "a dog {asleep}", "a cat", "", "two birds"]
ONE = MaAgiqaConfig(
    backbone="vit_tiny_patch16_224",
    image_size=64,
    backbone_blocks=(0, 1),
    stage_widths=(16, 8),
    swin_mlp_width=12,
    window_size=2,
    semantic_dim=10,
)
SEVERAL = dataclasses.replace(ONE, targets=TARGETS)


@pytest.fixture(scope="module")
def model() -> MaAgiqa:
    torch.manual_seed(0)
    return MaAgiqa(SEVERAL).eval()


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of all targets for vectors of width 64."""
    return tiny_models.write_checkpoint(tmp_path_factory.mktemp("three") / "three.safetensors", 64, TARGETS)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str]]]:
    """What the language model was asked, call by call: how many pictures, which questions."""
    calls: list[tuple[int, list[str]]] = []
    features = PublishedMplugOwl2.features

    def watched(self: Any, pictures: Any, questions: Any) -> Any:
        calls.append((len(pictures), list(questions.values())))
        return features(self, pictures, questions)

    monkeypatch.setattr(PublishedMplugOwl2, "features", watched)
    return calls


def inputs(width: int = 10) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(1)
    return torch.rand(3, 3, 64, 64) * 2 - 1, {
        name: torch.randn(3, width) for name in ("semantic_content", "coherence", "alignment")
    }


# The network


def test_the_first_target_keeps_the_published_names_and_further_ones_get_heads(model: MaAgiqa) -> None:
    one = set(MaAgiqa(ONE).state_dict())
    several = set(model.state_dict())

    assert one < several
    assert {name.split(".")[1] for name in several - one} == {"alignment", "authenticity"}
    heads: Any = model.heads
    assert heads["alignment"].gate.weight.shape == (4, 4 * 16)
    assert heads["authenticity"].gate.weight.shape == (3, 3 * 16)


def test_all_targets_at_once_are_each_target_alone_and_the_shared_part_runs_once(model: MaAgiqa) -> None:
    pixels, vectors = inputs()
    runs: list[int] = []
    hook = model.features.register_forward_hook(lambda *_: runs.append(1))

    with torch.inference_mode():
        scores = model.forward_all(pixels, **vectors)
        assert len(runs) == 1
        alone = {target: model(pixels, **vectors, target=target) for target in TARGETS}
    hook.remove()

    assert list(scores) == list(TARGETS)
    for target, score in scores.items():
        assert score.shape == (3,)
        torch.testing.assert_close(score, alone[target])
    assert torch.equal(model(pixels, **vectors), alone["quality"])


def test_only_alignment_reads_its_vector(model: MaAgiqa) -> None:
    pixels, vectors = inputs()
    other = vectors | {"alignment": -vectors["alignment"]}

    with torch.inference_mode():
        before, after = model.forward_all(pixels, **vectors), model.forward_all(pixels, **other)
        fixed = {name: vector for name, vector in vectors.items() if name != "alignment"}
        assert torch.equal(model(pixels, **fixed, target="authenticity"), before["authenticity"])

    assert torch.equal(before["quality"], after["quality"])
    assert (before["alignment"] - after["alignment"]).abs().min() > 1e-6
    for call in (lambda: model(pixels, **fixed, target="alignment"), lambda: model.forward_all(pixels, **fixed)):
        with pytest.raises(ValueError, match=r"Expected alignment \(3, 10\), got None"):
            call()
    with pytest.raises(ValueError, match=r"Expected no alignment, got \(3, 10\): this model has no alignment head"):
        MaAgiqa(ONE)(pixels, **vectors)
    with pytest.raises(ValueError, match="a target of this model, quality, alignment, authenticity, got 'beauty'"):
        model(pixels, **vectors, target="beauty")


def test_alignment_can_be_the_only_target_and_the_visual_expert_can_have_several() -> None:
    pixels, vectors = inputs()

    alone = MaAgiqa(dataclasses.replace(ONE, targets=("alignment",)))
    assert alone.config.vectors == ("semantic_content", "coherence", "alignment")
    assert alone(pixels, **vectors).shape == (3,)
    visual = MaAgiqa(dataclasses.replace(SEVERAL, semantic_dim=0))
    assert visual.config.vectors == ()
    assert [len(score) for score in visual.forward_all(pixels).values()] == [3, 3, 3]


def test_every_target_trains_the_shared_part_and_its_own_head(model: MaAgiqa) -> None:
    pixels, vectors = inputs()
    own = MaAgiqa(SEVERAL)
    own.forward_all(pixels, **vectors)["alignment"].sum().backward()

    with_gradient = {name.split(".")[0] for name, p in own.named_parameters() if p.grad is not None}
    assert with_gradient == {"features", "stage1", "stage2", "patch_quality", "heads"}
    assert {name.split(".")[1] for name, p in own.heads.named_parameters(prefix="heads") if p.grad is not None} == {
        "alignment"
    }


@pytest.mark.parametrize("targets", [(), ("quality", "quality"), ("no.dots",), ("",)])
def test_impossible_targets_are_refused(targets: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="Expected targets with distinct names such as 'quality', got"):
        MaAgiqaConfig(targets=targets)


def test_a_config_from_before_there_were_several_is_of_quality() -> None:
    values = ONE.to_dict()
    assert values.pop("targets") == ["quality"]
    assert MaAgiqaConfig.from_dict(values) == ONE
    assert MaAgiqaConfig.from_dict(json.loads(json.dumps(SEVERAL.to_dict()))) == SEVERAL
    with pytest.raises(ValueError, match=r"a tuple of str as targets, got \(1,\)"):
        MaAgiqaConfig(targets=(1,))  # type: ignore[arg-type]


# Files


def test_scales_of_further_targets_come_back(model: MaAgiqa, tmp_path: Path) -> None:
    facts = CheckpointFacts(
        low=0,
        high=5,
        quantiles=(1.0, 4.0),
        further={"alignment": TargetScale(0.0, 100.0, (10.0, 50.0, 90.0))},
        questions=questions_for(TARGETS),
    )
    save_checkpoint(model, tmp_path / "several.safetensors", facts)

    found = read_facts(tmp_path / "several.safetensors")
    assert found == facts
    assert found.scale_of("quality", TARGETS) == TargetScale(0, 5, (1.0, 4.0))
    assert found.scale_of("alignment", TARGETS) == TargetScale(0, 100, (10.0, 50.0, 90.0))
    assert found.scale_of("authenticity", TARGETS) == TargetScale(0, 5, ())
    again = load_checkpoint(tmp_path / "several.safetensors")
    pixels, vectors = inputs()
    for target, score in again.forward_all(pixels, **vectors).items():
        assert torch.equal(score, model(pixels, **vectors, target=target))


def test_a_file_from_before_there_were_several_loads(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    before = MaAgiqa(ONE).eval()
    save_checkpoint(before, path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        metadata = file.metadata()
    config = json.loads(metadata["ma_agiqa.config"])
    del config["targets"], metadata["ma_agiqa.further"]
    save_file(tensors, path, metadata | {"ma_agiqa.config": json.dumps(config)})

    pixels, vectors = inputs()
    del vectors["alignment"]
    assert torch.equal(load_checkpoint(path)(pixels, **vectors), before(pixels, **vectors))
    assert read_facts(path) == CheckpointFacts(questions=QUESTIONS)


def test_a_model_of_several_targets_is_asked_about_the_prompt(model: MaAgiqa, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path / "plain.safetensors")
    assert read_facts(tmp_path / "plain.safetensors").questions == {**QUESTIONS, "alignment": ALIGNMENT_QUESTION}


def test_facts_that_do_not_fit_are_refused(model: MaAgiqa, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected low < high, got 1 and 1"):
        TargetScale(1, 1)
    with pytest.raises(ValueError, match=r"Expected \{prompt\} in the question of alignment, got 'Does it fit\?'"):
        CheckpointFacts(questions={**QUESTIONS, "alignment": "Does it fit?"})
    with pytest.raises(ValueError, match="Expected scales of alignment, authenticity, got quality"):
        save_checkpoint(model, tmp_path / "x.safetensors", CheckpointFacts(further={"quality": TargetScale()}))
    assert list(tmp_path.iterdir()) == []


# The question about the prompt


def test_each_picture_is_asked_about_its_own_prompt(owl_folder: Path, noise_pictures: list[np.ndarray]) -> None:
    extractor = SemanticExtractor(owl_folder, device="cpu", questions=questions_for(TARGETS))
    prompts = [prompt or "x" for prompt in PROMPTS]
    found = extractor.extract(noise_pictures, prompts=prompts)

    assert list(found) == ["semantic_content", "coherence", "alignment"]
    fixed = SemanticExtractor(owl_folder, device="cpu").extract(noise_pictures)
    for name, vectors in fixed.items():
        torch.testing.assert_close(found[name], vectors, rtol=0, atol=1e-5)
    for row, prompt in enumerate(prompts):
        question = ALIGNMENT_QUESTION.replace("{prompt}", prompt)
        own = SemanticExtractor(owl_folder, device="cpu", questions={"own": question}).extract(noise_pictures[row])
        torch.testing.assert_close(found["alignment"][row], own["own"][0], rtol=0, atol=1e-5)
    same = extractor.extract(noise_pictures[:1] * 2, prompts=["a cat", "a dog"])
    assert (same["alignment"][0] - same["alignment"][1]).abs().max() > 1e-4
    assert torch.equal(same["coherence"][0], same["coherence"][1])


def test_half_a_character_in_a_prompt_costs_only_its_picture(
    owl_folder: Path, noise_pictures: list[np.ndarray], tmp_path: Path
) -> None:
    asked = questions_for(["alignment"])
    extractor = SemanticExtractor(owl_folder, device="cpu", cache=tmp_path, questions=asked)
    prompts = ["a cat", "cut \ud83d", "a\0cat", "\u202ecat", np.str_("a cat")]
    found = extractor.extract(noise_pictures, prompts=prompts, on_error="nan")
    for vectors in found.values():
        assert vectors.isfinite().all(1).tolist() == [True, False, True, True, True]
    with pytest.raises(PictureError, match=r"Picture 1 .*half a character, '\\ud83d' at 4"):
        extractor.extract(noise_pictures, prompts=prompts)
    with pytest.raises(MaAgiqaError, match="whole characters in the question of alignment"):
        SemanticExtractor(owl_folder, device="cpu", questions={"alignment": "\ud83d {prompt}"})


def test_prompts_are_needed_where_a_question_has_one(owl_folder: Path, noise_pictures: list[np.ndarray]) -> None:
    extractor = SemanticExtractor(owl_folder, device="cpu", questions=questions_for(TARGETS))

    assert extractor.needs_prompt
    assert not SemanticExtractor(owl_folder, device="cpu").needs_prompt
    with pytest.raises(ValueError, match="Expected prompts, got None"):
        extractor.extract(noise_pictures)
    with pytest.raises(ValueError, match="a prompt for picture 3, got an empty one"):
        extractor.extract(noise_pictures, prompts=PROMPTS)


def test_a_cache_of_the_two_questions_serves_and_only_the_third_is_asked(
    owl_folder: Path, noise_pictures: list[np.ndarray], tmp_path: Path, asked: list[tuple[int, list[str]]]
) -> None:
    made = SemanticExtractor(owl_folder, device="cpu", cache=tmp_path).extract(noise_pictures)
    asked.clear()
    options: dict[str, Any] = {"device": "cpu", "cache": tmp_path, "questions": questions_for(TARGETS)}
    prompts = ["a cat", "a dog", "a cat", "a dog", "a cat"]

    found = SemanticExtractor(owl_folder, **options).extract(noise_pictures, prompts=prompts)

    texts = [ALIGNMENT_QUESTION.replace("{prompt}", prompt) for prompt in ("a cat", "a dog")]
    assert sorted(asked) == [(2, [texts[1]]), (3, [texts[0]])]
    assert all(torch.equal(found[name], made[name]) for name in made)
    again = SemanticExtractor(owl_folder, **options)
    assert torch.equal(again.extract(noise_pictures, prompts=prompts)["alignment"], found["alignment"])
    assert (len(asked), again.is_loaded) == (2, False)


def test_pictures_of_one_prompt_are_asked_everything_at_once(
    owl_folder: Path, noise_pictures: list[np.ndarray], asked: list[tuple[int, list[str]]]
) -> None:
    extractor = SemanticExtractor(owl_folder, device="cpu", questions=questions_for(TARGETS))

    extractor.extract(noise_pictures[:4], prompts="a cat")
    assert [(count, len(texts)) for count, texts in asked] == [(4, 3)]
    asked.clear()
    extractor.extract(noise_pictures[:4], prompts=["a", "b", "c", "a"])
    assert sorted((count, len(texts)) for count, texts in asked) == [(1, 1), (1, 1), (2, 1), (4, 2)]


def test_what_is_kept_of_questions_stays_bounded(owl_folder: Path, noise_pictures: list[np.ndarray]) -> None:
    extractor = SemanticExtractor(owl_folder, device="cpu", questions=questions_for(TARGETS))
    kept: Any = extractor.model.network._prefix_cache
    for number in range(12):
        extractor.extract(noise_pictures[:1], prompts=f"prompt {number} " + "of many words " * 60)

    tokens = [len(prefix.lengths) * max(prefix.lengths) for prefix in kept._kept.values()]
    assert len(tokens) < 16
    assert sum(tokens) <= kept.tokens or len(tokens) == 1
    found = extractor.extract(noise_pictures[:1], prompts="a cat")
    fresh = SemanticExtractor(owl_folder, device="cpu", questions=questions_for(TARGETS))
    torch.testing.assert_close(found, fresh.extract(noise_pictures[:1], prompts="a cat"), rtol=0, atol=1e-5)


# Scorers


@pytest.fixture
def load(three: Path, owl_folder: Path) -> Callable[..., Any]:
    return lambda target=None, **options: load_scorer(
        three, semantic=owl_folder, device="cpu", target=target, **options
    )


def test_a_scorer_of_each_target(load: Any, three: Path, owl_folder: Path, noise_pictures: list[np.ndarray]) -> None:
    prompts = [prompt or "x" for prompt in PROMPTS]
    vectors = SemanticExtractor(owl_folder, device="cpu", questions=questions_for(TARGETS)).extract(
        noise_pictures, prompts=prompts
    )
    with torch.inference_mode():
        expected = load_checkpoint(three).forward_all(visual_pixels(noise_pictures, size=64), **vectors)

    for target in TARGETS:
        scorer = load(target)
        assert isinstance(scorer, MaAgiqaScorer)
        assert (scorer.info.targets, scorer.info.target) == (TARGETS, target)
        assert scorer.info.needs_prompt == (target == "alignment")
        scores = scorer.score(noise_pictures, prompts=prompts if target == "alignment" else None)
        torch.testing.assert_close(scores, expected[target], rtol=0, atol=1e-5)
    assert load().info.target == "quality"
    assert load("alignment").info.name == "tiny-alignment"
    assert load("alignment").info.percentile(1.0) is None
    assert load("quality").info.percentile(0.0) == 50


def test_alignment_depends_on_the_prompt_and_not_on_the_batch(load: Any, noise_pictures: list[np.ndarray]) -> None:
    scorer = load("alignment")
    prompts = ["a cat", "a dog", "a cat", "x", "y"]

    expected = scorer.score(noise_pictures, prompts)
    for batch_size in (1, 3):
        torch.testing.assert_close(scorer.score(noise_pictures, prompts, batch_size), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(scorer.score(noise_pictures[2], "a cat"), expected[2:3], rtol=0, atol=1e-5)
    many = scorer.score(noise_pictures * 8, prompts * 8)
    torch.testing.assert_close(many, expected.repeat(8), rtol=0, atol=1e-5)
    assert (scorer.score(noise_pictures, "another") - expected).abs().min() > 1e-6
    with pytest.raises(ValueError, match=r"Expected prompts, got None. This scorer needs the prompt of every picture"):
        scorer.score(noise_pictures)


def test_targets_that_a_model_has_not_are_named(load: Any, visual_checkpoint: Path, owl_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"a target of .*three.safetensors', quality, alignment, .*, got 'beauty'"):
        load("beauty")
    with pytest.raises(ValueError, match="Expected a target of lite, quality, got 'alignment'"):
        load_scorer("lite", target="alignment")
    assert load_scorer("lite", target="quality").info.targets == ("quality",)
    with pytest.raises(ValueError, match=r"visual.safetensors', quality, got 'alignment'"):
        load_scorer(visual_checkpoint, target="alignment")


def test_the_visual_expert_alone_scores_alignment_without_prompts(
    tmp_path: Path, noise_pictures: list[np.ndarray]
) -> None:
    path = tiny_models.write_checkpoint(tmp_path / "visual.safetensors", 0, TARGETS)
    scorer = load_scorer(path, target="alignment", device="cpu")
    assert not scorer.info.needs_prompt
    assert scorer.score(noise_pictures).isfinite().all()


# Commands


@pytest.fixture
def command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_picture: Callable[[Path, int], Path],
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in a folder with photos/ of a.png, b.png, c.png and prompts.csv for a and b."""
    monkeypatch.chdir(tmp_path)
    for name, brightness in (("a", 51), ("b", 204), ("c", 102)):
        make_picture(tmp_path / f"photos/{name}.png", brightness)
    (tmp_path / "prompts.csv").write_text("path,prompt\nphotos/a.png,a cat\nphotos/b.png,a dog\n")

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.run([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


def test_score_returns_the_chosen_target(command: Any, three: Path, owl_folder: Path) -> None:
    options = ("--model", three, "--semantic", owl_folder, "--device", "cpu", "--json")

    code, out, _ = command("score", "photos", *options, "--target", "alignment", "--prompts", "prompts.csv")
    answer = json.loads(out)
    assert code == cli.SOME_FAILED
    assert (answer["model"]["target"], answer["model"]["targets"]) == ("alignment", list(TARGETS))
    assert [record["error"] for record in answer["records"]] == [None, None, "no prompt for this picture"]
    assert "target=alignment" in answer["records"][0]["model"]

    code, out, _ = command("score", "photos", *options)
    quality = json.loads(out)
    assert code == 0
    assert quality["model"]["target"] == "quality"
    assert "target" not in quality["records"][0]["model"]
    code, out, _ = command("score", "photos", *options, "--target", "quality")
    assert json.loads(out) == quality

    code, _, err = command("score", "photos", *options, "--target", "alignment")
    assert (code, "Expected prompts for tiny-alignment, got none. Give --prompts FILE." in err) == (2, True)
    code, _, err = command("rank", "photos", "--target", "authenticity")
    assert (code, "Expected a target of lite, quality, got 'authenticity'" in err) == (2, True)


def test_resume_refuses_another_target(command: Any, three: Path, owl_folder: Path) -> None:
    options = ("--model", three, "--semantic", owl_folder, "--device", "cpu", "--out", "scores.csv")
    assert command("score", "photos", *options)[0] == 0
    code, _, err = command("score", "photos", *options, "--target", "authenticity", "--resume")
    assert code == cli.WRONG_USAGE
    assert "target=authenticity" in err


def test_extract_with_prompts_serves_alignment_without_the_language_model(
    command: Any, three: Path, owl_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    semantic = ("--semantic", owl_folder, "--cache", "cache", "--device", "cpu")

    code, _, err = command("extract", "photos", *semantic, "--prompts", "prompts.csv")
    assert code == cli.SOME_FAILED
    assert "c.png: no prompt for this picture" in err
    assert len([path for path in Path("cache").rglob("*") if path.is_file()]) == 6
    monkeypatch.setattr(PublishedMplugOwl2, "from_folder", None)
    chosen = ("--model", three, "--target", "alignment", "--prompts", "prompts.csv")
    code, out, _ = command("score", "photos/a.png", "photos/b.png", *semantic, *chosen, "--json")
    assert code == 0
    assert all(record["score"] is not None for record in json.loads(out)["records"])


# Training


def test_sets_without_alignment_need_no_prompts(
    owl_folder: Path, tmp_path: Path, make_picture: Callable[[Path, int], Path], asked: list[tuple[int, list[str]]]
) -> None:
    paths = [make_picture(tmp_path / f"{number}.png", 40 * number) for number in range(4)]
    pictures = [
        LabelledPicture(paths[0], "0", {"quality": 1.0, "alignment": 2.0}, prompt="a cat"),
        LabelledPicture(paths[1], "1", {"quality": 1.0}),
        LabelledPicture(paths[2], "2", {"alignment": 1.0}, prompt="a cat"),
        LabelledPicture(paths[3], "3", {"quality": 2.0}, prompt="a dog"),
    ]
    extractor = SemanticExtractor(owl_folder, device="cpu", questions=questions_for(TARGETS))

    vectors = semantic_vectors(extractor, pictures)

    assert [(count, len(texts)) for count, texts in asked] == [(2, 3), (2, 2)]
    assert (vectors["alignment"] != 0).any(1).tolist() == [True, False, True, False]
    expected = extractor.extract([str(path) for path in paths], prompts="a cat")
    torch.testing.assert_close(vectors["coherence"], expected["coherence"], rtol=0, atol=1e-5)
    torch.testing.assert_close(vectors["alignment"][::2], expected["alignment"][::2], rtol=0, atol=1e-5)
    shares = [semantic_vectors(extractor, pictures, process=process, processes=3) for process in range(3)]
    for name, whole in vectors.items():
        torch.testing.assert_close(sum(share[name] for share in shares), whole, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"got none of 1: '.*0.png' \(no prompt for this picture\). Fix"):
        semantic_vectors(extractor, [dataclasses.replace(pictures[0], prompt=None), *pictures[1:]])


def test_evaluate_measures_the_target_that_the_labels_are_of(command: Any, three: Path, owl_folder: Path) -> None:
    rows = ["name,prompt,quality,alignment"]
    random = np.random.default_rng(0)
    Path("made").mkdir()
    for number in range(8):
        PIL.Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(f"made/{number}.png")
        rows.append(f"{number}.png,prompt {number},{number},{'' if number == 3 else (5 * number) % 8}")
    Path("labels.csv").write_text("\n".join(rows))
    labels = ("--labels", "labels.csv", "--images", "made", "--resamples", 0)
    model = ("--model", three, "--semantic", owl_folder, "--device", "cpu", "--json")

    found = {}
    for name, options in {
        "quality": ("--score-column", "quality"),
        "alignment": ("--score-column", "alignment"),
        "both": ("--score-column", "quality,alignment"),
        "chosen": ("--score-column", "quality,alignment", "--target", "alignment"),
    }.items():
        code, out, err = command("evaluate", *labels, *options, *model)
        assert code == 0, err
        found[name] = json.loads(out)
    assert [answer["model"]["target"] for answer in found.values()] == ["quality", "alignment", "quality", "alignment"]
    assert (found["quality"]["overall"]["n"], found["alignment"]["overall"]["n"]) == (8, 7)
    assert found["both"] == found["quality"]
    assert found["chosen"] == found["alignment"]
