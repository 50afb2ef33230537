"""The fake of samplers, one of each kind (plain, drawing noise, remembering), and of what ComfyUI puts around them."""

import torch

from . import patcher_extension
from .utils import repeat_to_batch_size


class KSAMPLER:
    def __init__(self, sampler_function, extra_options={}, inpaint_options={}):
        self.sampler_function = sampler_function
        self.extra_options, self.inpaint_options = extra_options, inpaint_options

    def sample(
        self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
    ):
        extra_args["denoise_mask"] = denoise_mask
        inpainting = _Inpainting(model_wrap, latent_image, noise)
        if self.inpaint_options.get("random"):
            generator = torch.manual_seed(extra_args.get("seed", 41) + 1)
            inpainting.noise = torch.randn(noise.shape, generator=generator)

        def shown(state):
            if callback is not None:
                callback(state["i"], state["denoised"], state["x"], len(sigmas) - 1)

        return self.sampler_function(
            inpainting,
            latent_image + noise * sigmas[0],
            sigmas,
            extra_args=extra_args,
            callback=shown,
            disable=disable_pbar,
            **self.extra_options,
        )


class Guided:
    """Classifier-free guidance: both halves in one call of the model."""

    def __init__(self, patcher, positive, negative, cfg):
        self.patcher, self.positive, self.negative, self.cfg = patcher, positive, negative, cfg

    def __call__(self, x, sigma, model_options, seed=None):
        texts = [repeat_to_batch_size(one[0][0], len(x)) for one in (self.positive, self.negative)]
        wrappers = [one for each in self.patcher.wrappers.get("apply_model", {}).values() for one in each]
        apply = patcher_extension.WrapperExecutor(self.patcher.model._apply_model, wrappers)
        cond, uncond = apply(torch.cat([x, x]), torch.cat([sigma, sigma]), torch.cat(texts)).chunk(2)
        guided = uncond + (cond - uncond) * self.cfg
        for hook in model_options.get("sampler_post_cfg_function", []):
            guided = hook({"denoised": guided, "uncond_denoised": uncond, "cond_denoised": cond})
        return guided


class _Inpainting:
    def __init__(self, inner_model, latent_image, noise):
        self.inner_model, self.latent_image, self.noise = inner_model, latent_image, noise

    def __call__(self, x, sigma, denoise_mask=None, model_options=None, seed=None):
        if denoise_mask is None:
            return self.inner_model(x, sigma, model_options, seed)
        kept = self.latent_image + self.noise * sigma[:, None, None, None]
        x0 = self.inner_model(x * denoise_mask + kept * (1 - denoise_mask), sigma, model_options, seed)
        return x0 * denoise_mask + self.latent_image * (1 - denoise_mask)


def _euler(model, x, sigmas, extra_args, callback, disable):
    for i in range(len(sigmas) - 1):
        x0 = model(x, sigmas[i].expand(len(x)), **extra_args)
        callback({"x": x, "i": i, "denoised": x0})
        x = x0 + (x - x0) * sigmas[i + 1] / sigmas[i]
    return x


def _euler_ancestral(model, x, sigmas, extra_args, callback, disable, noise_sampler=None):
    generator = torch.Generator().manual_seed(extra_args["seed"])
    for i in range(len(sigmas) - 1):
        x0 = model(x, sigmas[i].expand(len(x)), **extra_args)
        callback({"x": x, "i": i, "denoised": x0})
        x = x0 + torch.randn(x.shape, generator=generator) * sigmas[i + 1]
    return x


def _dpmpp_2m(model, x, sigmas, extra_args, callback, disable):
    before = None
    for i in range(len(sigmas) - 1):
        x0 = model(x, sigmas[i].expand(len(x)), **extra_args)
        callback({"x": x, "i": i, "denoised": x0})
        aim = x0 if before is None else 1.5 * x0 - 0.5 * before
        x, before = aim + (x - aim) * sigmas[i + 1] / sigmas[i], x0
    return x


def _euler_cfg_pp(model, x, sigmas, extra_args, callback, disable):
    seen = {}

    def look(state):
        seen["uncond"] = state["uncond_denoised"]
        return state["denoised"]

    options = dict(extra_args["model_options"])
    options["sampler_post_cfg_function"] = [*options.get("sampler_post_cfg_function", []), look]
    for i in range(len(sigmas) - 1):
        x0 = model(x, sigmas[i].expand(len(x)), **{**extra_args, "model_options": options})
        callback({"x": x, "i": i, "denoised": x0})
        x = x0 + (x - seen["uncond"]) * sigmas[i + 1] / sigmas[i]
    return x


_FUNCTIONS = {
    "euler": _euler,
    "euler_cfg_pp": _euler_cfg_pp,
    "euler_ancestral": _euler_ancestral,
    "dpmpp_2m": _dpmpp_2m,
    "dpm_adaptive": _euler,
    "ddim": _euler,
}


def sampler_object(name):
    return KSAMPLER(_FUNCTIONS[name], inpaint_options={"random": True} if name == "ddim" else {})


class KSampler:
    SCHEDULERS = ["simple", "normal", "karras"]  # noqa: RUF012 (as it is)
    SAMPLERS = list(_FUNCTIONS)  # noqa: RUF012

    def __init__(self, model, steps, device, sampler=None, scheduler=None, denoise=None, model_options={}):
        if denoise is not None and denoise <= 0:
            self.sigmas = torch.tensor([])
            return
        whole = steps if denoise is None or denoise > 0.9999 else int(steps / denoise)
        self.sigmas = torch.linspace(14.0, 0.0, whole + 1)[-(steps + 1) :]
