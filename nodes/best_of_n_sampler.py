"""Best-of-N Sampler."""

import comfy.samplers
from comfy_api.latest import io

from ..ma_agiqa_core.comfyui.limits import CALIBRATED, OWN_SCALE
from .sampling.best_of_rounds import BestOf
from .sampling.decoding import PREVIEWS
from .sampling.sampler_runs import KSamplerRun, SamplerSettings
from .schema import CATEGORY, Scorer, schema

ADVANCED = ("batch_limit", "min_score", "rounds")
MOST = 64  # as many latents as ComfyUI's own nodes repeat and pick


class BestOfNSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="MaAgiqaBestOfNSampler",
            category=CATEGORY,
            search_aliases=["best of n", "KSampler", "reject while sampling", "prune", "batch sampler", "seed search"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model"),
                io.Vae.Input("vae"),
                Scorer.Input("scorer"),
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Latent.Input("latent_image"),
                io.String.Input("prompt", optional=True, default=""),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True),
                io.Int.Input("n", default=8, min=1, max=MOST),
                io.Int.Input("keep", default=1, min=1, max=MOST),
                io.Combo.Input("sampler_name", options=comfy.samplers.KSampler.SAMPLERS),
                io.Combo.Input("scheduler", options=comfy.samplers.KSampler.SCHEDULERS),
                io.Int.Input("steps", default=20, min=1, max=10000),
                io.Float.Input("cfg", default=8.0, min=0.0, max=100.0, step=0.1, round=0.01),
                io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01),
                io.String.Input("prune_at", default="0.4:4, 0.7:2"),
                io.Combo.Input("preview", options=PREVIEWS, default="VAE"),
                io.Int.Input("batch_limit", default=0, min=0, max=MOST),
                *rounds_inputs(),
            ],
            advanced=ADVANCED,
            outputs=best_of_n_outputs(),
        )

    @classmethod
    def execute(
        cls,
        model,
        vae,
        scorer,
        positive,
        negative,
        latent_image,
        n,
        keep,
        prune_at,
        preview,
        batch_limit,
        prompt="",
        min_score=5.0,
        rounds=1,
        min_score_as=OWN_SCALE,
        overlay=True,
        **of_ksampler,
    ):
        settings = SamplerSettings(**of_ksampler)
        asked = BestOf(n, keep, prune_at, preview, batch_limit, prompt, rounds, min_score, min_score_as, overlay)
        return asked.run(
            lambda latent: KSamplerRun(model, settings, positive, negative, latent),
            vae,
            scorer,
            latent_image,
            cls.hidden.unique_id,
        )


def rounds_inputs():
    """Trying again until a candidate is good enough (with one round the score does not matter), and what is shown."""
    return [
        io.Float.Input("min_score", optional=True, default=5.0, min=-10000.0, max=10000.0, step=0.05),
        io.Int.Input("rounds", optional=True, default=1, min=1, max=MOST),
        io.Combo.Input("min_score_as", options=[OWN_SCALE, CALIBRATED], optional=True, default=OWN_SCALE),
        io.Boolean.Input("overlay", optional=True, default=True),
    ]


def best_of_n_outputs():
    return [
        io.Latent.Output("best_latent"),
        io.Image.Output("best_images"),
        io.Float.Output("scores", is_output_list=True),
        io.String.Output("indexes"),
        io.String.Output("log"),
    ]
