"""Best-of-N Sampler (Custom): with noise, guider, sampler and sigmas, as Sampler Custom (Advanced) takes them."""

from comfy_api.latest import io

from ..ma_agiqa_core.comfyui.limits import OWN_SCALE
from .best_of_n_sampler import ADVANCED, MOST, best_of_n_outputs, rounds_inputs
from .sampling.best_of_rounds import BestOf
from .sampling.decoding import PREVIEWS
from .sampling.sampler_runs import GuiderRun
from .schema import CATEGORY, Scorer, schema


class BestOfNCustom(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="MaAgiqaBestOfNCustom",
            category=CATEGORY,
            search_aliases=["best of n", "SamplerCustomAdvanced", "guider", "FLUX.2", "prune", "batch sampler"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Noise.Input("noise"),
                io.Guider.Input("guider"),
                io.Sampler.Input("sampler"),
                io.Sigmas.Input("sigmas"),
                io.Vae.Input("vae"),
                Scorer.Input("scorer"),
                io.Latent.Input("latent_image"),
                io.String.Input("prompt", optional=True, default=""),
                io.Int.Input("n", default=8, min=1, max=MOST),
                io.Int.Input("keep", default=1, min=1, max=MOST),
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
        noise,
        guider,
        sampler,
        sigmas,
        vae,
        scorer,
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
    ):
        asked = BestOf(n, keep, prune_at, preview, batch_limit, prompt, rounds, min_score, min_score_as, overlay)
        return asked.run(
            lambda latent: GuiderRun(noise, guider, sampler, sigmas, latent),
            vae,
            scorer,
            latent_image,
            cls.hidden.unique_id,
        )
