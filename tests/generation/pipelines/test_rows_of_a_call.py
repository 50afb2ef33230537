"""Every argument that a pipeline of the table takes: a candidate made among others is the picture of its seed alone.

An argument that diffusers adds is in none of the sets below, and fails the last test until somebody has looked at it.
"""

import inspect
from types import ModuleType
from typing import Any

import diffusers
import numpy as np
import pytest
import tiny_pipelines
import torch

from ma_agiqa_core import CallableScorer
from ma_agiqa_core.errors import MaAgiqaError
from ma_agiqa_core.generation import QualityFilterCallback, UnsupportedPipelineError, best_of_n, calibrate
from ma_agiqa_core.generation.best_of.request import check_pipeline, check_reproducible
from ma_agiqa_core.generation.pipelines.families import FAMILIES
from ma_agiqa_core.generation.pipelines.rows_of_a_call import rows_argument

CONTRAST = CallableScorer(lambda images, _: [float(np.asarray(one).std()) / 128 for one in images], name="contrast")

# All that a pipeline takes of a set is given to it at once.
SETS: dict[str, dict[str, Any]] = {
    "sizes": {
        "original_size": (32, 16),
        "target_size": (16, 24),
        "crops_coords_top_left": (2, 4),
        "negative_original_size": (8, 48),
        "negative_target_size": (64, 8),
        "negative_crops_coords_top_left": (9, 1),
        "aesthetic_score": 7.0,
        "negative_aesthetic_score": 2.0,
    },
    "guidance and texts": {
        "guidance_rescale": 0.7,
        "eta": 0.5,
        "guess_mode": True,
        "control_guidance_start": 0.0,
        "control_guidance_end": 0.7,
        "controlnet_conditioning_scale": 0.6,
        "guidance_scale_2": 2.0,
        "skip_guidance_layers": [0],
        "skip_layer_guidance_start": 0.0,
        "skip_layer_guidance_stop": 1.0,
        "skip_layer_guidance_scale": 2.0,
        "prompt_2": "mist",
        "prompt_3": "two",
        "negative_prompt_2": "flat",
        "negative_prompt_3": "grey",
        "cfg_normalization": True,
        "cfg_truncation": 0.6,
        "cfg_trunc_ratio": 0.6,
        "distilled_guidance_scale": 2.0,
    },
    "end": {"denoising_end": 0.8},
    "middle": {"denoising_start": 0.4},
}
VECTORS = {
    "prompt_embeds",
    "pooled_prompt_embeds",
    "prompt_attention_mask",
    "negative_prompt_embeds",
    "negative_pooled_prompt_embeds",
    "negative_prompt_attention_mask",
}
VECTORS |= {f"{sign}prompt_embeds_{kind}" for sign in ("", "negative_") for kind in ("2", "mask_2", "t5", "llama3")}
REFUSED = {"prompt_upsampling", "prompt_upsampling_temperature", "use_pe"}
IN_EVERY_TEST = {"prompt", "negative_prompt", "image", "mask_image", "control_image", "strength", "height", "width"}
IN_EVERY_TEST |= {"num_inference_steps", "guidance_scale", "true_cfg_scale", "num_frames", "max_sequence_length"}
IN_EVERY_TEST |= {"use_resolution_binning", "complex_human_instruction", "prompt_embeds_mask", "output_type"}
IN_EVERY_TEST |= {"negative_prompt_embeds_mask", "ip_adapter_image_embeds", "negative_ip_adapter_image_embeds"}
OURS = {"self", "kwargs", "generator", "latents", "return_dict", "num_images_per_prompt", "num_videos_per_prompt"}
OURS |= {"callback_on_step_end", "callback_on_step_end_tensor_inputs", "caption_upsample_temperature"}
ONE_PICTURE_A_CALL = {"masked_image_latents", "padding_mask_crop"}
# Read in diffusers: the same for all rows, encoded once and repeated, or without rows.
WITHOUT_ROWS = {"clip_skip", "timesteps", "sigmas", "mu", "original_inference_steps", "text_encoder_out_layers"}
WITHOUT_ROWS |= {"prompt_4", "negative_prompt_4", "system_prompt", "return_index", "guidance_schedule", "std"}
WITHOUT_ROWS |= {"max_area", "_auto_resize", "output_resolution", "use_kv_cache", "image_reference", "control_mode"}
WITHOUT_ROWS |= {"intermediate_timesteps", "max_timesteps", "control_mask", "controlnet_pooled_projections"}
WITHOUT_ROWS |= {"clean_caption", "ip_adapter_image", "negative_ip_adapter_image"}
WITHOUT_ROWS |= {"attention_kwargs", "cross_attention_kwargs", "joint_attention_kwargs"}
UNSEEDED = {name for family in FAMILIES for name in family.unseeded}
# Joined before they are repeated, so that rows would get each other's halves.
MIXED = {"sdxl", "sdxl_ip_adapter", "sdxl_controlnet", "kolors", "kolors_img2img"}


