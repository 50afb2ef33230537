"""Calibration of tiny pipelines against what the same pipelines give by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from ma_agiqa_core import CallableScorer, EnsembleScorer, load_scorer
from ma_agiqa_core.generation import QualityFilterCallback
from ma_agiqa_core.generation.calibration import measure as calibration_module
from ma_agiqa_core.generation.calibration.measure import Calibration, calibrate
from ma_agiqa_core.generation.early.kept_previews import read_kept

PROMPTS = ["a red cube", "two cats"]
SIZE: dict[str, Any] = {"height": 16, "width": 16}
FEW = (0.25, 0.5, 0.75)


def brightness(pictures: Sequence[Any], prompts: object) -> list[float]:
    return [float(np.asarray(picture).mean()) for picture in pictures]


def bright() -> CallableScorer:
    return CallableScorer(brightness, name="bright", high=255.0)


@pytest.fixture
def pipe(tiny_pipelines):
    return tiny_pipelines.pipeline("sd")


def by_hand(pipe: Any, prompt: str, seed: int, steps: int) -> tuple[list[float], float]:
    """Brightness of what DDIM says the finished picture will be, after every step, and of the finished picture."""
    estimates = []
    step = pipe.scheduler.step

    def watched(*args, return_dict=True, **kwargs):
        result = step(*args, **kwargs)
        estimates.append(result.pred_original_sample)
        return result if return_dict else (result.prev_sample,)

    pipe.scheduler.step = watched
    try:
        generator = torch.Generator("cpu").manual_seed(seed)
        picture = pipe(prompt, generator=generator, num_inference_steps=steps, **SIZE).images[0]
    finally:
        del pipe.scheduler.step
    means = []
    for latents in estimates:
        decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
        means.append(float((decoded / 2 + 0.5).clamp(0, 1).mul(255).round().mean()))
    return means, float(np.asarray(picture).mean())


@torch.no_grad()
def test_scores_are_those_of_single_calls(pipe):
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    report = calibrate(pipe, bright(), PROMPTS, n=3, fractions=FEW, seed=5, num_inference_steps=4, **SIZE)
    measured = report.measured
    assert measured.previews.shape == (2, 3, 3)
    assert measured.final.shape == (2, 3)
    for row, prompt in enumerate(PROMPTS):
        for candidate in range(3):
            estimates, final = by_hand(pipe, prompt, 5 + candidate, 4)
            assert measured.previews[row, :, candidate] == pytest.approx(estimates[:3], abs=0.1)
            assert measured.final[row, candidate] == pytest.approx(final, abs=0.1)
    assert measured.final.std() > 1
    assert report.random == pytest.approx(measured.final.mean())
    assert report.best == pytest.approx(measured.final.max(1).mean())


@pytest.mark.parametrize("name", ["sd_img2img", "sd_inpaint", "sdxl_img2img"])
def test_candidates_that_begin_with_a_picture_are_those_of_their_seeds(tiny_pipelines, name):
    pipe = tiny_pipelines.pipeline(name)
    picture = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    mask = PIL.Image.fromarray(np.repeat(np.array([[0, 255]], dtype=np.uint8), 16, axis=1).repeat(32, axis=0))
    given: dict[str, Any] = {"image": picture, "num_inference_steps": 4, "strength": 1.0 if "inpaint" in name else 0.9}
    if "inpaint" in name:
        given |= {"mask_image": mask, "height": 32, "width": 32}
    seen = calibrate(pipe, bright(), PROMPTS[0], n=3, fractions=(0.5,), seed=5, **given).measured.final[0]
    for candidate, score in enumerate(seen):
        generator = torch.Generator("cpu").manual_seed(5 + candidate)
        (alone,) = pipe(PROMPTS[0], generator=generator, **given).images
        assert score == pytest.approx(brightness([alone], None)[0], abs=0.1)


@pytest.mark.parametrize(("guidance", "rows"), [(3.0, 2), (1.0, 1)])
def test_network_evaluations_count_guidance_twice(pipe, guidance, rows):
    settings: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": guidance, **SIZE}
    report = calibrate(pipe, bright(), PROMPTS[0], n=3, fractions=FEW, **settings)
    assert report.network_evaluations == 3 * 4 * rows
    assert report.measured.evaluations.tolist() == [3 * rows, 6 * rows, 9 * rows]
    assert report.table[0].cost[1] == pytest.approx((3 * 1 + 1 * 3) / 12)
    assert report.preview_cost > 0


@pytest.mark.parametrize(
    ("scheduler", "calls", "steps"),
    [("heun", 7, [2, 4, 5]), ("pndm", 5, [1, 2, 4]), ("euler_ancestral", 4, [1, 2, 3]), ("dpm_2m", 4, [1, 2, 3])],
)
def test_fractions_are_of_the_calls_that_happen(tiny_pipelines, scheduler, calls, steps):
    pipe = tiny_pipelines.pipeline("sd", scheduler)
    report = calibrate(pipe, bright(), PROMPTS[0], n=2, fractions=FEW, num_inference_steps=4, **SIZE)
    assert report.setting.scheduler_calls == calls
    assert [row.step for row in report.table] == steps
    assert [row.fraction for row in report.table] == list(FEW)
    assert report.setting.steps == 4
    assert report.recommended.steps == 4
    assert report.recommended.scheduler == type(pipe.scheduler).__name__


@pytest.mark.parametrize(
    "name", ["sdxl", "kolors", "sd3", "flux", "wan", "sd_img2img", "sd_inpaint", "sdxl_inpaint_9", "sd_controlnet"]
)
def test_other_families(tiny_pipelines, name):
    pipe, family = tiny_pipelines.pipeline(name), tiny_pipelines.FAMILIES[name]
    inputs = {key: value for key, value in family.inputs(1).items() if not key.startswith("prompt")}
    inputs |= {key: tiny_pipelines.PICTURES[key](1) for key in family.per_row}
    settings: dict[str, Any] = {**inputs, **family.settings, "num_inference_steps": 5}
    report = calibrate(pipe, bright(), PROMPTS[0], n=2, fractions=[0.6], batch_size=2, **settings)
    assert report.measured.previews.shape == (1, 1, 2)
    assert report.measured.final.shape == (1, 2)
    assert report.setting.pipeline == type(pipe).__name__
    if "inpaint" in name:  # one given picture is encoded once, with the first row's generator: the others draw less
        return
    alone = calibrate(pipe, bright(), PROMPTS[0], n=2, fractions=[0.6], batch_size=1, **settings)
    np.testing.assert_allclose(alone.measured.previews, report.measured.previews, atol=0.1)
    np.testing.assert_allclose(alone.measured.final, report.measured.final, atol=0.1)


def test_a_prompt_that_comes_again_gets_other_seeds(pipe):
    settings: dict[str, Any] = {"fractions": [0.5], "num_inference_steps": 2, **SIZE}
    report = calibrate(pipe, bright(), ["a", "b", "a"], n=2, seed=3, **settings)
    next_two = calibrate(pipe, bright(), "a", n=2, seed=5, **settings)
    assert report.measured.final[2].tolist() == pytest.approx(next_two.measured.final[0].tolist(), abs=0.05)
    assert report.measured.final[0].tolist() != report.measured.final[2].tolist()


def test_prompts_whose_previews_are_kept_share_no_seed(pipe, tmp_path):
    settings: dict[str, Any] = {"n": 2, "fractions": (0.5,), "num_inference_steps": 2, **SIZE}
    kept = calibrate(pipe, bright(), PROMPTS, seed=5, save_previews=tmp_path, **settings).measured.final
    for row, (prompt, seed) in enumerate(zip(PROMPTS, (5, 7), strict=True)):
        alone = calibrate(pipe, bright(), prompt, seed=seed, **settings).measured.final[0]
        assert kept[row] == pytest.approx(alone, abs=0.1)
    assert [one.finals.tolist() for one in read_kept(tmp_path)] == kept.tolist()


def test_batches_change_nothing(pipe):
    settings: dict[str, Any] = {"n": 5, "fractions": FEW, "num_inference_steps": 4, **SIZE}
    expected = calibrate(pipe, bright(), PROMPTS, **settings)
    for batch_size in (1, 2, 8):
        report = calibrate(pipe, bright(), PROMPTS, batch_size=batch_size, **settings)
        np.testing.assert_allclose(report.measured.previews, expected.measured.previews, atol=0.05)
        np.testing.assert_allclose(report.measured.final, expected.measured.final, atol=0.05)
        assert report.network_evaluations == expected.network_evaluations
        assert report.measured.evaluations.tolist() == expected.measured.evaluations.tolist()


def test_where_memory_runs_out_batches_are_halved(pipe, monkeypatch):
    sizes = []
    call = type(pipe).__call__

    def small(self, *args, **kwargs):
        sizes.append(kwargs["num_images_per_prompt"])
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return call(self, *args, **kwargs)

    monkeypatch.setattr(calibration_module, "check_call", lambda *_: "num_images_per_prompt")
    monkeypatch.setattr(type(pipe), "__call__", small)
    settings: dict[str, Any] = {"n": 5, "fractions": [0.5], "num_inference_steps": 2, **SIZE}
    report = calibrate(pipe, bright(), PROMPTS, **settings)
    assert sizes == [5, 2, 2, 1, 2, 2, 1]
    assert report.measured.final.shape == (2, 5)


def test_prompts_and_a_group_at_a_time_for_scorers_that_need_them(pipe):
    asked = []

    def score(pictures, prompts):
        asked.append((len(pictures), set(prompts)))
        return brightness(pictures, prompts)

    needy = CallableScorer(score, name="needy", needs_prompt=True)
    both = EnsembleScorer([(needy, 1), (load_scorer("lite", device="cpu"), 1)], combine="rank")
    settings: dict[str, Any] = {"n": 4, "fractions": [0.5], "num_inference_steps": 2, "batch_size": 3, **SIZE}
    report = calibrate(pipe, both, PROMPTS, **settings)
    assert asked[1:] == [(4, {prompt}) for prompt in PROMPTS for _ in range(2)]  # the first is a trial
    assert 0 <= report.measured.final.min() <= report.measured.final.max() <= 1


def test_a_second_scorer_watches(pipe):
    dark = CallableScorer(lambda pictures, _: [-mean for mean in brightness(pictures, _)], name="dark", low=-255.0)
    settings: dict[str, Any] = {"n": 4, "fractions": [0.5], "num_inference_steps": 2, **SIZE}
    report = calibrate(pipe, bright(), PROMPTS, observe=dark, **settings)
    assert report.observed_random == pytest.approx(-report.random)
    assert report.observed_best == pytest.approx(-report.best)
    assert report.setting.observer == "dark"
    kept = report.table[0].observed[2]
    assert kept == pytest.approx(report.table[0].regret[2] - report.best)
    assert calibrate(pipe, bright(), PROMPTS, **settings).observed_best is None

    several = calibrate(pipe, bright(), PROMPTS, observe=[dark, bright()], **settings)
    against, same = several.watch
    assert (several.observed_best, several.setting.observer) == (report.observed_best, "dark")
    assert (against.costs, same.share) == (True, 1)
    assert f"{same.watcher}, which only watched, gets 100%" in str(several)
    assert "Warning: choosing by" in str(several)
    assert [watch["share"] for watch in several.to_dict()["watch"]] == [against.share, 1]


def leftovers(pipe: Any) -> tuple[bool, int]:
    return "step" in vars(pipe.scheduler), len(pipe.unet._forward_pre_hooks)


def test_the_pipeline_is_left_as_it_was(pipe):
    def picture():
        generator = torch.Generator("cpu").manual_seed(1)
        return np.asarray(pipe("mist", generator=generator, num_inference_steps=3, **SIZE).images[0])

    def failing(pictures, prompts):
        if pictures[0].size == (64, 64):
            return [0.0] * len(pictures)
        raise RuntimeError("the scorer stumbled")

    before = picture()
    settings: dict[str, Any] = {"n": 2, "fractions": [0.5], "num_inference_steps": 3, **SIZE}
    calibrate(pipe, bright(), "mist", **settings)
    assert leftovers(pipe) == (False, 0)
    with pytest.raises(RuntimeError, match="the preview stumbled"):
        calibrate(
            pipe,
            bright(),
            "mist",
            preview=lambda x0: (_ for _ in ()).throw(RuntimeError("the preview stumbled")),
            **settings,
        )
    assert leftovers(pipe) == (False, 0)
    with pytest.raises(RuntimeError, match="the scorer stumbled"):
        calibrate(pipe, CallableScorer(failing, name="failing"), "mist", **settings)
    np.testing.assert_array_equal(picture(), before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 1}, "n of at least 2, got 1"),
        ({"batch_size": 0}, "batch_size as a whole number of at least 1, got 0"),
        ({"target_share": 0}, "target_share above 0 and up to 1, got 0"),
        ({"target_share": 90}, "got 90. 0.9 is 90 %"),
        ({"fractions": ()}, "at least one fraction, got none"),
        ({"fractions": (0.2, 1.0)}, "between 0 and 1, got 1.0"),
        ({"fractions": (0, 0.5)}, r"between 0 and 1, got 0\. "),
        ({"prompts": []}, "at least one prompt, got none"),
        ({"prompts": None}, "at least one prompt, got none"),
        ({"prompts": ["a", " "]}, "text as prompt 1, got ' '"),
        ({"prompts": [3]}, "text as prompt 0, got 3"),
        ({"generator": []}, "Expected no generator in"),
        ({"prompt": "a"}, "multiple values|Expected no prompt among"),
        ({"output_type": "pt"}, "Expected no output_type among"),
        ({"preview": "nonsense"}, "got 'nonsense'"),
    ],
)
def test_mistakes_are_told_before_the_first_step(pipe, monkeypatch, changes, message):
    monkeypatch.setattr(pipe.unet, "forward", None)
    arguments: dict[str, Any] = {"prompts": PROMPTS, "n": 2, **SIZE} | changes
    with pytest.raises(ValueError, match=message):
        calibrate(pipe, bright(), arguments.pop("prompts"), **arguments)
    assert leftovers(pipe) == (False, 0)


def test_pipelines_and_schedulers_that_cannot_be_watched_are_refused(tiny_pipelines, pipe):
    with pytest.raises(ValueError, match="callback_on_step_end, got PixArtSigmaPipeline"):
        calibrate(tiny_pipelines.pipeline("pixart_sigma"), bright(), PROMPTS, n=2)
    with pytest.raises(ValueError, match="several pictures in a call, got padding_mask_crop"):
        calibrate(tiny_pipelines.pipeline("sd_inpaint"), bright(), PROMPTS, n=2, padding_mask_crop=4)
    import diffusers

    pipe.scheduler = diffusers.DPMSolverSinglestepScheduler()
    with pytest.raises(ValueError, match="got DPMSolverSinglestepScheduler"):
        calibrate(pipe, bright(), PROMPTS, n=2, **SIZE)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (lambda pictures, prompts: [1.0], "Expected 2 scores"),
        (lambda pictures, prompts: [float("nan")] * len(pictures), "none for a picture of noise: odd returned nan"),
    ],
)
def test_scores_that_are_no_scores_are_told_before_the_first_step(pipe, monkeypatch, scores, message):
    monkeypatch.setattr(pipe.unet, "forward", None)
    with pytest.raises(ValueError, match=message):
        calibrate(pipe, CallableScorer(scores, name="odd"), PROMPTS, n=3, **SIZE)


def test_a_score_that_is_no_number_names_its_picture(pipe):
    class OnceInAWhile:
        info = bright().info

        def score(self, images, prompts=None, batch_size=None, on_error="raise"):
            return torch.tensor([1.0, float("nan"), 1.0] if len(images) == 3 else [1.0, 2.0])

    settings: dict[str, Any] = {"n": 3, "fractions": [0.5], "num_inference_steps": 2, **SIZE}
    with pytest.raises(ValueError, match="got nan for the preview after step 1 of seed 8 and the prompt 'a red cube'"):
        calibrate(pipe, OnceInAWhile(), PROMPTS, seed=7, **settings)


def test_one_scheduler_call_is_too_few(pipe):
    with pytest.raises(ValueError, match="at least 2 scheduler calls, got 1"):
        calibrate(pipe, bright(), PROMPTS, n=2, num_inference_steps=1, **SIZE)


def test_a_report_at_any_time(pipe):
    settings: dict[str, Any] = {"num_inference_steps": 2, **SIZE}
    calibration = Calibration(pipe, bright(), ["a", "b"], n=2, fractions=[0.5], pipe_kwargs=settings)
    with pytest.raises(ValueError, match="at least one finished prompt, got none"):
        calibration.report()
    assert next(calibration.run()) == 1
    assert calibration.done == ("a",)
    first = calibration.report()
    assert list(calibration.run()) == [2]
    assert calibration.report().measured.final[0].tolist() == first.measured.final[0].tolist()
    assert calibration.report().prompts == ("a", "b")


@pytest.mark.parametrize("stages", [((1, 2),), ((0, 4), (1, 2), (2, 1))])
def test_what_is_replayed_is_what_pruning_does(pipe, stages):
    settings: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 3.0, **SIZE}
    report = calibrate(pipe, bright(), PROMPTS[0], n=5, fractions=FEW, seed=11, **settings)
    prune_at = {FEW[index]: keep for index, keep in stages}
    with QualityFilterCallback(pipe, bright(), prune_at=prune_at) as callback:
        pipe(
            PROMPTS[0],
            num_images_per_prompt=5,
            generator=[torch.Generator("cpu").manual_seed(11 + row) for row in range(5)],
            callback_on_step_end=callback,
            callback_on_step_end_tensor_inputs=callback.tensor_inputs,
            **settings,
        )
    assert list(callback.survivors) == np.flatnonzero(report.measured.survivors(stages)[0]).tolist()
    assert callback.network_evaluations == pytest.approx(report.measured.cost(stages) * report.network_evaluations)
    for (index, _), decided in zip(stages, callback.history, strict=True):
        previews = report.measured.previews[0, index]
        seen = {row: score * 255 for row, score in decided.scores.items()}  # of floats, not of 8 bits
        assert seen == pytest.approx({row: previews[row] for row in seen}, abs=0.5)
        assert decided.step + 1 == report.table[index].step
