"""Every node of ComfyUI's core that patches a model: exact when candidates are dropped, or refused by its name."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.comfyui_only

N, STEPS, SEED, EQUAL = 4, 7, 5, 1e-4
REFUSED = {
    "APG",
    "ContextWindowsManual",
    "EasyCache",
    "FluxKVCache",
    "LazyCache",
    "Mahiro",
    "PerpNeg",
    "RenormCFG",
    "TemporalScoreRescaling",
    "TomePatchModel",
    "VideoLinearCFGGuidance",
    "VideoTriangleCFGGuidance",
    "WanAnimate2Cache",
}
ONE_AT_A_TIME = ["Mahiro", "RenormCFG", "VideoLinearCFGGuidance"]


@pytest.fixture(scope="module")
def patches(comfy_modules: str) -> Any:
    import core_patches

    return core_patches


@pytest.fixture
def sampling_of(pack_module: Callable[[str], Any], tiny_diffusion: Any) -> Callable[..., Any]:
    module, runs = pack_module("nodes.sampling.segmented_sampling"), pack_module("nodes.sampling.sampler_runs")

    def make(model: Any, limit: int = 0) -> Any:
        settings = runs.SamplerSettings("euler", "normal", STEPS, 3.0, 1.0, SEED)
        latent = {"samples": torch.zeros(N, 4, 16, 16), "batch_index": list(range(N))}
        text, other = tiny_diffusion.conditioning(1), tiny_diffusion.conditioning(2)
        return module.SegmentedSampling(runs.KSamplerRun(model, settings, text, other, latent), limit)

    return make


@pytest.fixture
def plain(tiny_diffusion: Any) -> Callable[..., torch.Tensor]:
    """What a KSampler makes of these rows together."""
    import comfy.sample

    def make(model: Any, rows: list[int]) -> torch.Tensor:
        latents = torch.zeros(len(rows), 4, 16, 16)
        noise = comfy.sample.prepare_noise(latents, SEED, rows)
        text = tiny_diffusion.conditioning(1), tiny_diffusion.conditioning(2)
        return comfy.sample.sample(
            model, noise, STEPS, 3.0, "euler", "normal", *text, latents, seed=SEED, disable_pbar=True
        )

    return make


def pruned(sampling: Any) -> torch.Tensor:
    sampling.run([0, 1, 2, 3], 2)
    sampling.run([0, 1, 3], 4)
    return sampling.run([1, 3])


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.std())


def test_every_patch_is_exact_or_refused_by_name(patches, sampling_of, plain, tiny_diffusion):
    exact, refused = {}, {}
    with torch.inference_mode():
        for name, node in patches.patch_nodes().items():
            model = tiny_diffusion.tiny_model()
            try:
                model = patches.patched(name, node, model, tiny_diffusion.conditioning(4))
            except patches.NotHereError:
                continue
            sampling = sampling_of(model)
            try:
                sampling.check_divisible()
            except ValueError as error:
                refused[name] = str(error)
                assert sampling.calls == 0
            else:
                exact[name] = difference(pruned(sampling), plain(model, list(range(N)))[[1, 3]])

    assert {name: value for name, value in exact.items() if not value < EQUAL} == {}
    assert len(exact) >= 35
    assert refused.keys() == REFUSED & patches.patch_nodes().keys()
    unnamed = {name for name, said in refused.items() if name not in said} - {"ContextWindowsManual"}
    assert unnamed == set()


@pytest.mark.parametrize("name", ONE_AT_A_TIME)
def test_those_that_mix_candidates_are_exact_one_at_a_time(name, patches, sampling_of, plain, tiny_diffusion):
    node = patches.patch_nodes()[name]
    with torch.inference_mode():
        model = patches.patched(name, node, tiny_diffusion.tiny_model(), tiny_diffusion.conditioning(4))
        sampling = sampling_of(model, limit=1)
        sampling.check_divisible()
        finished = pruned(sampling)
        alone = torch.cat([plain(model, [1]), plain(model, [3])])

    assert difference(finished, alone) < EQUAL
    assert difference(alone, plain(tiny_diffusion.tiny_model(), [1, 3])) > 0.01  # the patch does something


def test_apg_without_momentum_is_exact(patches, sampling_of, plain, tiny_diffusion, monkeypatch):
    monkeypatch.setitem(patches.STRONGER, "APG", {"momentum": 0.0})
    with torch.inference_mode():
        model = patches.patched("APG", patches.patch_nodes()["APG"], tiny_diffusion.tiny_model(), None)
        sampling = sampling_of(model)
        sampling.check_divisible()

        assert difference(pruned(sampling), plain(model, list(range(N)))[[1, 3]]) < EQUAL


def test_a_patch_that_draws_random_numbers_is_refused(patches, sampling_of, tiny_diffusion):
    model = patches.patched(
        "TomePatchModel", patches.patch_nodes()["TomePatchModel"], tiny_diffusion.tiny_model(), None
    )
    with pytest.raises(ValueError, match=r"TomePatchModel.* draws random numbers\. Bypass TomePatchModel"):
        sampling_of(model).check_divisible()


def test_a_cache_of_another_pack_is_refused_by_its_name(sampling_of, tiny_diffusion):
    class TeaCacheForImages:
        def patch(self, model: Any) -> Any:
            def answer(state: Any) -> Any:
                return state["denoised"]

            model = model.clone()
            model.set_model_sampler_post_cfg_function(answer)
            return model

    TeaCacheForImages.patch.__qualname__ = "TeaCacheForImages.patch"
    model = TeaCacheForImages().patch(tiny_diffusion.tiny_model())
    model.model_options["sampler_post_cfg_function"][0].__qualname__ = "TeaCacheForImages.patch.<locals>.answer"

    with pytest.raises(ValueError, match="Bypass TeaCacheForImages, or"):
        sampling_of(model).check_divisible()