def parameters(pipe: Any) -> set[str]:
    return set(inspect.signature(type(pipe).__call__).parameters)


def call_of(tiny: ModuleType, family: str, steps: int = 2) -> dict[str, Any]:
    """Arguments for one prompt of this family."""
    made = tiny.FAMILIES[family]
    call = {**made.inputs(1), **{name: tiny.PICTURES[name](1) for name in made.per_row}, **made.settings}
    return call | {"num_inference_steps": steps, "output_type": "pt", **(made.guided or made.unguided)}


def vectors_of(tiny: ModuleType, pipe: Any, call: dict[str, Any]) -> dict[str, Any]:
    """The vectors of this call's texts, as the pipeline itself makes them of one prompt."""
    seen: dict[str, Any] = {}
    encode = pipe.encode_prompt
    names = {
        4: ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"),
        3: ("prompt_embeds", "pooled_prompt_embeds", "text_ids"),
        2: ("prompt_embeds", "negative_prompt_embeds"),
    }

    def watched(*args: Any, **kwargs: Any) -> Any:
        made = encode(*args, **kwargs)
        order = names[len(made)]
        if type(pipe).__name__.startswith("Sana"):
            order = (
                "prompt_embeds",
                "prompt_attention_mask",
                "negative_prompt_embeds",
                "negative_prompt_attention_mask",
            )
        if "text_ids" in order and "prompt_embeds" in seen:
            order = ("negative_prompt_embeds", "negative_pooled_prompt_embeds", "text_ids")
        seen.update(zip(order, made, strict=True))
        return made

    pipe.encode_prompt = watched
    try:
        pipe(**call, generator=tiny.generators(1))
    finally:
        del pipe.encode_prompt
    known = parameters(pipe)
    return {name: value for name, value in seen.items() if name in known and value is not None}


def assert_candidates_are_those_of_their_seeds(pipe: Any, call: dict[str, Any], **options: Any) -> None:
    prompt = call.pop("prompt", None)
    result = best_of_n(pipe, CONTRAST, prompt, **{"n": 2, "keep": 2, "batch_size": 2, "seed": 5, **options}, **call)
    for image, seed in zip(result.images, result.seeds, strict=True):
        if seed == 5 and len(result.seeds) > 1:
            continue  # what goes wrong shows in the rows after the first
        output = pipe(prompt=prompt, generator=torch.Generator("cpu").manual_seed(seed), **call)
        alone = torch.as_tensor(output.images[0] if hasattr(output, "images") else output.frames[0])
        alone = alone[0] if alone.ndim == 4 and len(alone) == 1 else alone  # one frame is a picture
        assert torch.as_tensor(image).shape == alone.shape
        assert float(abs(torch.as_tensor(image) - alone).max()) <= 1e-4


@pytest.mark.parametrize("family", tiny_pipelines.FAMILIES)
def test_a_candidate_among_others_is_the_picture_of_its_seed(family: str) -> None:
    if family not in tiny_pipelines.available():
        pytest.skip("not in this diffusers")
    pipe = tiny_pipelines.pipeline(family)
    if type(pipe).__name__ in UNSEEDED:
        with pytest.raises(UnsupportedPipelineError, match="draws the latents of its control picture from torch's"):
            assert_candidates_are_those_of_their_seeds(pipe, call_of(tiny_pipelines, family))
        return
    assert_candidates_are_those_of_their_seeds(pipe, call_of(tiny_pipelines, family))


@pytest.mark.parametrize("options", SETS)
def test_every_argument_among_others_and_alone(tiny_pipelines: ModuleType, options: str) -> None:
    tried = set()
    for family in tiny_pipelines.available():
        pipe = tiny_pipelines.pipeline(family)
        known = parameters(pipe)
        given = {name: value for name, value in SETS[options].items() if name in known}
        if getattr(pipe.config, "boundary_ratio", None) is None:
            given.pop("guidance_scale_2", None)  # only of two transformers
        if type(pipe).__name__ in UNSEEDED or type(pipe) in tried:
            continue
        if not {"prompt_embeds", "prompt_embeds_t5"}.isdisjoint(tiny_pipelines.FAMILIES[family].inputs(1)):
            given = {name: value for name, value in given.items() if "prompt" not in name}
        if options == "middle" and "mask_image" in known:
            given.pop("denoising_start", None)  # diffusers refuses it without noised latents of the same size
        if given:
            tried.add(type(pipe))
            assert_candidates_are_those_of_their_seeds(pipe, call_of(tiny_pipelines, family) | given)
    assert tried


