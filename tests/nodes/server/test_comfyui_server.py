"""The nodes in the real ComfyUI, through its HTTP interface and its websocket. One server serves all tests."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from ma_agiqa_core import load_scorer

pytestmark = pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason="COMFYUI_PATH names no checkout of ComfyUI")

Prompt = dict[str, Any]


def node(class_type: str, /, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def loader(model: str = "lite", **settings: Any) -> dict[str, Any]:
    given = {"semantic_model": "from checkpoint", "precision": "auto", "device": "default", "cache_vectors": True}
    return node("MaAgiqaLoadScorer", model=model, **given | settings)


def pictures(kind: str = "batch", count: int = 4, side: int = 64) -> dict[str, Any]:
    return node("TestPictures", kind=kind, count=count, side=side)


def select(**inputs: Any) -> dict[str, Any]:
    settings = {"images": ["pictures", 0], "top_k": 1, "use_min_score": False, "min_score": 5.0, "on_none": "best"}
    return node("MaAgiqaSelectBest", **settings | inputs)


def shown(link: list[Any]) -> dict[str, Any]:
    return node("PreviewImage", images=link)


def told(link: list[Any]) -> dict[str, Any]:
    return node("PreviewAny", source=link)


SCORED: Prompt = {
    "scorer": loader(),
    "pictures": pictures(),
    "score": node("MaAgiqaScoreImages", scorer=["scorer", 0], images=["pictures", 0], prompt=""),
    "report": told(["score", 3]),
}
SAMPLED: Prompt = {
    "model": node("CheckpointLoaderSimple", ckpt_name="tiny.safetensors"),
    "text": node("CLIPTextEncode", clip=["model", 1], text="a cat"),
    "empty": node("EmptyLatentImage", width=64, height=64, batch_size=1),
    "scorer": loader(),
    "best": node(
        "MaAgiqaBestOfNSampler",
        **{"model": ["model", 0], "vae": ["model", 2], "scorer": ["scorer", 0], "latent_image": ["empty", 0]},
        **{"positive": ["text", 0], "negative": ["text", 0], "prompt": "", "seed": 3, "n": 6, "keep": 2},
        **{"sampler_name": "euler", "scheduler": "normal", "steps": 5, "cfg": 3.0, "denoise": 1.0},
        **{"prune_at": "0.4:4, 0.7:2", "preview": "VAE", "batch_limit": 0},
    ),
    "images": shown(["best", 1]),
    "indexes": told(["best", 3]),
    "log": told(["best", 4]),
}


def changed(prompt: Prompt, **nodes: dict[str, Any]) -> Prompt:
    """A prompt with other inputs of some nodes, or with further nodes."""
    changes = {
        name: new if "class_type" in new else node(prompt[name]["class_type"], **prompt[name]["inputs"] | new)
        for name, new in nodes.items()
    }
    return prompt | changes


def numbers(text: str) -> list[float]:
    """PreviewAny shows a list of scores one by one, as a string each."""
    return [float(number) for number in text.replace("[", "").replace("]", "").split(",")]


def pixels(picture: PIL.Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB"))


@pytest.fixture
def inside(comfyui: Any) -> Callable[[], dict[str, Any]]:
    """Looks into ComfyUI's process; see `stand_in_nodes.inside`."""
    return lambda: comfyui.get("/test_inside")


def test_the_nodes_are_there(comfyui: Any) -> None:
    info = comfyui.get("/object_info")
    ours = {name for name, known in info.items() if known["python_module"] == "custom_nodes.ma-agiqa"}
    assert ours == {
        "MaAgiqaLoadScorer",
        "MaAgiqaEnsembleScorer",
        "MaAgiqaLoadScored",
        "MaAgiqaScoreImages",
        "MaAgiqaSelectBest",
        "MaAgiqaQualityGate",
        "MaAgiqaBestOfNSampler",
        "MaAgiqaBestOfNCustom",
        "MaAgiqaClipJudge",
        "MaAgiqaMarkImages",
        "MaAgiqaScoreSheet",
        "MaAgiqaSaveScored",
    }
    models = info["MaAgiqaLoadScorer"]["input"]["required"]["model"][1]["options"]
    assert models[0] == "lite"
    assert {"tiny-clip", "visual.safetensors", "other-clip"} <= set(models)  # the last from extra_model_paths.yaml


