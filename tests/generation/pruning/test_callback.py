"""The filter around whole pipeline calls: Stable Diffusion and SDXL; test_exactness.py has all families."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback, SDCFGCutoffCallback

from ma_agiqa_core import CallableScorer, EnsembleScorer
from ma_agiqa_core.generation import QualityFilterCallback, UnsupportedPipelineError

ROWS = 4
LIMIT = 1e-4


def brightness(fn: Callable[..., Any] | None = None, **info: Any) -> CallableScorer:
    return CallableScorer(fn or (lambda pictures, prompts: pictures.mean((1, 2, 3))), name="brightness", **info)


def listed(*scores: float) -> CallableScorer:
    """Gives these scores to the first picture, the second and so on, whatever they show."""
    return brightness(lambda pictures, prompts: list(scores)[: len(pictures)])


@pytest.fixture(params=["sd", "sdxl"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def call(tiny_pipelines: ModuleType) -> Callable[..., torch.Tensor]:
    """Calls a pipeline, with a callback where one is given; (n, 3, H, W) pictures."""

    def call(pipe: Any, name: str, callback: Any = None, rows: int = ROWS, **changes: Any) -> torch.Tensor:
        names = {"prompts", "guidance", "steps", "seed"}
        given = {key: value for key, value in changes.items() if key in names}
        arguments = tiny_pipelines.FAMILIES[name].arguments(rows, **given)
        arguments |= {key: value for key, value in changes.items() if key not in names}
        if callback is not None:
            arguments |= {
                "callback_on_step_end": callback,
                "callback_on_step_end_tensor_inputs": callback.tensor_inputs,
            }
        return pipe(**arguments, output_type="pt").images

    return call


def state_of(pipe: Any) -> dict[str, Any]:
    """What the callback may have left behind."""
    return {
        "hooks": dict(pipe.unet._forward_pre_hooks),
        "step": vars(pipe.scheduler).get("step"),
        "check": vars(pipe).get("check_inputs"),
    }


@pytest.fixture
def pipe(tiny_pipelines: ModuleType, family: str) -> Any:
    pipe = tiny_pipelines.pipeline(family)
    before = state_of(pipe)
    yield pipe
    assert state_of(pipe) == before


@pytest.mark.parametrize(
    ("guidance", "prune_at"), [(True, {0.5: 1}), (True, {0.3: 3, 0.7: 1}), (False, {0.2: 3, 0.5: 2})]
)
def test_survivors_are_the_pictures_of_the_call_without_the_filter(pipe, family, call, guidance, prune_at):
    full = call(pipe, family, guidance=guidance)

    with QualityFilterCallback(pipe, brightness(), prune_at=prune_at, preview="vae") as callback:
        pictures = call(pipe, family, callback, guidance=guidance)

    assert len(callback.survivors) == min(prune_at.values())
    assert (full[list(callback.survivors)] - pictures).abs().max() < LIMIT
    assert [step.fraction for step in callback.history] == list(prune_at)
    assert callback.history[0].scores.keys() == set(range(ROWS))
    for step in callback.history:
        assert sorted(step.kept + step.dropped) == list(step.scores)
        worst_kept = min(step.scores[row] for row in step.kept)
        assert all(step.scores[row] <= worst_kept for row in step.dropped)
    again = call(pipe, family, guidance=guidance)
    assert torch.equal(again, full)


def test_keep_counts_are_per_prompt(pipe, family, call):
    full = call(pipe, family, rows=3, prompts=2)
    scorer = listed(0, 1, 2, 3, 4, 5)  # the second prompt's rows are all better

    with QualityFilterCallback(pipe, scorer, prune_at={0.5: 1}, preview="vae") as callback:
        pictures = call(pipe, family, callback, rows=3, prompts=2)

    assert callback.survivors == (2, 5)
    assert (full[[2, 5]] - pictures).abs().max() < LIMIT


def test_the_scorer_is_told_the_prompts_of_the_call(pipe, family, call, tiny_pipelines):
    told: list[Any] = []

    def score(pictures: torch.Tensor, prompts: list[str] | None) -> list[float]:
        told.append(prompts)
        return [float(row) for row in range(len(pictures))]

    def run(prompts: Any = None) -> None:
        scorer = brightness(score, needs_prompt=True)
        with QualityFilterCallback(pipe, scorer, prune_at={0.3: 1}, prompts=prompts, preview="vae") as callback:
            call(pipe, family, callback, rows=2, prompts=2, guidance=False, steps=2)

    run()
    run("one for all")
    run(["first", "second"])
    run(["a", "b", "c", "d"])

    first, second = tiny_pipelines.PROMPTS[:2]
    assert told == [
        [first, first, second, second],
        ["one for all"] * 4,
        ["first", "first", "second", "second"],
        ["a", "b", "c", "d"],
    ]


def test_a_relative_scorer_compares_the_rows_of_each_prompt(pipe, family, call):
    sizes: list[int] = []

    def score(pictures: torch.Tensor, prompts: list[str] | None) -> torch.Tensor:
        sizes.append(len(pictures))
        return pictures.mean((1, 2, 3))

    scorer = EnsembleScorer([(brightness(score), 1.0)], combine="rank")
    with QualityFilterCallback(pipe, scorer, prune_at={0.5: 1}, prompts="same", preview="vae") as callback:
        call(pipe, family, callback, rows=2, prompts=2)

    assert sizes == [2, 2]
    assert sorted(callback.history[0].scores.values()) == [0, 0, 1, 1]
    assert len(callback.survivors) == 2


def test_evaluations_count_guidance_twice(pipe, family, call):
    for guidance in (True, False):
        with QualityFilterCallback(pipe, listed(1, 2, 3, 4), prune_at={0.5: 1}, preview="vae") as callback:
            call(pipe, family, callback, guidance=guidance)

        before, after = callback.history[0].step + 1, pipe.num_timesteps - callback.history[0].step - 1
        assert callback.network_evaluations == (1 + guidance) * (ROWS * before + after)


def test_among_other_callbacks(pipe, family, call):
    class Counts(PipelineCallback):
        tensor_inputs = ["latents"]  # noqa: RUF012  diffusers' own way

        def __init__(self) -> None:
            super().__init__()
            self.rows: list[int] = []

        def callback_fn(self, pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            self.rows.append(len(tensors["latents"]))
            return tensors

    full, before, after = call(pipe, family), Counts(), Counts()

    with QualityFilterCallback(pipe, listed(1, 4, 2, 3), prune_at={0.5: 2}, preview="vae") as callback:
        pictures = call(pipe, family, MultiPipelineCallbacks([before, callback, after]))

    assert callback.survivors == (1, 3)
    assert (full[[1, 3]] - pictures).abs().max() < LIMIT
    step = callback.history[0].step
    assert before.rows[: step + 2] == [4] * (step + 1) + [2]
    assert after.rows[: step + 2] == [4] * step + [2, 2]


def test_without_prune_at_it_only_watches(pipe, family, call):
    full = call(pipe, family)

    with QualityFilterCallback(pipe, brightness(lambda *_: pytest.fail("scored"))) as callback:
        pictures = call(pipe, family, callback)

    assert torch.equal(full, pictures)
    assert callback.survivors == (0, 1, 2, 3)
    assert callback.history == ()
    assert callback.network_evaluations == 2 * ROWS * pipe.num_timesteps


@pytest.mark.parametrize(("scheduler", "calls"), [("ddim", 4), ("heun", 7), ("pndm", 5)])
@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.5, 0.99])
def test_fractions_are_of_the_calls_that_happen(tiny_pipelines, call, scheduler, calls, fraction):
    pipe = tiny_pipelines.pipeline("sd", scheduler)

    with QualityFilterCallback(pipe, listed(4, 3, 2, 1), prune_at={fraction: 2}, preview="vae") as callback:
        call(pipe, "sd", callback, num_inference_steps=4)

    assert pipe.num_timesteps == calls
    assert callback.history[0].step + 1 == min(max(1, round(fraction * calls)), calls - 1)


def test_fractions_of_one_step_are_decided_by_the_last(pipe, family, call):
    with QualityFilterCallback(pipe, brightness(), prune_at={0.4: 3, 0.45: 1}, preview="vae") as callback:
        call(pipe, family, callback, num_inference_steps=2)

    assert [(step.fraction, len(step.kept)) for step in callback.history] == [(0.45, 1)]


def test_a_call_of_one_step_is_not_pruned(tiny_pipelines, call):
    pipe = tiny_pipelines.pipeline("sd", "euler")

    with QualityFilterCallback(pipe, brightness(), prune_at={0.5: 1}, preview="vae") as callback:
        assert len(call(pipe, "sd", callback, num_inference_steps=1)) == ROWS

    assert callback.history == ()


def test_min_score(pipe, family, call):
    def kept(*scores: float) -> tuple[int, ...]:
        with QualityFilterCallback(pipe, listed(*scores), prune_at={0.5: 3}, min_score=0.5, preview="vae") as callback:
            call(pipe, family, callback, steps=2)
        return callback.survivors

    assert kept(0.9, 0.1, 0.6, 0.2) == (0, 2)
    assert kept(0.9, 0.8, 0.6, 0.7) == (0, 1, 3)
    assert kept(0.1, 0.3, 0.3, 0.2) == (1,)  # all below: the best, of equal ones the first


@pytest.mark.parametrize("scheduler", ["euler_ancestral", "lcm", "dpm_sde"])
def test_noise_in_the_steps_needs_one_generator_per_row(tiny_pipelines, call, scheduler):
    pipe = tiny_pipelines.pipeline("sd", scheduler)
    shared = torch.Generator()
    for generator in (None, shared, [shared] * ROWS):
        with (
            pytest.raises(ValueError, match=f"Expected a list of {ROWS} generators"),
            QualityFilterCallback(pipe, brightness(), prune_at={0.5: 1}, preview="vae") as callback,
        ):
            call(pipe, "sd", callback, generator=generator)
        assert callback.network_evaluations == 0

    generators = tiny_pipelines.generators(ROWS)
    before = list(generators)
    full = call(pipe, "sd", generator=tiny_pipelines.generators(ROWS))
    with QualityFilterCallback(pipe, listed(1, 2, 4, 3), prune_at={0.5: 1}, preview="vae") as callback:
        pictures = call(pipe, "sd", callback, generator=generators)
    assert (full[[2]] - pictures).abs().max() < LIMIT
    assert generators == before


def test_ddim_with_eta_needs_them_too(tiny_pipelines, call):
    pipe = tiny_pipelines.pipeline("sd", "ddim")

    with (
        pytest.raises(ValueError, match="because DDIMScheduler draws noise"),
        QualityFilterCallback(pipe, brightness(), prune_at={0.5: 1}, preview="vae") as callback,
    ):
        call(pipe, "sd", callback, eta=0.5, generator=torch.Generator())


def test_a_generator_for_all_rows_will_do_without_noise_in_the_steps(tiny_pipelines, call):
    pipe = tiny_pipelines.pipeline("sd", "ddim")
    full = call(pipe, "sd", generator=torch.Generator().manual_seed(3))

    with QualityFilterCallback(pipe, listed(1, 4, 2, 3), prune_at={0.5: 2}, preview="vae") as callback:
        pictures = call(pipe, "sd", callback, generator=torch.Generator().manual_seed(3))

    assert (full[[1, 3]] - pictures).abs().max() < LIMIT


def test_inpainting_previews_show_what_is_kept_of_the_picture(tiny_pipelines, call):
    """At the last step but one x0 is all but the result, only if the unmasked part is put in."""
    pipe = tiny_pipelines.pipeline("sd_inpaint", "ddim")
    seen: list[torch.Tensor] = []

    def score(pictures: torch.Tensor, prompts: Any) -> list[float]:
        seen.append(pictures.clone())
        return [1.0] * len(pictures)

    def look(x0: torch.Tensor) -> torch.Tensor:
        seen.append(x0)
        return torch.zeros(len(x0), 3, 8, 8)

    variables: dict[str, Any] = {}
    original = type(pipe.scheduler).add_noise

    def add_noise(image_latents: torch.Tensor, noise: torch.Tensor, timestep: Any) -> torch.Tensor:
        variables["image_latents"] = image_latents
        return original(pipe.scheduler, image_latents, noise, timestep)

    pipe.scheduler.add_noise = add_noise
    with QualityFilterCallback(pipe, listed(1, 2, 3, 4), prune_at={0.5: 4}, preview=look) as callback:
        call(pipe, "sd_inpaint", callback)

    kept = (seen[0] - variables["image_latents"]).abs().amax((0, 1)) < 1e-6
    assert kept.any()
    assert not kept.all()


@pytest.mark.parametrize("raised", [KeyboardInterrupt, RuntimeError("mine")])
def test_an_interruption_leaves_the_pipeline_as_it_was(tiny_pipelines, call, raised):
    pipe = tiny_pipelines.pipeline("sd", "dpm_2m")
    full, before = call(pipe, "sd"), state_of(pipe)
    generators = tiny_pipelines.generators(ROWS)
    list_before, scored = list(generators), []

    def score(pictures: torch.Tensor, prompts: Any) -> list[float]:
        scored.append(len(pictures))
        if len(scored) == 2:
            raise raised
        return [1.0, 2.0, 3.0, 4.0]

    with (
        pytest.raises(KeyboardInterrupt if raised is KeyboardInterrupt else RuntimeError),
        QualityFilterCallback(pipe, brightness(score), prune_at={0.3: 2, 0.7: 1}, preview="vae") as callback,
    ):
        call(pipe, "sd", callback, generator=generators)

    assert scored == [4, 2]
    assert callback.survivors == (2, 3)
    assert generators == list_before
    assert state_of(pipe) == before
    assert torch.equal(call(pipe, "sd"), full)


def test_an_error_caught_inside_the_with_has_restored_everything(tiny_pipelines, call):
    pipe = tiny_pipelines.pipeline("sd")
    full, before = call(pipe, "sd"), state_of(pipe)

    with QualityFilterCallback(pipe, listed(1, 2), prune_at={0.3: 2}, preview="vae") as callback:
        with pytest.raises(ValueError, match="Expected 4 scores from 'brightness'"):
            call(pipe, "sd", callback)
        assert state_of(pipe) == before
        assert torch.equal(call(pipe, "sd"), full)
        with pytest.raises(RuntimeError, match="Expected the callback inside its `with`"):
            call(pipe, "sd", callback)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_no_number_names_its_row(tiny_pipelines, call, bad, monkeypatch):
    pipe = tiny_pipelines.pipeline("sd")
    stages = iter([[4.0, 1.0, 2.0, 3.0], [1.0, bad, 2.0]])
    scorer = brightness()
    monkeypatch.setattr(scorer, "score", lambda pictures, prompts=None: next(stages))

    with (
        pytest.raises(
            ValueError, match=f"Expected finite scores from 'brightness', got {bad} for the preview of row 2"
        ),
        QualityFilterCallback(pipe, scorer, prune_at={0.3: 3, 0.7: 1}, preview="vae") as callback,
    ):
        call(pipe, "sd", callback)

    assert len(callback.history) == 1
    assert callback.survivors == (0, 2, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prune_at": {0.0: 1}}, "Expected fractions between 0 and 1 in prune_at, got 0.0"),
        ({"prune_at": {1.0: 1}}, "Expected fractions between 0 and 1 in prune_at, got 1.0"),
        ({"prune_at": {math.nan: 1}}, "Expected fractions between 0 and 1 in prune_at, got nan"),
        (
            {"prune_at": {"0.5": 1}},
            "Expected prune_at as a dict of fractions of the steps with keep counts, got {'0.5'",
        ),
        ({"prune_at": [(0.5, 1)]}, "Expected prune_at as a dict of fractions of the steps with keep counts, got "),
        ({"prune_at": {0.5: 0}}, "Expected whole numbers of at least 1 to keep, got 0 at 0.5"),
        ({"prune_at": {0.5: 1.5}}, "Expected whole numbers of at least 1 to keep, got 1.5 at 0.5"),
        ({"prune_at": {0.5: True}}, "Expected whole numbers of at least 1 to keep, got True at 0.5"),
        ({"prune_at": {0.7: 3, 0.4: 2}}, "Expected at most 2 candidates at 0.7 in prune_at, got 3: there are no more"),
        ({"strategy": "both"}, "Expected strategy 'batch' or 'sequential', got 'both'"),
        ({"min_score": 1.0}, "Expected prune_at with min_score = 1, got none"),
        ({"prune_at": {0.5: 1}, "min_score": math.nan}, "Expected a finite min_score, or None, got nan"),
    ],
)
def test_wrong_options(tiny_pipelines, options, message):
    with pytest.raises(ValueError, match=message):
        QualityFilterCallback(tiny_pipelines.pipeline("sd"), brightness(), **options)


@pytest.mark.parametrize("scorer", [None, "lite", lambda pictures, prompts: pictures.mean((1, 2, 3))])
def test_something_else_than_a_scorer(tiny_pipelines, scorer):
    with pytest.raises(ValueError, match=r"Expected a scorer with \.info and \.score, got"):
        QualityFilterCallback(tiny_pipelines.pipeline("sd"), scorer, prune_at={0.5: 1})


@pytest.mark.parametrize("others", [[], [SDCFGCutoffCallback(cutoff_step_ratio=1.0)]])
def test_without_its_with_it_is_refused_before_the_first_step(pipe, family, call, others):
    callback = QualityFilterCallback(pipe, brightness(), prune_at={0.5: 1}, preview="vae")
    among_others = MultiPipelineCallbacks([callback, *others])
    assert "latents" in callback.tensor_inputs
    steps = []
    hook = pipe.unet.register_forward_pre_hook(lambda *_: steps.append(1))
    try:
        with pytest.raises(RuntimeError, match="Expected the callback inside its `with`"):
            call(pipe, family, among_others if others else callback)
    finally:
        hook.remove()
    assert not steps


@pytest.mark.parametrize("strategy", ["batch", "sequential"])
def test_another_callback_in_its_place_is_told(tiny_pipelines, call, strategy):
    pipe = tiny_pipelines.pipeline("sd")
    before = state_of(pipe)
    callback = QualityFilterCallback(pipe, brightness(), prune_at={0.5: 1}, preview="vae", strategy=strategy)
    rows = 1 if strategy == "sequential" else ROWS
    another = {
        "callback_on_step_end": lambda pipe, step, timestep, tensors: tensors,
        "callback_on_step_end_tensor_inputs": callback.tensor_inputs,
    }
    with (
        pytest.raises(RuntimeError, match="the pipeline was given another one, and nothing has been dropped"),
        callback,
    ):
        call(pipe, "sd", rows=rows, **another)
    assert state_of(pipe) == before


@pytest.mark.parametrize("options", [{"min_score": 0.5}, {"strategy": "sequential"}])
def test_a_relative_scorer_has_no_scale(tiny_pipelines, options):
    with pytest.raises(ValueError, match="Expected a scorer with a scale of its own"):
        QualityFilterCallback(tiny_pipelines.pipeline("sd"), brightness(relative=True), prune_at={0.5: 1}, **options)


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"prune_at": {0.5: 5}}, {}, "Expected to keep at most 4, the pictures per prompt of this call, got 5 at 0.5"),
        ({"prompts": ["a", "b", "c"]}, {}, "Expected one prompt, one for each of 1 prompts or one for each of 4 rows"),
        ({}, {"callback_on_step_end": None}, "got callback_on_step_end=None"),
        (
            {},
            {
                "callback_on_step_end": lambda pipe, step, timestep, tensors: tensors,
                "callback_on_step_end_tensor_inputs": ["latents"],
            },
            "Expected callback_on_step_end_tensor_inputs with prompt_embeds",
        ),
        (
            {},
            {"cross_attention_kwargs": {"gligen": {"boxes": torch.zeros(4, 1)}}},
            "Expected cross_attention_kwargs without tensors, got one in 'gligen'",
        ),
    ],
)
def test_a_wrong_call_is_refused_before_its_first_step(tiny_pipelines, options, changes, message):
    pipe = tiny_pipelines.pipeline("sd")
    before, options = state_of(pipe), {"prune_at": {0.5: 1}, "preview": "vae", **options}
    callback = QualityFilterCallback(pipe, brightness(), **options)
    arguments = {
        **tiny_pipelines.FAMILIES["sd"].arguments(ROWS),
        "callback_on_step_end": callback,
        "callback_on_step_end_tensor_inputs": callback.tensor_inputs,
        **changes,
    }

    with pytest.raises(ValueError, match=message), callback:
        pipe(**arguments)

    assert callback.network_evaluations == 0
    assert state_of(pipe) == before


def test_a_scorer_that_needs_prompts_and_a_call_without_text(tiny_pipelines, call):
    pipe = tiny_pipelines.pipeline("sd")
    prompt, negative = pipe.encode_prompt("fox", "cpu", 1, True)
    embeds = {"prompt_embeds": prompt, "negative_prompt_embeds": negative}

    def run(prompts: Any = None) -> None:
        scorer = brightness(needs_prompt=True)
        with QualityFilterCallback(pipe, scorer, prune_at={0.5: 1}, prompts=prompts, preview="vae") as callback:
            call(pipe, "sd", callback, prompt=None, negative_prompt=None, **embeds)

    with pytest.raises(
        ValueError, match="Expected prompts for 'brightness', which needs them, got a call without text"
    ):
        run()
    run("a fox")


def test_one_call_per_with_and_any_number_of_withs(pipe, family, call):
    callback = QualityFilterCallback(pipe, listed(1, 2, 3, 4), prune_at={0.5: 1}, preview="vae")
    with callback:
        first = call(pipe, family, callback)
        with pytest.raises(ValueError, match="Expected one pipeline call inside the `with`, got a second one"):
            call(pipe, family, callback)
    assert list(callback.survivors) == [3]

    with callback:
        assert not callback.survivors
        second = call(pipe, family, callback)
        with pytest.raises(RuntimeError, match="Expected a callback that is not in use"):
            callback.__enter__()

    assert torch.equal(first, second)


def test_another_pipeline_is_not_the_one_that_was_prepared(tiny_pipelines, call):
    prepared = tiny_pipelines.pipeline("sd")
    other = type(prepared)(**prepared.components)
    other.set_progress_bar_config(disable=True)

    with (
        pytest.raises(RuntimeError, match="got a call of another pipeline"),
        QualityFilterCallback(prepared, brightness(), prune_at={0.5: 1}, preview="vae") as callback,
    ):
        call(other, "sd", callback)


def test_another_scheduler_than_on_entering(tiny_pipelines, call):
    pipe = tiny_pipelines.pipeline("sd")

    with QualityFilterCallback(pipe, brightness(), prune_at={0.5: 1}, preview="vae") as callback:
        pipe.scheduler = tiny_pipelines.SCHEDULERS["euler"]()
        with pytest.raises(ValueError, match="Expected the scheduler that the pipeline had on entering"):
            call(pipe, "sd", callback)


@pytest.mark.parametrize("min_score", [None, 0.5, 0.95])
def test_one_at_a_time_keeps_whom_the_batch_keeps(tiny_pipelines, call, min_score):
    """Scores that change places between the stages; candidates that were stopped saved evaluations."""
    pipe, prune_at = tiny_pipelines.pipeline("sd"), {0.3: 3, 0.7: 1}
    first, second = (0.2, 0.9, 0.4, 0.6, 0.3), (0.9, 0.1, 0.8, 0.7, 0.6)
    full = call(pipe, "sd", rows=5)

    def batch_score(pictures: torch.Tensor, prompts: Any) -> list[float]:
        return list(first) if len(pictures) == 5 else [second[row] for row in batch.survivors]

    with QualityFilterCallback(
        pipe, brightness(batch_score), prune_at=prune_at, min_score=min_score, preview="vae"
    ) as batch:
        call(pipe, "sd", batch, rows=5)

    stages: list[int] = []

    def alone_score(pictures: torch.Tensor, prompts: Any) -> list[float]:
        stages.append(candidate)
        return [(first, second)[stages.count(candidate) - 1][candidate]]

    pictures = []
    with QualityFilterCallback(
        pipe,
        brightness(alone_score),
        prune_at=prune_at,
        min_score=min_score,
        preview="vae",
        strategy="sequential",
    ) as alone:
        for candidate in range(5):
            generator = torch.Generator().manual_seed(candidate)
            pictures.append(call(pipe, "sd", alone, rows=1, generator=generator)[0])

    assert alone.survivors == batch.survivors
    assert [(step.kept, step.fraction, step.step) for step in alone.history][-1] == [
        (step.kept, step.fraction, step.step) for step in batch.history
    ][-1]
    for row in alone.survivors:
        assert (pictures[row] - full[row]).abs().max() < LIMIT
    assert alone.network_evaluations < 5 * 2 * pipe.num_timesteps
    assert not pipe.interrupt or alone.survivors[-1] < 4


def test_one_at_a_time_takes_one_row(tiny_pipelines, call):
    pipe = tiny_pipelines.pipeline("sd")

    with (
        pytest.raises(ValueError, match="Expected one row per call with strategy='sequential', got 4"),
        QualityFilterCallback(pipe, brightness(), prune_at={0.5: 1}, preview="vae", strategy="sequential") as callback,
    ):
        call(pipe, "sd", callback)


def test_one_at_a_time_works_in_pipelines_that_cannot_be_pruned(tiny_pipelines, call):
    plain = tiny_pipelines.pipeline("sd")

    class Mine(type(plain)):  # type: ignore[misc]
        pass

    pipe = Mine(**plain.components)
    pipe.set_progress_bar_config(disable=True)
    with (
        pytest.raises(
            UnsupportedPipelineError, match=r"got .*\.Mine, which is not in the table .*strategy='sequential'"
        ),
        QualityFilterCallback(pipe, brightness(), prune_at={0.5: 1}),
    ):
        pass
    with (
        pytest.raises(UnsupportedPipelineError, match="Expected a callable as preview for Mine"),
        QualityFilterCallback(pipe, brightness(), prune_at={0.5: 1}, strategy="sequential"),
    ):
        pass

    scores = iter([0.9, 0.1, 0.95])
    with QualityFilterCallback(
        pipe,
        brightness(lambda *_: [next(scores)]),
        prune_at={0.5: 1},
        strategy="sequential",
        preview=lambda x0: x0[:, :3].sigmoid(),
    ) as callback:
        for seed in range(3):
            call(pipe, "sd", callback, rows=1, generator=torch.Generator().manual_seed(seed))

    assert callback.survivors == (2,)
    calls = pipe.num_timesteps
    assert callback.network_evaluations == 2 * (2 * calls + callback.history[0].step + 1)