@pytest.mark.parametrize("negative_only", [False, True])
def test_vectors_instead_of_texts(tiny_pipelines: ModuleType, negative_only: bool) -> None:
    tried = []
    for family in (
        "sd",
        "sd_inpaint",
        "sdxl",
        "sdxl_controlnet",
        "kolors",
        "sd3",
        "flux",
        "flux_img2img",
        "sana",
        "wan",
    ):
        pipe = tiny_pipelines.pipeline(family)
        call = call_of(tiny_pipelines, family)
        vectors = vectors_of(tiny_pipelines, pipe, call)
        negative = {name: value for name, value in vectors.items() if name.startswith("negative")}
        if negative_only:
            if not negative or family in ("sana", "kolors"):  # diffusers refuses texts beside vectors
                continue
            call = {name: value for name, value in call.items() if name != "negative_prompt"} | negative
        else:
            call = {name: value for name, value in call.items() if name not in ("prompt", "negative_prompt")} | vectors
            if family == "sana":
                call["negative_prompt"] = None
        tried.append(family)
        assert_candidates_are_those_of_their_seeds(pipe, call)
    assert {"sd", "sdxl", "sd3", "flux", "wan"} <= set(tried)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        *((family, {"n": 3, "prune_at": {0.5: 2}}) for family in sorted(MIXED)),
        *(("sdxl", options) for options in ({"batch_size": 1}, {"batch_size": None}, {"strategy": "sequential"})),
    ],
    ids=str,
)
def test_time_ids_are_those_of_the_row(tiny_pipelines: ModuleType, family: str, options: dict[str, Any]) -> None:
    """With pruning, too, and in whatever batches."""
    call = call_of(tiny_pipelines, family, steps=4)
    call |= {"negative_original_size": (64, 8), "negative_target_size": (8, 64)}
    assert_candidates_are_those_of_their_seeds(tiny_pipelines.pipeline(family), call, preview="vae", **options)


def test_these_rows_would_be_mixed_up(tiny_pipelines: ModuleType) -> None:
    """diffusers' own batch has another picture: once this fails, they have fixed it, and batches can come back."""
    for family in MIXED:
        pipe, call = tiny_pipelines.pipeline(family), call_of(tiny_pipelines, family)
        one = {"image": call["image"]} if family == "kolors_img2img" else {}
        two = {name: picture.repeat(2, 1, 1, 1) for name, picture in one.items()}
        call |= {"negative_original_size": (64, 8), "negative_target_size": (8, 64)}
        both = pipe(**call | two, num_images_per_prompt=2, generator=tiny_pipelines.generators(2)).images
        alone = pipe(**call | one, generator=tiny_pipelines.generators(1)).images
        assert (both[:1] - alone).abs().max() > 1e-3, family


def test_calibrate_measures_the_pictures_of_the_seeds(tiny_pipelines: ModuleType) -> None:
    pipe = tiny_pipelines.pipeline("sdxl")
    call: dict[str, Any] = {"height": 16, "width": 16, "num_inference_steps": 4, "guidance_scale": 3.0}
    call |= {"negative_original_size": (64, 8), "negative_target_size": (8, 64)}
    scores = calibrate(pipe, CONTRAST, "a cat", n=3, fractions=(0.5,), seed=5, **call).measured.final[0]
    for seed, score in enumerate(scores, start=5):
        (alone,) = pipe("a cat", generator=torch.Generator("cpu").manual_seed(seed), **call).images
        assert score == pytest.approx(float(np.asarray(alone).std()) / 128, abs=0.005)


@pytest.mark.parametrize("negative", ["flat", ["flat"], ("flat",), np.array(["flat"])], ids=repr)
def test_one_text_comes_in_any_form(tiny_pipelines: ModuleType, negative: Any) -> None:
    pipe, call = tiny_pipelines.pipeline("sd"), call_of(tiny_pipelines, "sd")
    call["negative_prompt"] = "flat"
    prompt = call.pop("prompt")
    expected = best_of_n(pipe, CONTRAST, prompt, n=2, **call)
    forms: list[Any] = [[prompt], (prompt,), np.array([prompt])]
    for texts in forms:
        (result,) = best_of_n(pipe, CONTRAST, texts, n=2, **call | {"negative_prompt": negative})
        assert (result.seeds, result.scores) == (expected.seeds, pytest.approx(expected.scores))
    assert best_of_n(pipe, CONTRAST, prompt, n=2, **call | {"negative_prompt": negative}).seeds == expected.seeds
    with pytest.raises(MaAgiqaError, match="Expected one text as negative_prompt, got 2"):
        best_of_n(pipe, CONTRAST, prompt, n=2, **call | {"negative_prompt": ["flat", "grey"]})