def test_a_broken_pack_says_what_is_wrong_and_comfyui_goes_on(comfyui: Any) -> None:
    start = comfyui.log.index("[ma-agiqa]")
    told = comfyui.log[start : start + 2000]
    assert "Install what they need" in told
    assert str(comfyui.base / "custom_nodes" / "broken-ma-agiqa" / "requirements.txt") in told
    assert "Traceback (most recent call last)" in told
    assert "No module named" in told
    assert "Install what they need" not in comfyui.log[start + 2000 :], "the whole pack complains as well"


def test_every_picture_gets_the_core_s_score(comfyui: Any) -> None:
    run = comfyui.run(changed(SCORED, raw=shown(["pictures", 0]), scores=told(["score", 1]), best=told(["score", 2])))
    assert run.ending == "execution_success"
    scores = [float(text) for text in run.outputs["scores"]["text"]]
    assert scores == pytest.approx(load_scorer("lite").score(run.picture_files("raw")).tolist(), abs=1e-4)
    assert numbers(run.text("best")) == [max(scores)]
    assert run.text("report") == run.text("score")
    assert len(run.pictures("score")) == 1  # a sheet


def test_a_checkpoint_of_ma_agiqa_and_one_of_clip_score_as_in_the_core(comfyui: Any) -> None:
    prompt = changed(SCORED, raw=shown(["pictures", 0]), scores=told(["score", 1]))
    folder = comfyui.base / "models" / "ma_agiqa"
    for name, model in (
        ("visual.safetensors", folder / "visual.safetensors"),
        ("tiny-clip", f"clip:{folder / 'tiny-clip'}"),
        ("other-clip", f"clip:{comfyui.base / 'elsewhere' / 'scorers' / 'other-clip'}"),
    ):
        run = comfyui.run(changed(prompt, scorer=loader(name), score={"prompt": "a cat"}))
        expected = load_scorer(str(model), device="cpu").score(run.picture_files("raw"), "a cat").tolist()
        got = [float(text) for text in run.outputs["scores"]["text"]]
        assert got == pytest.approx(expected, abs=1e-4)


def test_nothing_comes_from_outside_the_pack(comfyui: Any, inside: Callable[[], dict[str, Any]]) -> None:
    comfyui.run(SCORED)
    files = inside()["core"]
    assert files
    assert all(Path(file).is_relative_to(comfyui.base / "custom_nodes" / "ma-agiqa") for file in files.values())


def test_progress_is_told_on_the_node(comfyui: Any) -> None:
    run = comfyui.run(changed(SCORED, pictures=pictures(count=7, side=320)))  # more than one batch
    steps = run.progress("score")
    assert steps[-1] == (7, 7)
    assert len(steps) > 2
    assert [value for value, _ in steps] == sorted(value for value, _ in steps)
    sampler = comfyui.run(changed(SAMPLED, best={"seed": 11})).progress("best")
    assert sampler[-1][0] == sampler[-1][1]
    assert len({total for _, total in sampler}) == 1
    assert [value for value, _ in sampler] == sorted(value for value, _ in sampler)


def test_an_interrupt_is_obeyed_within_one_picture(comfyui: Any, inside: Callable[[], dict[str, Any]]) -> None:
    before = inside()["finished"]["LiteNetwork"]
    prompt = changed(SCORED, pictures=pictures("one", side=2048))
    asked: list[None] = []

    def press(kind: str, data: dict[str, Any]) -> None:
        if kind == "test_network" and not asked:
            asked.append(comfyui.post("/interrupt"))

    run = comfyui.run(prompt, on_event=press)
    assert asked
    assert run.ending == "execution_interrupted"
    assert run.events[-1][1]["node_id"] == "score"
    assert inside()["finished"]["LiteNetwork"] == before
    again = comfyui.run(prompt)
    assert again.ending == "execution_success"
    assert again.cached == {"scorer", "pictures"}


