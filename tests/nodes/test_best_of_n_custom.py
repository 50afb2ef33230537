"""Best-of-N with noise, guider, sampler and sigmas, beside Sampler Custom (Advanced)."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.comfyui_only

N, STEPS, EQUAL = 4, 8, 1e-4
ASKED = {"n": N, "keep": 2, "prune_at": "0.25:3, 0.5:2"}
GUIDERS = ["CFGGuider", "BasicGuider", "DualCFGGuider", "DualModelGuider"]


@pytest.fixture
def core(comfy_modules: str) -> Any:
    """The core's nodes of custom sampling."""
    from comfy_extras import nodes_custom_sampler

    return nodes_custom_sampler


@pytest.fixture
def guiders(core: Any, tiny_diffusion: Any) -> Callable[..., Any]:
    """Makes a guider by the name of its node; skips where this ComfyUI has none such."""
    text, other, third = (tiny_diffusion.conditioning(seed) for seed in (1, 2, 3))

    def make(name: str, model: Any = None, **changes: Any) -> Any:
        model = tiny_diffusion.tiny_model() if model is None else model
        if not hasattr(core, name):
            pytest.skip(f"this ComfyUI has no {name}")
        if name == "CFGGuider":
            guider = core.comfy.samplers.CFGGuider(model)
            guider.set_conds(changes.get("positive", text), changes.get("negative", other))
            guider.set_cfg(changes.get("cfg", 3.0))
        elif name == "BasicGuider":
            guider = core.Guider_Basic(model)
            guider.set_conds(text)
        elif name == "DualCFGGuider":
            guider = core.Guider_DualCFG(model)
            guider.set_conds(text, third, other)
            guider.set_cfg(3.0, 2.0)
        else:
            guider = core.Guider_DualModel(model, tiny_diffusion.tiny_model(flow=False))
            guider.set_conds(text, other)
            guider.set_cfg(3.0)
        return guider

    return make


@pytest.fixture
def inputs(core: Any, guiders: Any, tiny_diffusion: Any, managed: Callable[..., Any]) -> dict[str, Any]:
    import comfy.samplers

    return {
        **ASKED,
        "noise": core.Noise_RandomNoise(11),
        "guider": guiders("CFGGuider"),
        "sampler": comfy.samplers.sampler_object("euler"),
        "sigmas": sigmas_of(tiny_diffusion.tiny_model()),
        "vae": tiny_diffusion.TinyVae(),
        "scorer": managed(),
        "latent_image": {"samples": torch.zeros(1, 4, 8, 8)},
    }


@pytest.fixture
def best_of(pack_module: Any, run_node: Any, inputs: dict[str, Any]) -> Callable[..., tuple[Any, ...]]:
    node = pack_module("nodes.best_of_n_custom").BestOfNCustom
    return lambda **own: run_node(node, hidden={"unique_id": "7"}, **{**inputs, **own}).args


def sigmas_of(model: Any, steps: int = STEPS) -> torch.Tensor:
    import comfy.samplers

    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)


def sampled(inputs: dict[str, Any], **own: Any) -> torch.Tensor:
    """What Sampler Custom (Advanced) makes of a batch of four."""
    given = {**inputs, **own}
    latent = {"batch_index": list(range(N)), **given["latent_image"]}
    if len(latent["samples"]) == 1:
        latent["samples"] = latent["samples"].repeat(N, 1, 1, 1)
    mask = latent.get("noise_mask")
    with torch.inference_mode():
        noise = given["noise"].generate_noise(latent)
        guider = given["guider"]
        return guider.sample(
            noise, latent["samples"], given["sampler"], given["sigmas"].clone(), denoise_mask=mask,
            disable_pbar=True, seed=given["noise"].seed,
        )  # fmt: skip


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.std())


def assert_survivors_are_exact(best_of: Any, inputs: dict[str, Any], **own: Any) -> None:
    latent, images, scores, indexes, _ = best_of(**own)
    rows = [int(row) for row in indexes.split(",")]

    assert difference(latent["samples"], sampled(inputs, **own)[rows]) < EQUAL
    assert len(images) == len(scores) == 2
    assert [score.origin for score in scores] == [(row, 11) for row in rows]


@pytest.mark.parametrize("name", GUIDERS)
@pytest.mark.parametrize("limit", [0, 1])
def test_survivors_are_those_of_sampler_custom(best_of, inputs, guiders, name, limit):
    assert_survivors_are_exact(best_of, inputs, guider=guiders(name), batch_limit=limit)


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m", "dpmpp_sde", "res_multistep", "uni_pc", "ddim"])
def test_samplers_with_memory_and_noise(best_of, inputs, sampler):
    import comfy.samplers

    assert_survivors_are_exact(best_of, inputs, sampler=comfy.samplers.sampler_object(sampler))