@pytest.mark.parametrize("prompts", [3, [3], ["a", None]])
def test_prompts_of_the_callback_are_texts(tiny_pipelines: ModuleType, prompts: Any) -> None:
    with pytest.raises(MaAgiqaError, match="Expected a text or a list of texts as prompts, got"):
        QualityFilterCallback(tiny_pipelines.pipeline("sd"), CONTRAST, prune_at={0.5: 1}, prompts=prompts)


def test_one_candidate_a_call_only_where_it_must_be(tiny_pipelines: ModuleType) -> None:
    negative = {"negative_original_size": (8, 8), "negative_target_size": (8, 8)}
    for name in ("sd", "sdxl", "sd3", "flux", "kolors"):
        assert rows_argument(tiny_pipelines.pipeline(name), {}) == "num_images_per_prompt"
    assert rows_argument(tiny_pipelines.pipeline("sdxl"), {"prompt_embeds": torch.zeros(1)}) == "num_images_per_prompt"
    for name in ("sd3", "chroma", "cogview4", "lumina2"):
        assert rows_argument(tiny_pipelines.pipeline(name), {"prompt_embeds": torch.zeros(1)}) is None
    assert rows_argument(tiny_pipelines.pipeline("sdxl"), negative) is None
    assert rows_argument(tiny_pipelines.pipeline("sdxl"), negative | {"negative_target_size": None}) is not None


def test_a_pipeline_that_nobody_has_checked_makes_one_a_call(tiny_pipelines: ModuleType) -> None:
    pipe = object.__new__(diffusers.StableDiffusionXLAdapterPipeline)
    assert rows_argument(pipe, {}) == "num_images_per_prompt"
    for name in ("prompt_embeds", "negative_prompt_embeds", "image"):
        assert rows_argument(pipe, {name: torch.zeros(1)}) is None


def test_texts_drawn_at_random_are_refused(tiny_pipelines: ModuleType) -> None:
    if "flux2" not in tiny_pipelines.available():
        pytest.skip("not in this diffusers")
    pipe = tiny_pipelines.pipeline("flux2")
    if "caption_upsample_temperature" not in parameters(pipe):
        pytest.skip("not in this diffusers")
    with pytest.raises(MaAgiqaError, match=r"Expected no caption_upsample_temperature, got 0\.15: each call would"):
        best_of_n(pipe, CONTRAST, "a cat", n=2, caption_upsample_temperature=0.15)


def test_a_text_written_anew_for_each_call_is_refused(tiny_pipelines: ModuleType) -> None:
    if "ideogram4" not in tiny_pipelines.available():
        pytest.skip("this diffusers has no Ideogram 4")
    pipe = tiny_pipelines.pipeline("ideogram4")
    with pytest.raises(
        MaAgiqaError, match="Expected no prompt_upsampling, got True: each call would draw another text"
    ):
        best_of_n(pipe, CONTRAST, "a cat", n=2, prompt_upsampling=True)
    ernie = object.__new__(diffusers.ErnieImagePipeline)
    vars(ernie)["pe"] = object()
    with pytest.raises(MaAgiqaError, match="Expected use_pe=False, got True: each call would draw another text"):
        check_pipeline(ernie, {}, is_pruned=False)


def test_flow_noise_that_no_seed_governs_is_refused(tiny_pipelines: ModuleType) -> None:
    kind = type("FlowMatchLCMScheduler", (), {"config": {}})
    pipe = object.__new__(diffusers.FluxPipeline)
    vars(pipe)["scheduler"] = kind()
    with pytest.raises(UnsupportedPipelineError, match="got FlowMatchLCMScheduler with these settings: FluxPipeline"):
        check_reproducible(pipe, {})


def test_every_argument_of_every_pipeline_was_looked_at() -> None:
    looked_at = set().union(*SETS.values(), VECTORS, IN_EVERY_TEST, OURS, ONE_PICTURE_A_CALL, WITHOUT_ROWS, REFUSED)
    names = [name for family in FAMILIES for name in family.pipelines if hasattr(diffusers, name)]
    unknown = {
        f"{name}.{parameter}"
        for name in names
        for parameter in set(inspect.signature(getattr(diffusers, name).__call__).parameters) - looked_at
    }
    assert not unknown
