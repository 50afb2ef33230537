"""What is sampled: all that ComfyUI's sampler takes for the candidates, from a KSampler's settings or from a guider."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management as memory
import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ...ma_agiqa_core.comfyui.conditioning import conditioning_rows, converted_rows
from .model_patches import check_patches, titled

RATIO = "downscale_ratio_"  # begins what newer versions of ComfyUI write on an empty latent: how large it was made
_CORE_GUIDERS = frozenset({"CFGGuider", "Guider_Basic", "Guider_DualCFG", "Guider_DualModel"})
_OF_CORE = ("comfy.", "comfy_extras")


@dataclass(frozen=True)
class SamplerSettings:
    """As on the KSampler node."""

    sampler_name: str
    scheduler: str
    steps: int
    cfg: float
    denoise: float
    seed: int

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.sampler_name}, {self.scheduler}, {self.steps} steps, cfg {self.cfg:g}, "
            f"denoise {self.denoise:g}"
        )


class SamplerRun:
    """The candidates' noise, latents and mask, and how they are sampled.

    Args:
        model: ModelPatcher of the diffusion model; not changed.
        latent: All candidates' "samples" and "batch_index", and optionally "noise_mask".

    Attributes:
        latents: As the model takes them, one row for each candidate.
        noise: Likewise.
        sigmas: The schedule.
        seed: Of the noise.
        sampler_name: As on the KSampler node, where it is one of these.
        description: The settings, for people.
    """

    noise: Tensor
    sigmas: Tensor
    seed: int
    sampler_name: str
    description: str

    def __init__(self, model: Any, latent: Mapping[str, Any]) -> None:
        self.model = model
        fit = comfy.sample.fix_empty_latent_channels  # newer ones also make it as small as models like Flux.2 want it
        known = inspect.signature(fit).parameters
        ratios = {name: latent[name] for name in known if name.startswith(RATIO) and name in latent}
        self.latents = fit(model, latent["samples"], **ratios)
        self._mask, self._masks = _shared_or_each(latent.get("noise_mask"), self.latents)

    @property
    def count(self) -> int:
        return len(self.latents)

    @property
    def leaves_noise(self) -> bool:
        """Whether the schedule ends before the noise is gone, as that of a first of several samplers."""
        return len(self.sigmas) > 0 and float(self.sigmas[-1]) > 0

    @property
    def is_masked(self) -> bool:
        return self._mask is not None or self._masks is not None

    def masks_of(self, rows: Sequence[int]) -> Tensor | None:
        return self._mask if self._masks is None else self._masks[list(rows)]

    def sampler(self) -> Any:
        """ComfyUI's sampler, a new one whose function may be replaced."""
        raise NotImplementedError

    def guider(self, model: Any, rows: Sequence[int]) -> Any:
        """ComfyUI's guider for some of the candidates.

        Raises:
            ValueError: Conditioning that cannot be taken apart.
        """
        raise NotImplementedError

    def check_divisible(self, group: int) -> None:
        """Raises a ValueError where candidates of a group that goes through the model together depend on each other."""
        check_patches(self.model, group)
        self.guider(self.model, [0])

    def finished(self, samples: Tensor) -> Tensor:
        """What the sampler gave, where and as links carry it."""
        return samples.to(memory.intermediate_device())


class KSamplerRun(SamplerRun):
    """As a KSampler samples.

    Args:
        model: ModelPatcher of the diffusion model; not changed.
        settings: As for a KSampler.
        positive: Conditioning for all candidates, or with a row for each.
        negative: Likewise.
        latent: All candidates' "samples" and "batch_index", and optionally "noise_mask".
    """

    def __init__(
        self, model: Any, settings: SamplerSettings, positive: Any, negative: Any, latent: Mapping[str, Any]
    ) -> None:
        super().__init__(model, latent)
        _check_known("sampler", settings.sampler_name, comfy.samplers.KSampler.SAMPLERS)
        _check_known("scheduler", settings.scheduler, comfy.samplers.KSampler.SCHEDULERS)
        self._settings, self._conds = settings, {"positive": positive, "negative": negative}
        self.seed, self.sampler_name, self.description = settings.seed, settings.sampler_name, str(settings)
        self.noise = comfy.sample.prepare_noise(self.latents, settings.seed, latent["batch_index"])
        self.sigmas = comfy.samplers.KSampler(
            model, settings.steps, model.load_device, settings.sampler_name, settings.scheduler, settings.denoise
        ).sigmas

    def sampler(self) -> Any:
        return comfy.samplers.sampler_object(self.sampler_name)

    def finished(self, samples: Tensor) -> Tensor:
        dtype = getattr(memory, "intermediate_dtype", lambda: samples.dtype)()  # of newer versions
        return super().finished(samples).to(dtype)

    def guider(self, model: Any, rows: Sequence[int]) -> Any:
        guider = comfy.samplers.CFGGuider(model)
        is_part = len(rows) < self.count
        conds = self._conds.items()
        guider.set_conds(
            **{name: conditioning_rows(cond, rows, self.count) if is_part else cond for name, cond in conds}
        )
        guider.set_cfg(self._settings.cfg)
        return guider


