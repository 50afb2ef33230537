"""Select Best Images."""

from comfy_api.latest import io

from ..ma_agiqa_core.comfyui.limits import MEASURES, OWN_SCALE
from ..ma_agiqa_core.comfyui.selection import IF_NONE, select_best
from .schema import CATEGORY, Scorer, carried, images_or_videos, schema
from .sockets.companions import Companions, skipped_if_empty
from .sockets.images import as_image_output, batch_sizes, flattened, one
from .sockets.scores import limit_for, scores_for


class SelectBest(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        anything, of_anything = carried("best_anything")
        return schema(
            node_id="MaAgiqaSelectBest",
            category=CATEGORY,
            essentials_category="Image Tools",
            search_aliases=["best of n", "top k", "pick best", "filter images", "choose image", "sort by score"],
            is_input_list=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                images_or_videos(),
                io.Float.Input("scores", optional=True, force_input=True),
                Scorer.Input("scorer", optional=True),
                io.String.Input("prompt", optional=True, default=""),
                io.Latent.Input("latent", optional=True),
                io.Mask.Input("mask", optional=True),
                io.Int.Input("top_k", default=1, min=1, max=4096),
                io.Boolean.Input("use_min_score", default=False),
                io.Float.Input("min_score", default=5.0, min=-10000.0, max=10000.0, step=0.05),
                io.Combo.Input("on_none", options=list(IF_NONE), default="best"),
                io.Combo.Input("min_score_as", options=list(MEASURES), optional=True, default=OWN_SCALE),
                anything,
            ],
            outputs=[
                io.Image.Output("best_images", is_output_list=True),
                io.Latent.Output("best_latent", is_output_list=True),
                io.Mask.Output("best_mask", is_output_list=True),
                io.Float.Output("best_scores", is_output_list=True),
                io.String.Output("indexes"),
                io.Image.Output("rejected_images", is_output_list=True),
                io.Latent.Output("rejected_latent", is_output_list=True),
                io.Mask.Output("rejected_mask", is_output_list=True),
                io.Float.Output("rejected_scores", is_output_list=True),
                io.Int.Output("kept_count"),
                io.Int.Output("rejected_count"),
                *of_anything,
            ],
        )

    @classmethod
    def execute(
        cls,
        images,
        top_k,
        use_min_score,
        min_score,
        on_none,
        scores=None,
        scorer=None,
        prompt=None,
        latent=None,
        mask=None,
        min_score_as=OWN_SCALE,
        anything=None,
    ):
        pictures = flattened(images)
        companions = Companions("Select Best Images", len(pictures), latent, mask, anything)
        measure = one(min_score_as, "min score is")
        limit = limit_for(min_score, scorer, measure) if one(use_min_score, "use min score") else None
        values = scores_for(pictures, scores, scorer, prompt, cls.hidden.unique_id, batch_sizes(images))
        chosen = select_best(
            values,
            top_k=one(top_k, "top k"),
            min_score=limit,
            if_none=one(on_none, "on_none"),
            measure=measure,
            percentiles=[value.percentile for value in values],
        )
        return io.NodeOutput(
            as_image_output([pictures[index] for index in chosen.kept]),
            companions.latents(chosen.kept),
            companions.masks(chosen.kept),
            skipped_if_empty([values[index] for index in chosen.kept]),
            skipped_if_empty(chosen.indexes),
            as_image_output([pictures[index] for index in chosen.rejected]),
            companions.latents(chosen.rejected),
            companions.masks(chosen.rejected),
            skipped_if_empty([values[index] for index in chosen.rejected]),
            len(chosen.kept),
            len(chosen.rejected),
            companions.others(chosen.kept),
        )
