"""Best of N on tiny random pipelines: the same winner in whatever batches, and nothing left behind."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageChops
import pytest
import torch

from ma_agiqa_core import CallableScorer, EnsembleScorer, MaAgiqaError
from ma_agiqa_core.generation import BestOfN, best_of_n
from ma_agiqa_core.generation.best_of.best_of_n import NoneGoodEnoughError
from ma_agiqa_core.generation.best_of.lockstep import THREAD_NAME
from ma_agiqa_core.records.png_metadata import read_metadata

PRUNE_AT = {0.4: 4, 0.7: 2}
STEPS = 5
PROMPT = "a red fox"


def contrast(image: Any) -> float:
    return float(np.asarray(image, dtype=np.float64).std() / 128)


CONTRAST = CallableScorer(lambda images, prompts: [contrast(image) for image in images], name="contrast")
BRIGHT = CallableScorer(lambda images, prompts: [np.mean(image) / 255 for image in images], name="bright")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def pipe(tiny_pipelines: ModuleType) -> Iterator[Any]:
    """Stable Diffusion; afterwards no hook and no thread may be left, and the scheduler is its own again."""
    pipe = tiny_pipelines.pipeline("sd")
    attributes = set(vars(pipe))
    scheduler = pipe.scheduler
    yield pipe
    assert THREAD_NAME not in {thread.name for thread in threading.enumerate()}
    assert not pipe.unet._forward_pre_hooks
    assert not pipe.unet._forward_hooks
    assert set(vars(pipe)) - attributes <= {"_guidance_scale", *(name for name in vars(pipe) if name.startswith("_"))}
    assert "check_inputs" not in vars(pipe)
    assert pipe.scheduler is scheduler
    assert "step" not in vars(scheduler)


@pytest.fixture
def call(tiny_pipelines: ModuleType) -> dict[str, Any]:
    side = tiny_pipelines.SIDE
    return {"num_inference_steps": STEPS, "height": side, "width": side, "guidance_scale": 3.0, "output_type": "pt"}


@pytest.fixture
def denoising_steps(pipe: Any) -> Iterator[list[int]]:
    """Grows with every call of the network."""
    calls: list[int] = []
    handle = pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    yield calls
    handle.remove()


def alone(pipe: Any, seed: int, **call: Any) -> torch.Tensor:
    return pipe(PROMPT, generator=torch.Generator("cpu").manual_seed(seed), **call).images[0]


# What is made


def test_all_candidates_are_the_pictures_of_their_seeds(pipe: Any, call: dict[str, Any]) -> None:
    result = best_of_n(pipe, CONTRAST, PROMPT, n=5, keep=5, seed=11, batch_size=2, **call)
    assert isinstance(result, BestOfN)
    assert sorted(result.seeds) == [11, 12, 13, 14, 15]
    assert list(result.scores) == sorted(result.scores, reverse=True)
    for image, score, seed in zip(result.images, result.scores, result.seeds, strict=True):
        assert (image - alone(pipe, seed, **call)).abs().max() <= 1e-4
        assert score == pytest.approx(contrast(image.movedim(0, -1).numpy() * 255), abs=0.005)
    assert result.network_evaluations == 5 * STEPS * 2
    assert (result.history, result.met_min_score, result.observed, result.paths) == ((), True, None, ())


@pytest.mark.parametrize("batch_size", [None, 3, 1])
def test_pruning_goes_across_all_batches(pipe: Any, call: dict[str, Any], batch_size: int | None) -> None:
    one = best_of_n(pipe, CONTRAST, PROMPT, n=8, keep=2, prune_at=PRUNE_AT, seed=5, batch_size=8, **call)
    result = best_of_n(pipe, CONTRAST, PROMPT, n=8, keep=2, prune_at=PRUNE_AT, seed=5, batch_size=batch_size, **call)
    assert result.seeds == one.seeds
    assert result.scores == pytest.approx(one.scores, abs=1e-4)
    assert [(step.step, step.fraction, step.kept, step.dropped) for step in result.history] == [
        (step.step, step.fraction, step.kept, step.dropped) for step in one.history
    ]
    assert result.network_evaluations == one.network_evaluations == 2 * (8 * 2 + 4 * 2 + 2 * 1)
    first, second = result.history
    assert (first.step, second.step) == (1, 3)
    assert sorted(first.scores) == list(range(8))
    assert sorted((*first.kept, *first.dropped)) == list(range(8))
    assert sorted(second.scores) == sorted(first.kept)
    assert {seed - 5 for seed in result.seeds} == set(second.kept)
    for image, seed in zip(result.images, result.seeds, strict=True):
        assert (image - alone(pipe, seed, **call)).abs().max() <= 1e-4


def test_one_batch_may_lose_all_its_candidates(pipe: Any, call: dict[str, Any]) -> None:
    """Scored by seed: only the last batch survives."""
    order = iter(range(1000))
    by_turn = CallableScorer(lambda images, prompts: [float(next(order)) for _ in images], name="turn", high=1000.0)
    result = best_of_n(pipe, by_turn, PROMPT, n=6, keep=1, prune_at={0.4: 2}, batch_size=2, **call)
    assert result.history[0].kept == (4, 5)
    assert result.seeds == (5,)
    assert result.network_evaluations == 2 * (6 * 2 + 2 * 3)


def call_of(tiny: ModuleType, family: str) -> tuple[str | None, dict[str, Any]]:
    """Prompt and further arguments for one prompt of this family."""
    made = tiny.FAMILIES[family]
    call = {**made.inputs(1), **{name: tiny.PICTURES[name](1) for name in made.per_row}, **made.settings}
    call |= {"num_inference_steps": 5, "output_type": "pt", **(made.guided or made.unguided)}
    prompt, negative = call.pop("prompt", None), call.pop("negative_prompt", None)
    if negative is not None:
        call["negative_prompt"] = negative[0] if isinstance(negative, list) else negative
    return (prompt[0] if isinstance(prompt, list) else prompt), call


@pytest.mark.parametrize(
    ("family", "scheduler"),
    [("sd", "dpm_sde"), ("sd", "heun"), ("sdxl_inpaint", None), ("wan", None)],
)
def test_alone_in_batches_and_one_by_one(tiny_pipelines: ModuleType, family: str, scheduler: str | None) -> None:
    """The same winners, and each the picture that the pipeline makes of its seed alone.

    That rows are dropped exactly in every family is checked by the matrix in pruning/test_exactness.py.
    """
    pipe = tiny_pipelines.pipeline(family, scheduler)
    prompt, call = call_of(tiny_pipelines, family)
    options: dict[str, Any] = {"n": 4, "keep": 2, "prune_at": {0.5: 3}}
    one = best_of_n(pipe, CONTRAST, prompt, batch_size=4, **options, **call)
    several = best_of_n(pipe, CONTRAST, prompt, batch_size=3, **options, **call)
    singly = best_of_n(pipe, CONTRAST, prompt, strategy="sequential", **options, **call)
    assert one.seeds == several.seeds == singly.seeds
    assert one.network_evaluations == several.network_evaluations <= singly.network_evaluations
    for place, seed in enumerate(one.seeds):
        output = pipe(prompt=prompt, generator=torch.Generator("cpu").manual_seed(seed), **call)
        picture = output.images[0] if hasattr(output, "images") else output.frames[0][0]
        for result in (one, several, singly):
            assert (result.images[place] - picture).abs().max() <= 1e-4


@pytest.mark.parametrize("kind", ["PIL", "array", "batch", "tensor"])
def test_a_picture_to_begin_with_comes_in_any_form(tiny_pipelines: ModuleType, kind: str) -> None:
    pipe = tiny_pipelines.pipeline("sd_inpaint")
    prompt, call = call_of(tiny_pipelines, "sd_inpaint")
    picture, mask = call["image"][0], call["mask_image"][0]
    if kind == "PIL":
        picture = PIL.Image.fromarray((picture.movedim(0, -1).numpy() * 255).round().astype(np.uint8))
        mask = PIL.Image.fromarray((mask[0].numpy() * 255).astype(np.uint8))
    elif kind == "array":
        picture, mask = picture.movedim(0, -1).numpy(), mask[0].numpy()
    elif kind == "batch":
        picture, mask = picture[None], mask[None]
    call |= {"image": picture, "mask_image": mask}
    result = best_of_n(pipe, CONTRAST, prompt, n=3, keep=3, prune_at={0.5: 3}, batch_size=2, **call)
    for image, seed in zip(result.images, result.seeds, strict=True):
        alone = pipe(prompt=prompt, generator=torch.Generator("cpu").manual_seed(seed), **call).images[0]
        assert (image - alone).abs().max() <= 1e-4


@pytest.mark.parametrize("strategy", ["batch", "sequential"])
def test_models_that_are_offloaded(tiny_pipelines: ModuleType, call: dict[str, Any], strategy: str) -> None:
    """Each copy of the pipe that finishes puts the hooks on all models again while others are still running."""
    pipe = tiny_pipelines.FAMILIES["sd"].make()
    expected = best_of_n(pipe, CONTRAST, PROMPT, n=6, prune_at=PRUNE_AT, **call)
    pipe.enable_model_cpu_offload(device="cpu")
    result = best_of_n(
        pipe,
        CONTRAST,
        PROMPT,
        n=6,
        prune_at=PRUNE_AT,
        batch_size=None if strategy == "sequential" else 2,
        strategy=strategy,
        **call,
    )
    assert result.seeds == expected.seeds
    assert pipe._all_hooks
    assert all(hook.model._hf_hook is hook.hook for hook in pipe._all_hooks)
    assert (alone(pipe, result.seeds[0], **call) - result.images[0]).abs().max() <= 1e-4


@pytest.mark.parametrize("prune_at", [None, PRUNE_AT])
def test_one_candidate_at_a_time_is_the_same(
    pipe: Any, call: dict[str, Any], prune_at: dict[float, int] | None
) -> None:
    batch = best_of_n(pipe, CONTRAST, PROMPT, n=8, keep=2, prune_at=prune_at, **call)
    result = best_of_n(pipe, CONTRAST, PROMPT, n=8, keep=2, prune_at=prune_at, strategy="sequential", **call)
    assert result.seeds == batch.seeds
    assert result.scores == pytest.approx(batch.scores, abs=1e-3)
    assert [step.kept for step in result.history] == [step.kept for step in batch.history]
    full = 8 * STEPS * 2
    if prune_at:
        assert batch.network_evaluations <= result.network_evaluations < full
    else:
        assert result.network_evaluations == full


def test_the_pictures_are_pil_unless_asked_otherwise(pipe: Any, call: dict[str, Any]) -> None:
    for kind, expected in (("pil", PIL.Image.Image), ("np", np.ndarray), ("pt", torch.Tensor)):
        result = best_of_n(pipe, CONTRAST, PROMPT, n=2, **{**call, "output_type": kind})
        assert isinstance(result.images[0], expected)
    del call["output_type"]
    assert isinstance(best_of_n(pipe, CONTRAST, PROMPT, n=1, **call).images[0], PIL.Image.Image)


def test_a_pipeline_without_the_new_callback_can_finish_all(tiny_pipelines: ModuleType) -> None:
    made = tiny_pipelines.REFUSED_FAMILIES["pixart_sigma"]
    call = {"num_inference_steps": 2, "guidance_scale": 1.0, **made.settings}
    result = best_of_n(tiny_pipelines.pipeline("pixart_sigma"), CONTRAST, PROMPT, n=3, batch_size=2, **call)
    assert len(result.images) == 1
    assert result.network_evaluations == 3 * 2


# What the scorer is given


def test_the_scorer_gets_pil_pictures_and_the_prompt(pipe: Any, call: dict[str, Any]) -> None:
    seen: list[tuple[int, set[type], set[str]]] = []

    def score(images: list[Any], prompts: list[str] | None) -> list[float]:
        seen.append((len(images), {type(image) for image in images}, set(prompts or [])))
        return [contrast(image) for image in images]

    scorer = CallableScorer(score, name="watched", needs_prompt=True)
    best_of_n(pipe, scorer, PROMPT, n=5, prune_at={0.5: 3}, batch_size=2, **call)
    assert seen[0][0] == 2  # the trial before anything is generated
    assert [count for count, _, _ in seen[1:]] == [5, 3]
    assert all(types == {PIL.Image.Image} and prompts == {PROMPT} for _, types, prompts in seen)


@pytest.mark.parametrize(
    ("prompt", "changes", "name"),
    [
        ("cut \ud83d", {}, "prompt"),
        (["a red fox", "cut \ud83d"], {}, "prompt"),
        (PROMPT, {"negative_prompt": "cut \ud83d"}, "negative_prompt"),
    ],
)
def test_half_a_character_is_told_before_the_first_step(
    pipe: Any, call: dict[str, Any], prompt: Any, changes: dict[str, Any], name: str
) -> None:
    with pytest.raises(MaAgiqaError, match=rf"in {name}, got .*half a character"):
        best_of_n(pipe, CONTRAST, prompt, n=2, **call, **changes)


def test_a_relative_scorer_sees_all_batches_at_once(pipe: Any, call: dict[str, Any]) -> None:
    both = EnsembleScorer([(CONTRAST, 2.0), (BRIGHT, 1.0)], combine="rank")
    one = best_of_n(pipe, both, PROMPT, n=6, keep=2, prune_at={0.5: 3}, batch_size=6, **call)
    result = best_of_n(pipe, both, PROMPT, n=6, keep=2, prune_at={0.5: 3}, batch_size=2, **call)
    assert result.seeds == one.seeds
    assert result.history[0].kept == one.history[0].kept


def test_a_second_scorer_only_watches(pipe: Any, call: dict[str, Any]) -> None:
    plain = best_of_n(pipe, CONTRAST, PROMPT, n=4, keep=2, **call)
    watched = best_of_n(pipe, CONTRAST, PROMPT, n=4, keep=2, observe=BRIGHT, **call)
    assert watched.seeds == plain.seeds
    assert watched.observed == pytest.approx([float(image.mean()) for image in watched.images], abs=0.005)


def test_several_watch_and_say_what_they_gain(
    pipe: Any, call: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    against = CallableScorer(lambda images, _: [-float(np.std(image)) for image in images], name="against", low=-255)
    prompts = ["a red fox", "a blue whale"]
    with caplog.at_level("INFO", logger="ma_agiqa_core.generation.best_of.best_of_n"):
        results = best_of_n(pipe, CONTRAST, prompts, n=6, keep=2, observe=[BRIGHT, CONTRAST, against], **call)
    for result in results:
        bright, same, opposite = result.watch
        assert result.observed is not None
        assert result.observed[1] == result.scores
        assert len(result.observed) == 3
        assert (same.share, same.interval) == (1, (1, 1))
        assert len(bright.groups[0][0]) == 6, "all finished candidates are seen, not only those kept"
        assert opposite.share < 0
        assert opposite.costs
    lines = [record for record in caplog.records if "which only watched" in record.getMessage()]
    assert [record.levelname for record in lines][1:] == ["INFO", "WARNING"]
    assert "Warning: choosing by" in lines[2].getMessage()
    assert best_of_n(pipe, CONTRAST, PROMPT, n=2, observe=[], **call).watch == ()


def test_a_list_of_prompts_gives_a_list_of_results(pipe: Any, call: dict[str, Any]) -> None:
    prompts = ["a red fox", "a blue whale"]
    call["negative_prompt"] = ["grey", "green"]
    results = best_of_n(pipe, CONTRAST, prompts, n=3, prune_at={0.5: 2}, **call)
    assert isinstance(results, list)
    for prompt, negative, result in zip(prompts, call["negative_prompt"], results, strict=True):
        single = best_of_n(pipe, CONTRAST, prompt, n=3, prune_at={0.5: 2}, **{**call, "negative_prompt": negative})
        assert (result.seeds, result.scores) == (single.seeds, pytest.approx(single.scores))
    assert [len(best_of_n(pipe, CONTRAST, ["a fox"], n=2, **{**call, "negative_prompt": None}))] == [1]


# Good enough


def test_more_rounds_until_enough_are_good_enough(pipe: Any, call: dict[str, Any]) -> None:
    everything = best_of_n(pipe, CONTRAST, PROMPT, n=9, keep=9, **call)
    by_seed = dict(zip(everything.seeds, everything.scores, strict=True))
    limit = sorted(by_seed.values())[-2]  # two of nine reach it
    rounds = 1 + max(seed for seed, score in by_seed.items() if score >= limit - 1e-6) // 3
    result = best_of_n(pipe, CONTRAST, PROMPT, n=3, keep=2, min_score=limit - 1e-4, max_rounds=3, **call)
    assert result.met_min_score
    assert result.seeds == everything.seeds[:2]
    assert result.network_evaluations == rounds * 3 * STEPS * 2


def test_rounds_end_and_candidates_are_numbered_on(pipe: Any, call: dict[str, Any]) -> None:
    result = best_of_n(
        pipe, CONTRAST, PROMPT, n=3, min_score=99.0, max_rounds=3, prune_at={0.5: 2}, on_none="best", seed=7, **call
    )
    assert not result.met_min_score
    assert len(result.images) == 1
    assert [sorted(step.scores) for step in result.history] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert 7 <= result.seeds[0] < 16


def test_none_good_enough_is_an_error_if_asked(pipe: Any, call: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(NoneGoodEnoughError, match=r"one of 4 candidates to reach min_score = 99, got 0\.\d+") as caught:
        best_of_n(pipe, CONTRAST, PROMPT, n=2, min_score=99.0, max_rounds=2, on_none="raise", save_dir=tmp_path, **call)
    assert len(caught.value.result.images) == 1
    assert list(tmp_path.iterdir()) == []


def test_previews_are_not_held_to_min_score(pipe: Any, call: dict[str, Any]) -> None:
    calls: list[int] = []

    def score(images: list[Any], prompts: object) -> list[float]:
        calls.append(1)
        return [0.1 if len(calls) == 2 else 0.9] * len(images)  # 1 is the trial, 2 the previews

    scorer = CallableScorer(score, name="late")
    result = best_of_n(pipe, scorer, PROMPT, n=4, keep=2, min_score=0.5, prune_at={0.5: 2}, **call)
    assert result.met_min_score
    assert len(result.images) == 2


# Files


def test_pictures_are_saved_with_score_seed_and_settings(pipe: Any, call: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    quantiles = tuple(np.linspace(0, 1, 11))
    scorer = CallableScorer(lambda i, p: [contrast(x) for x in i], name="c", revision="r1", quantiles=quantiles)
    for _ in range(2):  # the second run leaves the pictures of the first
        result = best_of_n(
            pipe, scorer, PROMPT, n=3, keep=2, seed=20, save_dir=folder, **{**call, "output_type": "pil"}
        )
    assert len(list(folder.iterdir())) == 4
    for place, path in enumerate(result.paths):
        metadata = read_metadata(path)
        assert metadata is not None
        assert metadata.score == pytest.approx(result.scores[place])
        assert metadata.percentile == pytest.approx(100 * result.scores[place])
        assert (metadata.model, metadata.revision, metadata.rank) == ("c", "r1", place + 1)
        assert (metadata.seed, metadata.index) == (result.seeds[place], result.seeds[place] - 20)
        assert (metadata.pipeline, metadata.steps, metadata.guidance) == ("StableDiffusionPipeline", STEPS, 3.0)
        assert metadata.prompt == PROMPT
        with PIL.Image.open(path) as saved:
            assert saved.convert("RGB").tobytes() == result.images[place].tobytes()


def test_saved_pictures_of_several_prompts_have_their_numbers(pipe: Any, call: dict[str, Any], tmp_path: Path) -> None:
    results = best_of_n(pipe, CONTRAST, ["a", "b"], n=1, save_dir=tmp_path, **call)
    assert [path.name for result in results for path in result.paths] == [
        "prompt000-rank1-seed0.png",
        "prompt001-rank1-seed0.png",
    ]


# Memory


@pytest.mark.parametrize(
    ("prune_at", "message"),
    [(None, "CUDA out of memory. Tried to allocate 2 GiB"), (PRUNE_AT, "not enough memory: you tried")],
)
def test_batches_are_halved_where_memory_runs_out(
    pipe: Any, call: dict[str, Any], prune_at: dict[float, int] | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ma_agiqa_core.generation.best_of import batches as candidates

    expected = best_of_n(pipe, CONTRAST, PROMPT, n=8, keep=2, prune_at=prune_at, **call)
    monkeypatch.setattr(candidates, "FIRST_BATCH_ELSEWHERE", 16)
    sizes: list[int] = []

    def limited(module: Any, args: tuple[Any, ...]) -> None:
        sizes.append(len(args[0]))
        if len(args[0]) > 2 * 3:
            raise RuntimeError(message)

    handle = pipe.unet.register_forward_pre_hook(limited)
    try:
        result = best_of_n(pipe, CONTRAST, PROMPT, n=8, keep=2, prune_at=prune_at, **call)
        assert sizes[:3] == [16, 8, 4]
        assert result.seeds == expected.seeds
        assert result.network_evaluations == expected.network_evaluations
        with pytest.raises(RuntimeError, match="memory"):
            best_of_n(pipe, CONTRAST, PROMPT, n=8, keep=2, prune_at=prune_at, batch_size=4, **call)
    finally:
        handle.remove()


def test_what_fitted_is_remembered_for_the_next_prompt(
    pipe: Any, call: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def limited(module: Any, args: tuple[Any, ...]) -> None:
        sizes.append(len(args[0]) // 2)
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = pipe.unet.register_forward_pre_hook(limited)
    try:
        best_of_n(pipe, CONTRAST, ["a", "b"], n=2, prune_at={0.5: 1}, **call)
    finally:
        handle.remove()
    assert sizes.count(2) == 1


def test_memory_that_the_scorer_lacks_does_not_make_batches_smaller(pipe: Any, call: dict[str, Any]) -> None:
    calls: list[int] = []

    def score(images: list[Any], prompts: object) -> list[float]:
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("CUDA out of memory")
        return [0.0] * len(images)

    with pytest.raises(RuntimeError, match="out of memory"):
        best_of_n(pipe, CallableScorer(score, name="big"), PROMPT, n=4, prune_at={0.5: 1}, **call)
    assert len(calls) == 2


# Failures


@pytest.mark.parametrize(
    ("error", "batch_size", "strategy", "at"),
    [
        (ValueError, 6, "batch", 2),
        (KeyboardInterrupt, 6, "batch", 3),
        (ValueError, 2, "batch", 3),
        (KeyboardInterrupt, 2, "batch", 2),
        (ValueError, 2, "sequential", 2),
        (KeyboardInterrupt, 6, "sequential", 3),
    ],
)
def test_a_failing_scorer_leaves_the_pipeline_usable(
    pipe: Any, call: dict[str, Any], error: type[BaseException], batch_size: int, strategy: str, at: int
) -> None:
    calls: list[int] = []

    def score(images: list[Any], prompts: object) -> list[float]:
        calls.append(1)
        if len(calls) == at:
            raise error("stop")
        return [contrast(image) for image in images]

    before = alone(pipe, 3, **call)
    with pytest.raises(error, match="stop"):
        best_of_n(
            pipe,
            CallableScorer(score, name="failing"),
            PROMPT,
            n=6,
            prune_at={0.4: 3, 0.7: 2},
            batch_size=batch_size,
            strategy=strategy,
            **call,
        )
    assert torch.equal(alone(pipe, 3, **call), before)


def test_an_error_in_the_network_ends_all_batches(pipe: Any, call: dict[str, Any]) -> None:
    calls: list[int] = []

    def fail(module: Any, args: tuple[Any, ...]) -> None:
        calls.append(1)
        if len(calls) == 7:  # in the second batch
            raise ZeroDivisionError("broken")

    handle = pipe.unet.register_forward_pre_hook(fail)
    try:
        with pytest.raises(ZeroDivisionError, match="broken"):
            best_of_n(pipe, CONTRAST, PROMPT, n=6, prune_at={0.9: 2}, batch_size=2, **call)
    finally:
        handle.remove()


def test_the_pipes_own_state_stays(pipe: Any, call: dict[str, Any]) -> None:
    pipe.scheduler.set_timesteps(7)
    timesteps = pipe.scheduler.timesteps
    config = dict(pipe._progress_bar_config)
    best_of_n(pipe, CONTRAST, PROMPT, n=4, prune_at={0.5: 2}, batch_size=2, **call)
    assert pipe.scheduler.timesteps is timesteps
    assert pipe._progress_bar_config == config


# Bad input: an error before the first denoising step


def scores_of(value: Callable[[int], Any], **info: Any) -> CallableScorer:
    return CallableScorer(lambda images, prompts: value(len(images)), name="odd", **info)


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"n": 0}, r"Expected n as a whole number of at least 1, got 0"),
    ({"n": 2.5}, r"Expected n as a whole number of at least 1, got 2\.5"),
    ({"keep": 0}, r"Expected keep as a whole number of at least 1, got 0"),
    ({"n": 4, "keep": 5}, r"Expected keep of at most n = 4, got 5"),
    ({"batch_size": 0}, r"Expected batch_size as a whole number of at least 1, got 0"),
    ({"max_rounds": 0, "min_score": 0.5}, r"Expected max_rounds as a whole number of at least 1, got 0"),
    ({"max_rounds": 2}, r"Expected min_score with max_rounds = 2, got None"),
    ({"min_score": float("nan")}, r"Expected a finite min_score, or None, got nan"),
    ({"seed": -1}, r"Expected a seed from 0 to 2\*\*63 - n \* max_rounds, got -1"),
    ({"prune_at": {0.0: 4}}, r"Expected fractions between 0 and 1 in prune_at, got 0\.0"),
    ({"prune_at": {1: 4}}, r"Expected fractions between 0 and 1 in prune_at, got 1"),
    ({"prune_at": {"0.5": 1}}, r"Expected prune_at as a dict of fractions of the steps with keep counts, got \{'0\.5'"),
    ({"prune_at": [0.5]}, r"Expected prune_at as a dict of fractions of the steps with keep counts, got \[0\.5\]"),
    ({"prune_at": {0.5: 0}}, r"Expected whole numbers of at least 1 to keep, got 0 at 0\.5"),
    ({"prune_at": {0.4: 2, 0.7: 4}}, r"Expected at most 2 candidates at 0\.7 in prune_at, got 4"),
    ({"prune_at": {0.7: 4, 0.4: 2}}, r"Expected at most 2 candidates at 0\.7 in prune_at, got 4"),
    ({"n": 4, "prune_at": {0.4: 5}}, r"Expected at most 4 candidates at 0\.4 in prune_at, got 5"),
    ({"keep": 3, "prune_at": {0.4: 2}}, r"prune_at to leave at least the 3 candidates that are to be kept, got 2"),
    ({"on_none": "ignore"}, r"Expected on_none 'best' or 'raise', got 'ignore'"),
    ({"strategy": "magic"}, r"Expected strategy 'batch' or 'sequential', got 'magic'"),
    ({"generator": None}, r"Expected no generator in the pipeline's arguments"),
    ({"num_images_per_prompt": 2}, r"Expected no num_images_per_prompt in the pipeline's arguments, got one\. Use n"),
    ({"callback_on_step_end": print}, r"Expected no callback_on_step_end"),
    ({"num_inference_step": 3}, r"got 'num_inference_step'\. Is it misspelt\?"),
    ({"output_type": "latent"}, r"Expected output_type 'pil', 'np' or 'pt', got 'latent'"),
    ({"prune_at": {0.5: 1}, "preview": "no/such/folder/here"}, r"no/such/folder/here"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS, ids=lambda value: str(value)[:30])
def test_bad_options(
    pipe: Any, call: dict[str, Any], denoising_steps: list[int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        best_of_n(pipe, CONTRAST, PROMPT, local_files_only=True, **{**call, **options})
    assert not denoising_steps


@pytest.mark.parametrize("prune_at", [None, {0.5: 2}])
@pytest.mark.parametrize(
    ("scorer", "options", "message"),
    [
        (scores_of(lambda n: [0.5] * (n + 1)), {}, r"Expected 2 scores from 'odd', got torch\.float32 \(3,\)"),
        (scores_of(lambda n: 0.5), {}, "Expected"),
        (scores_of(lambda n: [float("nan")] * n), {}, "odd returned nan"),
        (scores_of(lambda n: [float("inf")] * n), {}, "odd returned inf"),
        (
            scores_of(lambda n: [0.5] * n, relative=True),
            {"min_score": 0.1},
            "for min_score=0.1, got odd",
        ),
        ("lite", {}, r"Expected scorer with \.info and \.score, got 'lite'"),
        (CONTRAST, {"observe": "lite"}, r"Expected observe with \.info and \.score, got 'lite'"),
        (CONTRAST, {"observe": scores_of(lambda n: [0.5] * n, relative=True)}, "scale of its own to observe, got odd"),
        (CONTRAST, {"observe": scores_of(lambda n: [float("nan")] * n)}, "odd returned nan"),
    ],
)
def test_bad_scorers(
    pipe: Any,
    call: dict[str, Any],
    denoising_steps: list[int],
    scorer: Any,
    options: dict[str, Any],
    message: str,
    prune_at: dict[float, int] | None,
) -> None:
    with pytest.raises(ValueError, match=message):
        best_of_n(pipe, scorer, PROMPT, n=4, prune_at=prune_at, **call, **options)
    assert not denoising_steps


def test_a_scorer_that_needs_prompts_and_a_call_without(
    pipe: Any, call: dict[str, Any], denoising_steps: list[int]
) -> None:
    embeds = torch.zeros(1, 5, pipe.unet.config.cross_attention_dim)
    scorer = scores_of(lambda n: [0.5] * n, needs_prompt=True)
    call |= {"guidance_scale": 1.0, "prompt_embeds": embeds}
    with pytest.raises(ValueError, match="Expected a prompt for odd, which compares pictures with it, got None"):
        best_of_n(pipe, scorer, None, n=2, **call)
    assert not denoising_steps
    assert best_of_n(pipe, scorer, PROMPT, n=2, prune_at={0.5: 1}, **call).seeds == (0,)


@pytest.mark.parametrize("prompt", [[], [""] * 0, None, 3, ["a", None]])
def test_bad_prompts(pipe: Any, call: dict[str, Any], prompt: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="Expected"):
        best_of_n(pipe, CONTRAST, prompt, n=2, **call)


def test_texts_of_another_length(pipe: Any, call: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Expected one text or 2 as negative_prompt, got 3"):
        best_of_n(pipe, CONTRAST, ["a", "b"], n=2, negative_prompt=["x", "y", "z"], **call)


def test_a_scorer_that_fails_later_says_for_which_seed(pipe: Any, call: dict[str, Any]) -> None:
    calls: list[int] = []

    def score(images: list[Any], prompts: object) -> list[float]:
        calls.append(1)
        return [0.5] * (len(images) - 1) + [float("nan") if len(calls) > 1 else 0.5]

    class Unchecked:
        def __init__(self, scorer: CallableScorer) -> None:
            self.info, self._scorer = scorer.info, scorer

        def score(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            return self._scorer.score(*args, **{**kwargs, "on_error": "nan"})

    with pytest.raises(ValueError, match=r"got nan for the preview at 0\.5 of seed 12\."):
        best_of_n(
            pipe,
            Unchecked(CallableScorer(score, name="late")),
            PROMPT,
            n=3,
            seed=10,
            prune_at={0.5: 1},
            batch_size=2,
            **call,
        )


def test_pipelines_that_cannot_be_pruned_are_refused(tiny_pipelines: ModuleType) -> None:
    pipe = tiny_pipelines.pipeline("pixart_sigma")
    with pytest.raises(ValueError, match=r"Expected a pipeline with callback_on_step_end, got PixArtSigmaPipeline"):
        best_of_n(pipe, CONTRAST, PROMPT, n=4, prune_at={0.5: 2})


def test_noise_that_no_seed_governs_is_refused(tiny_pipelines: ModuleType, denoising_steps: list[int]) -> None:
    pipe = tiny_pipelines.pipeline("flux", "flow_euler_stochastic")
    with pytest.raises(ValueError, match="gives it no generators, so that no seed makes the same picture twice"):
        best_of_n(pipe, CONTRAST, PROMPT, n=2)


def test_pictures_to_start_from_are_one_a_call(tiny_pipelines: ModuleType) -> None:
    pipe = tiny_pipelines.pipeline("sd_img2img")
    with pytest.raises(ValueError, match="Expected one picture as image, got 2"):
        best_of_n(pipe, CONTRAST, PROMPT, n=2, image=[PIL.Image.new("RGB", (32, 32))] * 2)


@pytest.mark.parametrize(
    ("family", "prune_at"),
    [
        ("sd_inpaint", None),
        ("sdxl_inpaint", {0.5: 2}),
        ("sd3_inpaint", None),
        ("flux_inpaint", {0.5: 2}),
        ("sd_controlnet_inpaint", {0.5: 2}),
    ],
)
def test_inpainting_of_a_crop(tiny_pipelines: ModuleType, family: str, prune_at: dict[float, int] | None) -> None:
    """diffusers takes no list of pictures there."""
    pipe = tiny_pipelines.pipeline(family)
    mask = PIL.Image.new("L", (16, 16))
    mask.paste(255, (4, 4, 10, 12))
    picture = PIL.Image.effect_noise((16, 16), 99).convert("RGB")
    call = dict(tiny_pipelines.FAMILIES[family].settings) | {
        "image": picture,
        "mask_image": mask,
        "padding_mask_crop": 2,
        "num_inference_steps": 5,
    }
    if "control" in family:
        call["control_image"] = PIL.Image.effect_noise((16, 16), 50).convert("RGB")
    result = best_of_n(pipe, CONTRAST, PROMPT, n=3, prune_at=prune_at, preview="vae", **call)
    alone = pipe(PROMPT, generator=torch.Generator("cpu").manual_seed(result.seeds[0]), **call).images[0]
    assert PIL.ImageChops.difference(result.images[0], alone).getextrema() == ((0, 0),) * 3


@pytest.mark.parametrize(
    ("strategy", "output_type"), [("batch", "pil"), ("batch", "np"), ("sequential", "pt"), ("sequential", "pil")]
)
def test_of_a_video_chosen_frames_are_judged(tiny_pipelines: ModuleType, strategy: str, output_type: str) -> None:
    """All frames come back, the same as by the seed alone."""
    pipe = tiny_pipelines.pipeline("wan_frames")
    call = dict(tiny_pipelines.FAMILIES["wan_frames"].settings) | {"num_inference_steps": 4, "output_type": output_type}
    given: dict[str, Any] = {"n": 3, "keep": 2, "batch_size": 2, "preview": "vae", "frames": (0, 4), **call}
    result = best_of_n(pipe, CONTRAST, PROMPT, prune_at={0.5: 2}, strategy=strategy, **given)
    for video, score, seed in zip(result.images, result.scores, result.seeds, strict=True):
        alone = pipe(PROMPT, generator=torch.Generator("cpu").manual_seed(seed), **call).frames[0]
        assert len(video) == len(alone) == 5
        difference = [
            np.abs(np.asarray(a, float) - np.asarray(b, float)).max() for a, b in zip(video, alone, strict=True)
        ]
        assert max(difference) <= (1 if output_type == "pil" else 1e-4)
        if output_type == "pil":
            assert score == pytest.approx(float(CONTRAST.score([alone[0], alone[4]]).mean()), abs=0.01)
    assert len(result.history[0].kept) == 2


def test_frames_that_there_are_not_are_refused(tiny_pipelines: ModuleType, tmp_path: Path) -> None:
    pipe = tiny_pipelines.pipeline("wan_frames")
    for frames, message in (
        ((5,), r"frames below num_frames = 5, got 5"),
        ((), r"frames as whole numbers of at least 0, got \(\)"),
        ((-1,), r"frames as whole numbers of at least 0, got \(-1,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            best_of_n(pipe, CONTRAST, PROMPT, n=2, num_frames=5, frames=frames)
    with pytest.raises(ValueError, match=r"Expected frames=\(0,\) for pictures, got \(1,\)"):
        best_of_n(pipe, CONTRAST, PROMPT, n=2, num_frames=1, frames=(1,))
    with pytest.raises(ValueError, match="Expected no save_dir with num_frames=5"):
        best_of_n(pipe, CONTRAST, PROMPT, n=2, num_frames=5, save_dir=tmp_path)
    settings = dict(tiny_pipelines.FAMILIES["wan_frames"].settings) | {"num_inference_steps": 2, "num_frames": 7}
    with pytest.raises(ValueError, match="Expected frames from 0 to 4, got 6"):  # the pipeline makes 4 k + 1
        best_of_n(pipe, CONTRAST, PROMPT, n=2, frames=(6,), **settings)
