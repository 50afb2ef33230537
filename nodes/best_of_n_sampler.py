"""Best-of-N Sampler."""

import comfy.samplers
from comfy_api.latest import io

from ..ma_agiqa_core.generation.segments import candidate_latents, choose, stages_of
from ..ma_agiqa_core.score_progress import watching
from .sampled_candidates import SampledCandidates
from .schema import Scorer, schema
from .segmented_sampling import SamplerSettings


class BestOfNSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="MaAgiqaBestOfNSampler",
            display_name="Best-of-N Sampler",
            category="MA-AGIQA",
            description="Samples n candidates, drops weak ones on the way to save time, and returns the best. Works "
            'like KSampler, with a judge: candidates are scored on previews at the points of "prune at", and only the '
            "good ones are finished.",
            search_aliases=[
                "best of n",
                "KSampler",
                "reject while sampling",
                "prune",
                "batch sampler",
                "early stopping",
                "seed search",
            ],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model, as for KSampler."),
                io.Vae.Input("vae", tooltip="Decodes previews and the finished pictures."),
                Scorer.Input("scorer", tooltip="The judge, from Load Image Scorer."),
                io.Conditioning.Input("positive", tooltip="What should be in the picture."),
                io.Conditioning.Input("negative", tooltip="What should not be in the picture."),
                io.Latent.Input(
                    "latent_image",
                    display_name="latent image",
                    tooltip="One latent, which is used for all n candidates, or a batch of exactly n. A noise mask is "
                    "respected.",
                ),
                io.String.Input(
                    "prompt",
                    optional=True,
                    multiline=True,
                    default="",
                    tooltip='The text behind "positive", for judges that read it (CLIP, PickScore). Others ignore it.',
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Seed of the noise. Seed and index together replay any candidate in an ordinary KSampler "
                    "(see the log).",
                ),
                io.Int.Input(
                    "n",
                    display_name="candidates",
                    default=8,
                    min=1,
                    max=64,
                    tooltip="How many pictures are started, 1 to 64.",
                ),
                io.Int.Input("keep", default=1, min=1, max=64, tooltip="How many of them come out, best first."),
                io.Combo.Input(
                    "sampler_name",
                    display_name="sampler",
                    options=comfy.samplers.KSampler.SAMPLERS,
                    tooltip="With every sampler the finished pictures are exactly those of an unpruned run, up to "
                    "rounding. Only dpm_adaptive cannot be pruned: its steps depend on all candidates together.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=comfy.samplers.KSampler.SCHEDULERS,
                    tooltip="How the noise level falls over the steps.",
                ),
                io.Int.Input("steps", default=20, min=1, max=10000, tooltip="Denoising steps of a finished picture."),
                io.Float.Input(
                    "cfg",
                    default=8.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="How strictly the prompt is followed (classifier-free guidance).",
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="1: from pure noise. Lower keeps more of the latent image.",
                ),
                io.String.Input(
                    "prune_at",
                    display_name="prune at",
                    default="0.4:4, 0.7:2",
                    tooltip='Where weak candidates are dropped: "0.4:4, 0.7:2" keeps the best 4 after 40 % of the '
                    "steps and the best 2 after 70 %. Empty: all candidates are finished, then scored. Early previews "
                    "rank badly: below about 0.3 the winner is easily lost.",
                ),
                io.Combo.Input(
                    "preview",
                    options=["VAE", "TAESD"],
                    default="VAE",
                    tooltip="What decodes the half-done pictures for scoring. VAE: the real one, best but slow. TAESD: "
                    "the tiny one, fast; its file must be in models/vae_approx.",
                ),
                io.Int.Input(
                    "batch_limit",
                    display_name="batch limit",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="How many candidates are sampled together. 0: all at once, fastest. 1: one by one, needs "
                    "the least VRAM. The same candidates win either way.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    "best_latent",
                    display_name="latent",
                    tooltip="The best candidates, best first, with their batch index.",
                ),
                io.Image.Output("best_images", display_name="images", tooltip="The same, decoded."),
                io.Float.Output(
                    "scores", display_name="scores", is_output_list=True, tooltip="Their scores, best first."
                ),
                io.String.Output(
                    "indexes",
                    display_name="indexes",
                    tooltip="Their candidate numbers, counted from 0 and separated by commas, best first. With the "
                    "seed they replay the pictures.",
                ),
                io.String.Output(
                    "log",
                    display_name="log",
                    tooltip="What was scored when, who was kept and who dropped, how many model calls were saved, and "
                    "how to replay a candidate.",
                ),
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
        seed,
        n,
        keep,
        sampler_name,
        scheduler,
        steps,
        cfg,
        denoise,
        prune_at,
        preview,
        batch_limit,
        prompt="",
    ):
        settings = SamplerSettings(sampler_name, scheduler, steps, cfg, denoise, seed)
        latent = candidate_latents(latent_image, n)
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
            list(chosen.scores),
            ",".join(map(str, chosen.rows)),
            candidates.log(chosen, scorer.info.name),
        )
