"""Best-of-N Sampler."""

import comfy.samplers
from comfy_api.latest import io

from ..ma_agiqa_core.comfyui.segmented_best_of_n import candidate_latents, choose, stages_of
from ..ma_agiqa_core.compute.progress import watching
from .sampling.candidates import SampledCandidates
from .sampling.decoding import PREVIEWS
from .sampling.segmented_sampling import SamplerSettings
from .schema import CATEGORY, Scorer, schema
from .sockets.scores import Origin, ScoreOf, one_scorer

_MOST = 64  # as many latents as ComfyUI's own nodes repeat and pick


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
                io.String.Input("prompt", optional=True, multiline=True, default=""),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True),
                io.Int.Input("n", default=8, min=1, max=_MOST),
                io.Int.Input("keep", default=1, min=1, max=_MOST),
                io.Combo.Input("sampler_name", options=comfy.samplers.KSampler.SAMPLERS),
                io.Combo.Input("scheduler", options=comfy.samplers.KSampler.SCHEDULERS),
                io.Int.Input("steps", default=20, min=1, max=10000),
                io.Float.Input("cfg", default=8.0, min=0.0, max=100.0, step=0.1, round=0.01),
                io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01),
                io.String.Input("prune_at", default="0.4:4, 0.7:2"),
                io.Combo.Input("preview", options=PREVIEWS, default="VAE"),
                io.Int.Input("batch_limit", default=0, min=0, max=_MOST),
            ],
            outputs=[
                io.Latent.Output("best_latent"),
                io.Image.Output("best_images"),
                io.Float.Output("scores", is_output_list=True),
                io.String.Output("indexes"),
                io.String.Output("log"),
            ],
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
        **of_ksampler,
    ):
        latent, scorer = candidate_latents(latent_image, n), one_scorer(scorer)
        settings = SamplerSettings(**of_ksampler)
        candidates = SampledCandidates(model, vae, preview, settings, positive, negative, latent, batch_limit)
        stages = stages_of(prune_at, n=n, keep=keep, steps=candidates.sampling.steps)
        if stages or 0 < batch_limit < n:
            candidates.sampling.check_divisible()
        candidates.show_progress(cls.hidden.unique_id, n, stages, getattr(scorer, "passes", 1))
        with watching(candidates.advance):
            chosen = choose(candidates, scorer, prompt=prompt, n=n, keep=keep, stages=stages)
        return io.NodeOutput(
            candidates.latent_of(chosen.rows),
            candidates.images_of(chosen.rows),
            [
                ScoreOf.of(score, Origin(row, settings.seed))
                for row, score in zip(chosen.rows, chosen.scores, strict=True)
            ],
            ",".join(map(str, chosen.rows)),
            candidates.log(chosen, scorer.info.name),
        )