def test_the_sampler_is_interrupted_and_runs_again(comfyui: Any) -> None:
    prompt = changed(SAMPLED, best={"seed": 12, "steps": 40})

    asked: list[None] = []

    def press(kind: str, data: dict[str, Any]) -> None:
        if kind == "progress" and data["node"] == "best" and not asked:
            asked.append(comfyui.post("/interrupt"))

    run = comfyui.run(prompt, on_event=press)
    assert asked
    assert run.ending == "execution_interrupted"
    assert run.events[-1][1]["node_id"] == "best"
    assert comfyui.run(changed(prompt, best={"seed": 12, "steps": 5})).ending == "execution_success"


def test_an_unchanged_picture_is_not_scored_again(comfyui: Any, inside: Callable[[], dict[str, Any]]) -> None:
    prompt = changed(
        SCORED,
        pictures=pictures(count=5, side=72),
        best=select(images=["score", 0], scores=["score", 1]),
        gate=node("MaAgiqaQualityGate", images=["pictures", 0], scorer=["scorer", 0], prompt="", min_score=0.0),
        kept=shown(["best", 0]),
        passed=shown(["gate", 0]),
    )
    assert comfyui.run(prompt).ending == "execution_success"
    before = inside()["finished"]["LiteNetwork"]
    run = comfyui.run(changed(prompt, best={"top_k": 3}, gate={"min_score": 0.5}))
    assert set(run.executed) == {"best", "kept", "gate", "passed"}
    assert run.cached >= {"scorer", "pictures", "score"}
    assert len(run.pictures("kept")) == 3
    assert inside()["finished"]["LiteNetwork"] == before, "the gate asked the network although it knew the pictures"


def test_unload_frees_the_scorer_and_the_next_run_brings_it_back(
    comfyui: Any, inside: Callable[[], dict[str, Any]]
) -> None:
    run = comfyui.run(changed(SCORED, pictures=pictures(side=80)))
    assert "LiteNetwork" in inside()["loaded"]
    comfyui.post("/free", unload_models=True, free_memory=True)
    comfyui.run({"other": pictures(), "shown": shown(["other", 0])})  # the flags are read before the next prompt
    assert "LiteNetwork" not in inside()["loaded"]
    assert inside()["alive"]["LiteNetwork"] == 0
    again = comfyui.run(changed(SCORED, pictures=pictures(side=80)))
    assert again.cached == set()
    assert again.text("report") == run.text("report")


def test_equal_loaders_share_one_network(comfyui: Any, inside: Callable[[], dict[str, Any]]) -> None:
    twice = changed(
        SCORED, second=loader(), score2=node("MaAgiqaScoreImages", scorer=["second", 0], images=["pictures", 0])
    )
    run = comfyui.run(changed(twice, report2=told(["score2", 3])))
    assert run.text("report") == run.text("report2")
    assert inside()["alive"]["LiteNetwork"] == 1


def test_selection_carries_latents_and_masks_and_counts_from_0(comfyui: Any) -> None:
    prompt = changed(
        {name: SAMPLED[name] for name in ("model", "text", "scorer")},
        empty=node("EmptyLatentImage", width=64, height=64, batch_size=4),
        sampler=node(
            "KSampler",
            **{"model": ["model", 0], "positive": ["text", 0], "negative": ["text", 0], "latent_image": ["empty", 0]},
            **{"seed": 5, "steps": 3, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0},
        ),
        pictures=node("VAEDecode", samples=["sampler", 0], vae=["model", 2]),
        score=SCORED["score"],
        scores=told(["score", 1]),
        best=select(scores=["score", 1], latent=["sampler", 0], top_k=2),
        indexes=told(["best", 4]),
        all=shown(["pictures", 0]),
        kept=shown(["best", 0]),
        decoded=node("VAEDecode", samples=["best", 1], vae=["model", 2]),
        from_latent=shown(["decoded", 0]),
        rejected=shown(["best", 5]),
    )
    run = comfyui.run(prompt)
    order = np.argsort([-float(text) for text in run.outputs["scores"]["text"]]).tolist()
    assert run.text("indexes") == f"{order[0]},{order[1]}"
    before = [pixels(picture) for picture in run.pictures("all")]
    for name, rows in (("kept", order[:2]), ("from_latent", order[:2])):
        for picture, row in zip(run.pictures(name), rows, strict=True):
            np.testing.assert_allclose(pixels(picture).astype(int), before[row].astype(int), atol=1)
    assert len(run.pictures("rejected")) == 2