def test_cfg_1_and_distilled_guidance(best_of, inputs, guiders):
    distilled = [[inputs["guider"].original_conds["positive"][0]["cross_attn"], {"guidance": 3.5}]]
    assert_survivors_are_exact(best_of, inputs, guider=guiders("CFGGuider", cfg=1.0))
    assert_survivors_are_exact(best_of, inputs, guider=guiders("CFGGuider", positive=distilled, cfg=1.0))


def test_regional_and_timed_conditioning(best_of, inputs, guiders, tiny_diffusion):
    mask = torch.zeros(1, 8, 8)
    mask[:, :, :4] = 1
    (left,), (late,) = tiny_diffusion.conditioning(1), tiny_diffusion.conditioning(4)
    positive = [
        [left[0], {"mask": mask, "mask_strength": 1.0, "set_area_to_bounds": False}],
        [late[0], {"start_percent": 0.4, "end_percent": 1.0}],
    ]
    assert_survivors_are_exact(best_of, inputs, guider=guiders("CFGGuider", positive=positive))


def test_inpainting_with_differential_diffusion(best_of, inputs, guiders, tiny_diffusion, comfy_modules):
    import core_patches

    numbers = torch.Generator().manual_seed(3)
    latent = {
        "samples": torch.randn(N, 4, 8, 8, generator=numbers),
        "noise_mask": torch.rand(N, 1, 8, 8, generator=numbers),
    }
    node = core_patches.patch_nodes()["DifferentialDiffusion"]
    model = core_patches.patched("DifferentialDiffusion", node, tiny_diffusion.tiny_model(), None)
    assert_survivors_are_exact(best_of, inputs, guider=guiders("CFGGuider", model), latent_image=latent)


def test_lora(best_of, inputs, guiders, tiny_diffusion):
    model = tiny_diffusion.tiny_model()
    name = "diffusion_model.out.2.weight"
    weights = model.model.state_dict()[name]
    patched = model.clone()
    assert patched.add_patches({name: (torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)),)}, 0.3)
    own = {"guider": guiders("CFGGuider", patched)}
    assert_survivors_are_exact(best_of, inputs, **own)
    assert difference(sampled(inputs, **own), sampled(inputs)) > 0.01


def test_a_controlnet(best_of, inputs, guiders, tiny_diffusion):
    control = tiny_diffusion.tiny_controlnet()
    hint = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    control.set_cond_hint(hint, 1.0, (0.0, 0.8))
    texts = {
        name: [[tiny_diffusion.conditioning(seed)[0][0], {"control": control, "control_apply_to_uncond": False}]]
        for name, seed in (("positive", 1), ("negative", 2))
    }
    own = {"guider": guiders("CFGGuider", **texts)}
    assert_survivors_are_exact(best_of, inputs, **own)
    assert_survivors_are_exact(best_of, inputs, **own, batch_limit=1)
    assert difference(sampled(inputs, **own), sampled(inputs)) > 0.01


@pytest.mark.parametrize("count", [1, N])
def test_a_model_that_sees_the_masked_picture(best_of, inputs, guiders, tiny_diffusion, count):
    """As Inpaint Model Conditioning gives it: one picture for all candidates, or one for each."""
    numbers = torch.Generator().manual_seed(3)
    seen = {
        "concat_latent_image": torch.randn(count, 4, 8, 8, generator=numbers),
        "concat_mask": (torch.rand(count, 1, 64, 64, generator=numbers) > 0.5).float(),
    }
    texts = {
        name: [[tiny_diffusion.conditioning(seed)[0][0], seen]] for name, seed in (("positive", 1), ("negative", 2))
    }
    model = tiny_diffusion.tiny_model(inpaint=True)
    own = {"guider": guiders("CFGGuider", model, **texts)}
    assert_survivors_are_exact(best_of, inputs, **own)
    assert_survivors_are_exact(best_of, inputs, **own, batch_limit=1)
    other = {"guider": guiders("CFGGuider", model)}  # nothing masked
    assert difference(sampled(inputs, **own), sampled(inputs, **other)) > 0.01


def test_one_step_is_chosen_from_when_it_is_done(best_of, inputs):
    own = {"sigmas": inputs["sigmas"][[0, -1]], "prune_at": ""}
    latent, *_, indexes, _ = best_of(**own)
    rows = [int(row) for row in indexes.split(",")]
    assert difference(latent["samples"], sampled(inputs, **own)[rows]) < EQUAL