class GuiderRun(SamplerRun):
    """As Sampler Custom (Advanced) samples.

    Args:
        noise: ComfyUI's NOISE.
        guider: ComfyUI's GUIDER; not changed.
        sampler: ComfyUI's SAMPLER; not changed.
        sigmas: The schedule.
        latent: All candidates' "samples" and "batch_index", and optionally "noise_mask".

    Raises:
        ValueError: A guider that is not one of ComfyUI's kind, or noise that is the same for all.
    """

    def __init__(self, noise: Any, guider: Any, sampler: Any, sigmas: Tensor, latent: Mapping[str, Any]) -> None:
        if not isinstance(guider, comfy.samplers.CFGGuider):
            raise ValueError(
                f"Expected a guider of ComfyUI's kind, got {type(guider).__name__}. Connect CFGGuider or BasicGuider."
            )
        super().__init__(guider.model_patcher, latent)
        self._guider, self._sampler, self.sigmas = guider, sampler, sigmas
        function = getattr(sampler, "sampler_function", None)
        self.sampler_name = getattr(function, "__name__", type(sampler).__name__)
        self.sampler_name = self.sampler_name.removeprefix("sample_").removesuffix("_function")
        self.seed = noise.seed
        self.description = f"seed {self.seed}: {self.sampler_name}, {max(len(sigmas) - 1, 0)} steps, by the guider"
        self.noise = noise.generate_noise({**latent, "samples": self.latents})
        if self.noise.shape != self.latents.shape:
            raise ValueError(
                f"Expected noise for each of {self.count} candidates, {tuple(self.latents.shape)}, got "
                f"{tuple(self.noise.shape)}. Connect Random Noise."
            )
        if self.count > 1 and _are_equal(self.noise) and _are_equal(self.latents):
            raise ValueError(
                f"Expected noise or latents that differ between {self.count} candidates, got the same for all. Connect "
                "Random Noise, or one latent for each."
            )

    def sampler(self) -> Any:
        return copy.copy(self._sampler)

    def guider(self, model: Any, rows: Sequence[int]) -> Any:
        guider = copy.copy(self._guider)
        guider.model_patcher = model
        if guider.model_options is self._guider.model_patcher.model_options:
            guider.model_options = model.model_options
        if len(rows) < self.count:
            conds = self._guider.original_conds
            guider.original_conds = {name: converted_rows(cond, rows, self.count) for name, cond in conds.items()}
        return guider

    def check_divisible(self, group: int) -> None:
        super().check_divisible(group)
        if (other := getattr(self._guider, "uncond_model_patcher", None)) is not None:
            check_patches(other, group)
        kind = type(self._guider)
        if group > 1 and kind.__name__ not in _CORE_GUIDERS:
            name = titled(f"{kind.__name__.removeprefix('Guider_')}Guider") if _is_of_core(kind) else kind.__name__
            raise ValueError(
                f"Expected a guider that treats each candidate by itself, got {name}, which may mix all that are "
                "sampled together. Set batch_limit to 1, or connect CFGGuider, BasicGuider or DualCFGGuider."
            )


def _is_of_core(kind: type) -> bool:
    return any(name in kind.__module__ for name in _OF_CORE)


def _are_equal(rows: Tensor) -> bool:
    return all(torch.equal(row, rows[0]) for row in rows[1:])


def _check_known(what: str, name: str, known: Sequence[str]) -> None:
    """ComfyUI 0.3.64 accepts names that are not on the list, and uses the first scheduler for them."""
    if name not in known:
        raise ValueError(
            f"Expected a {what} that this ComfyUI has, got {name!r}. Choose another, or install the pack with it."
        )


def _shared_or_each(mask: Tensor | None, latents: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """A mask for all candidates, or one mask for each, as ComfyUI's sampler reads a noise mask of several."""
    if mask is None:
        return None, None
    if latents.ndim == 4:
        mask = mask.reshape(-1, 1, *mask.shape[-2:])
    if mask.ndim != latents.ndim or len(mask) == 1:
        return mask, None
    return None, comfy.utils.repeat_to_batch_size(mask, len(latents))
