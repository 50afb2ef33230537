"""The noise of SDE samplers, drawn once for all segments: a Brownian tree takes seconds for a batch of latents."""

from __future__ import annotations

from typing import Any

import comfy.model_management as memory
from torch import Tensor

_BROWNIAN = frozenset({"dpmpp_sde", "dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde"})
_ON_GPU = "_gpu"  # suffix of the samplers that draw it there


class BrownianNoise:
    """Draws what a sampler of ComfyUI would draw itself; does nothing for samplers with other noise.

    Args:
        sampler_name: As on the KSampler node.
    """

    def __init__(self, sampler_name: str) -> None:
        self._is_brownian = sampler_name.removesuffix(_ON_GPU) in _BROWNIAN
        self._on_cpu = not sampler_name.endswith(_ON_GPU)
        self._tree: Any = None
        self._drawn: dict[tuple[float, float], Tensor] = {}

    def options(self, x: Tensor, sigmas: Tensor, seed: int) -> dict[str, Any]:
        """Options for the sampler's function.

        Args:
            x: All rows.
            sigmas: All of the schedule.
            seed: That of the run.
        """
        if not self._is_brownian or len(sigmas) < 2:
            return {}
        if self._tree is None:
            from comfy.k_diffusion.sampling import BrownianTreeNoiseSampler

            lowest, highest = sigmas[sigmas > 0].min(), sigmas.max()
            self._tree = BrownianTreeNoiseSampler(x, lowest, highest, seed=seed, cpu=self._on_cpu)

        def noise(sigma: Any, sigma_next: Any) -> Tensor:
            step = float(sigma), float(sigma_next)
            if step not in self._drawn:
                self._drawn[step] = self._tree(sigma, sigma_next).to(memory.intermediate_device())
            return self._drawn[step].to(x.device)

        return {"noise_sampler": noise}