def test_a_first_part_of_the_schedule_leaves_noise_in_the_latent_and_none_in_the_pictures(best_of, inputs):
    sigmas = inputs["sigmas"][:5]  # as Split Sigmas gives it
    latent, images, _, indexes, _ = best_of(sigmas=sigmas, prune_at="0.5:2")
    rows = [int(row) for row in indexes.split(",")]

    noisy = sampled(inputs, sigmas=sigmas)[rows]
    assert difference(latent["samples"], noisy) < EQUAL
    assert difference(images, inputs["vae"].decode(noisy)) > 0.01  # decoded without the noise


def test_a_second_part_goes_on_where_the_first_ended(best_of, inputs, core):
    first = sampled(inputs, sigmas=inputs["sigmas"][:4])
    own = {
        "noise": core.Noise_EmptyNoise(),
        "sigmas": inputs["sigmas"][3:],
        "latent_image": {"samples": first},
        "prune_at": "0.5:2",
    }
    latent, *_, indexes, _ = best_of(**own)

    rows = [int(row) for row in indexes.split(",")]
    assert difference(latent["samples"], sampled(inputs, **own)[rows]) < EQUAL
    assert difference(latent["samples"], sampled(inputs)[rows]) < EQUAL  # and where all in one would have ended


def test_rounds_go_on_counting_until_one_is_good_enough(best_of, inputs):
    every = best_of(n=12, keep=12, prune_at="")
    scores = dict(zip(map(int, every[3].split(",")), every[2], strict=True))
    first, later = max(scores[row] for row in range(4)), max(scores[row] for row in range(4, 12))
    assert later > first  # else another seed is needed

    met = best_of(prune_at="", rounds=3, min_score=(first + later) / 2, keep=1)
    best = max(scores, key=lambda row: scores[row])
    rounds = 2 if max(scores[row] for row in range(4, 8)) > (first + later) / 2 else 3

    assert int(met[3]) in range(4, 4 * rounds)
    assert met[2] == pytest.approx([max(scores[row] for row in range(4 * rounds))], abs=1e-5)
    assert f"{rounds} of at most 3 rounds: met" in met[4]
    assert met[0]["batch_index"] == [int(met[3])]
    never = best_of(prune_at="", rounds=3, min_score=1e4, keep=1)
    assert int(never[3]) == best
    assert "3 of at most 3 rounds: not met" in never[4]


class _SameNoise:
    seed = 3

    def generate_noise(self, latent: Any) -> torch.Tensor:
        return torch.ones_like(latent["samples"])


class _OneNoise:
    seed = 3

    def generate_noise(self, latent: Any) -> torch.Tensor:
        return torch.ones(1, 4, 8, 8)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"noise": _SameNoise()}, "Expected noise or latents that differ between 4 candidates"),
        ({"noise": _OneNoise()}, r"Expected noise for each of 4 candidates, \(4, 4, 8, 8\), got \(1, 4, 8, 8\)"),
        ({"guider": object()}, "Expected a guider of ComfyUI's kind, got object"),
        ({"sigmas": torch.tensor([1.0, 0.0])}, "at least 2 steps to prune between, got 1"),
        ({"keep": 9}, "at most the 4 candidates there are, got 9"),
    ],
)
def test_what_cannot_be_done_is_told(best_of, own, message):
    with pytest.raises(ValueError, match=message):
        best_of(**own)


def test_guiders_that_mix_candidates_are_refused_unless_one_by_one(best_of, inputs, tiny_diffusion, comfy_modules):
    import comfy.samplers
    from comfy_extras.nodes_perpneg import Guider_PerpNeg

    perp = Guider_PerpNeg(tiny_diffusion.tiny_model())
    perp.set_conds(*(tiny_diffusion.conditioning(seed) for seed in (1, 2, 3)))
    perp.set_cfg(3.0, 1.0)

    class ForeignGuider(comfy.samplers.CFGGuider):
        pass

    foreign = ForeignGuider(tiny_diffusion.tiny_model())
    foreign.set_conds(tiny_diffusion.conditioning(1), tiny_diffusion.conditioning(2))
    for guider, name in ((perp, "PerpNegGuider"), (foreign, "ForeignGuider")):
        with pytest.raises(ValueError, match=f"got {name}, which may mix all"):
            best_of(guider=guider)
        assert len(best_of(guider=guider, batch_limit=1)[1]) == 2
        assert len(best_of(guider=guider, prune_at="")[1]) == 2


def test_the_guider_and_the_sampler_are_left_as_they_were(best_of, inputs):
    before = sampled(inputs)
    function = inputs["sampler"].sampler_function

    best_of()

    assert inputs["sampler"].sampler_function is function
    assert torch.equal(sampled(inputs), before)