def test_best_of_n_finds_the_best_and_an_ordinary_sampler_makes_it_again(comfyui: Any) -> None:
    """Without pruning the winner is the best of a plain KSampler's batch; with it, a survivor is the same picture."""
    plain = changed(
        SAMPLED,
        six=node("RepeatLatentBatch", samples=["empty", 0], amount=6),
        sampler=node(
            "KSampler",
            **{name: SAMPLED["best"]["inputs"][name] for name in ("model", "positive", "negative", "seed", "steps")},
            **{"latent_image": ["six", 0], "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0},
        ),
        decoded=node("VAEDecode", samples=["sampler", 0], vae=["model", 2]),
        all=shown(["decoded", 0]),
        score=node("MaAgiqaScoreImages", scorer=["scorer", 0], images=["decoded", 0]),
        scores=told(["score", 1]),
    )
    run = comfyui.run(changed(plain, best={"prune_at": ""}))
    scores = [float(text) for text in run.outputs["scores"]["text"]]
    assert run.text("indexes") == ",".join(str(row) for row in np.argsort([-score for score in scores])[:2])
    assert "0% saved" in run.text("log")
    pruned = comfyui.run(plain)
    assert "sampler" in pruned.cached
    candidates = [pixels(picture).astype(int) for picture in pruned.pictures("all")]
    for row, picture in zip(pruned.text("indexes").split(","), pruned.pictures("images"), strict=True):
        np.testing.assert_allclose(pixels(picture).astype(int), candidates[int(row)], atol=1)
    # cfg 3: 2 rows a step. 6 candidates for 2 of 5 steps, 4 for 2, 2 for 1 (0.7 of 5 is 3.5, rounded to 4)
    assert "model calls: 44, without pruning 60: 27% saved" in pruned.text("log")
    one_by_one = comfyui.run(changed(plain, best={"batch_limit": 1}))
    assert one_by_one.text("indexes") == pruned.text("indexes")
    taesd = comfyui.run(changed(plain, best={"preview": "TAESD"}))
    assert taesd.ending == "execution_success"


def test_a_file_of_a_winner_names_its_candidate_and_seed(comfyui: Any) -> None:
    prompt = changed(
        SAMPLED,
        save=node("MaAgiqaSaveScored", images=["best", 1], scores=["best", 2], filename_prefix="winners/best"),
        again=select(images=["best", 1], scores=["best", 2]),
        save_one=node("MaAgiqaSaveScored", images=["again", 0], scores=["again", 3], filename_prefix="winners/one"),
    )
    run = comfyui.run(prompt)
    candidates = [int(row) for row in run.text("indexes").split(",")]
    assert candidates != [0, 1]
    said = []
    for path in (*run.picture_files("save"), *run.picture_files("save_one")):
        with PIL.Image.open(path) as picture:
            said.append(json.loads(picture.info["ma_agiqa"]))
    assert [entry["index"] for entry in said] == [*candidates, candidates[0]]
    assert {entry["seed"] for entry in said} == {3}


def test_score_images_ends_a_workflow_and_shows_its_sheet_again(comfyui: Any) -> None:
    """People put it last; and where nothing has changed the front end is told once more what it showed."""
    alone = {name: SCORED[name] for name in ("scorer", "pictures", "score")}
    first = comfyui.run(changed(alone, pictures=pictures(side=88)))
    second = comfyui.run(changed(alone, pictures=pictures(side=88)))
    assert first.ending == second.ending == "execution_success"
    assert "score" in second.cached
    assert second.outputs["score"] == first.outputs["score"]
    assert len(second.pictures("score")) == 1


def test_a_gate_blocks_its_empty_side_only(comfyui: Any) -> None:
    prompt = changed(
        {name: SCORED[name] for name in ("scorer", "pictures")},
        gate=node("MaAgiqaQualityGate", images=["pictures", 0], scorer=["scorer", 0], prompt="", min_score=0.0),
        passed=shown(["gate", 0]),
        failed=shown(["gate", 1]),
        score=node("MaAgiqaScoreImages", scorer=["scorer", 0], images=["gate", 0]),
        sheet=node("MaAgiqaScoreSheet", images=["score", 0], scores=["score", 1], columns=2),
        view=shown(["sheet", 0]),
    )
    for limit, on, off in ((0.0, {"passed", "view"}, {"failed"}), (10.0, {"failed"}, {"passed", "view"})):
        run = comfyui.run(changed(prompt, gate={"min_score": limit}))
        assert run.ending == "execution_success"
        assert run.outputs.keys() >= on
        assert not run.outputs.keys() & off


@pytest.mark.parametrize("on_none", ["block", "best", "error"])
def test_what_happens_when_no_picture_is_good_enough(comfyui: Any, on_none: str) -> None:
    prompt = changed(
        {name: SCORED[name] for name in ("scorer", "pictures")},
        best=select(scorer=["scorer", 0], use_min_score=True, min_score=9.9, on_none=on_none),
        kept=shown(["best", 0]),
        rejected=shown(["best", 5]),
        other=shown(["pictures", 0]),
    )
    run = comfyui.run(prompt)
    if on_none == "error":
        assert "9.9" in run.error["exception_message"]
        assert run.error["node_id"] == "best"
        return
    assert run.ending == "execution_success"
    assert len(run.pictures("rejected")) == (4 if on_none == "block" else 3)
    assert ("kept" in run.outputs) == (on_none == "best")


def test_mixed_sizes_alpha_one_picture_and_a_large_top_k_are_no_mistakes(comfyui: Any) -> None:
    prompt = changed(
        SCORED,
        best=select(images=["score", 0], scores=["score", 1], top_k=99),
        kept=shown(["best", 0]),
        sheet=node("MaAgiqaScoreSheet", images=["score", 0], scores=["score", 1], columns=0),
        view=shown(["sheet", 0]),
        save=node("MaAgiqaSaveScored", images=["score", 0], scores=["score", 1], filename_prefix="odd/kinds"),
    )
    for kind, count in (("mixed", 4), ("alpha", 4), ("one", 1)):
        run = comfyui.run(changed(prompt, pictures=pictures(kind)))
        assert run.ending == "execution_success"
        for name in ("kept", "save"):
            assert len(run.outputs[name]["images"]) == count
        for name in ("score", "view"):  # sheets
            assert len(run.outputs[name]["images"]) == 1
    sizes = {picture.size for picture in comfyui.run(changed(prompt, pictures=pictures("mixed"))).pictures("kept")}
    assert sizes == {(64, 64), (72, 72), (80, 80), (88, 88)}


def sampler(**changes: Any) -> Prompt:
    return changed(SAMPLED, best=changes)


WRONG_COUNT: Prompt = changed(SCORED, numbers=node("TestNumbers", numbers="1, 2, 3"))
MISTAKES = {
    "empty batch": (changed(SCORED, pictures=pictures("empty")), "score", "at least one picture"),
    "NaN pixels": (changed(SCORED, pictures=pictures("nan")), "score", "NaN or infinite ones in picture 3"),
    "too few scores to select": (
        changed(WRONG_COUNT, wrong=select(scores=["numbers", 0]), view=shown(["wrong", 0])),
        "wrong",
        "3",
    ),
    "too few scores for a sheet": (
        changed(
            WRONG_COUNT,
            wrong=node("MaAgiqaScoreSheet", images=["pictures", 0], scores=["numbers", 0], columns=0),
            view=shown(["wrong", 0]),
        ),
        "wrong",
        "3",
    ),
    "too few scores to save": (
        changed(
            WRONG_COUNT,
            wrong=node("MaAgiqaSaveScored", images=["pictures", 0], scores=["numbers", 0], filename_prefix="never"),
        ),
        "wrong",
        "3",
    ),
    "neither scores nor scorer": (
        changed(SCORED, wrong=select(), view=shown(["wrong", 0])),
        "wrong",
        "scores",
    ),
    "a latent for another number of pictures": (
        changed(
            SCORED,
            empty=node("EmptyLatentImage", width=64, height=64, batch_size=3),
            wrong=select(scores=["score", 1], latent=["empty", 0]),
            view=shown(["wrong", 0]),
        ),
        "wrong",
        "3",
    ),
    "no prompt for CLIP": (changed(SCORED, scorer=loader("tiny-clip")), "score", "Expected a prompt"),
    "calibrated with CLIP": (
        changed(
            SCORED,
            clip=loader("tiny-clip"),
            both=node(
                "MaAgiqaEnsembleScorer",
                scorer_1=["scorer", 0],
                weight_1=1.0,
                scorer_2=["clip", 0],
                combine="calibrated",
            ),
            score={"scorer": ["both", 0], "prompt": "a cat"},
        ),
        "both",
        "no quantiles",
    ),
    "prune_at no pairs": (sampler(prune_at="half"), "best", "half"),
    "prune_at beyond the end": (sampler(prune_at="1.4:2"), "best", "1.4"),
    "prune_at keeps more later": (sampler(prune_at="0.3:2, 0.6:4"), "best", "Expected"),
    "keep more than there are": (sampler(keep=7), "best", "7"),
    "latents neither 1 nor n": (
        changed(SAMPLED, empty={"batch_size": 4}),
        "best",
        "4",
    ),
    "a sampler that cannot be pruned": (sampler(sampler_name="dpm_adaptive"), "best", "dpm_adaptive"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_turns_its_node_red_and_the_queue_goes_on(comfyui: Any, mistake: str) -> None:
    prompt, red, sentence = MISTAKES[mistake]
    run = comfyui.run(prompt)
    message = run.error["exception_message"]
    assert run.error["node_id"] == red
    assert sentence in message
    assert message.startswith("Expected ")
    assert comfyui.run(SCORED).ending == "execution_success"


def test_a_saved_png_has_its_scores_and_still_its_workflow(comfyui: Any) -> None:
    prompt = changed(
        SCORED,
        save=node(
            "MaAgiqaSaveScored",
            **{
                "images": ["score", 0],
                "scores": ["score", 1],
                "scorer": ["scorer", 0],
                "filename_prefix": "sub/scored",
            },
        ),
        scores=told(["score", 1]),
    )
    workflow = {"nodes": [], "links": [], "version": 0.4}
    run = comfyui.run(prompt, workflow)
    scores = [float(text) for text in run.outputs["scores"]["text"]]
    lite = load_scorer("lite").info
    for index, (path, score) in enumerate(zip(run.picture_files("save"), scores, strict=True)):
        assert path.parent == comfyui.base / "output" / "sub"
        with PIL.Image.open(path) as picture:
            chunks = picture.info
        kept = {name: {**given, "is_changed": None} for name, given in json.loads(chunks["prompt"]).items()}
        assert kept == {name: {**given, "is_changed": None} for name, given in prompt.items()}
        assert json.loads(chunks["workflow"]) == workflow
        said = json.loads(chunks["ma_agiqa"])
        assert said["score"] == pytest.approx(score)
        assert said["percentile"] == pytest.approx(lite.percentile(score))
        assert (said["format"], said["model"], said["revision"], said["index"]) == (1, "lite", lite.revision, index)
        assert said["rank"] == 1 + sum(other > score for other in scores)
