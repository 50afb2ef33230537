"""The fake of the noise of a seed, and of sampling with it."""

import numpy
import torch

from . import samplers


def prepare_noise(latent_image, seed, noise_inds=None):
    generator = torch.manual_seed(seed)
    if noise_inds is None:
        return torch.randn(latent_image.shape, generator=generator)
    drawn = [torch.randn((1, *latent_image.shape[1:]), generator=generator) for _ in range(max(noise_inds) + 1)]
    return torch.cat([drawn[index] for index in numpy.asarray(noise_inds)])


def fix_empty_latent_channels(model, latent_image):
    return latent_image


def sample(
    model,
    noise,
    steps,
    cfg,
    sampler_name,
    scheduler,
    positive,
    negative,
    latent_image,
    denoise=1.0,
    disable_noise=False,
    start_step=None,
    last_step=None,
    force_full_denoise=False,
    noise_mask=None,
    sigmas=None,
    callback=None,
    disable_pbar=False,
    seed=None,
):
    chosen = samplers.KSampler(model, steps, model.load_device, sampler_name, scheduler, denoise)
    sampler = samplers.sampler_object(sampler_name)
    return sample_custom(
        model, noise, cfg, sampler, chosen.sigmas, positive, negative, latent_image, noise_mask, callback, seed=seed
    )


def sample_custom(
    model,
    noise,
    cfg,
    sampler,
    sigmas,
    positive,
    negative,
    latent_image,
    noise_mask=None,
    callback=None,
    disable_pbar=False,
    seed=None,
):
    if len(sigmas) == 0:
        return latent_image
    guided = samplers.Guided(model, positive, negative, cfg)
    options = {"model_options": dict(model.model_options), "seed": seed}
    latent_image = model.model.process_latent_in(latent_image)
    if noise_mask is not None:
        noise_mask = torch.nn.functional.interpolate(noise_mask.reshape(-1, 1, *noise_mask.shape[-2:]), noise.shape[2:])
        noise_mask = noise_mask.expand(len(noise), *noise.shape[1:])
    finished = sampler.sample(guided, sigmas, options, callback, noise, latent_image, noise_mask, disable_pbar)
    return model.model.process_latent_out(finished)
