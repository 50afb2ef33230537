"""Image Quality Gate."""

from comfy_api.latest import io

from ..ma_agiqa_core.comfyui.limits import MEASURES, OWN_SCALE
from ..ma_agiqa_core.comfyui.selection import split_at
from .schema import CATEGORY, Scorer, carried, images_or_videos, schema
from .sockets.companions import Companions, skipped_if_empty
from .sockets.images import as_image_output, batch_sizes, flattened, one
from .sockets.scores import limit_for, scores_for


class QualityGate(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        anything, of_anything = carried("passed_anything", "failed_anything")
        return schema(
            node_id="MaAgiqaQualityGate",
            category=CATEGORY,
            search_aliases=["filter by score", "threshold", "reject bad images", "quality filter", "if image good"],
            is_input_list=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                images_or_videos(),
                Scorer.Input("scorer"),
                io.String.Input("prompt", optional=True, default=""),
                io.Float.Input("min_score", default=5.0, min=-10000.0, max=10000.0, step=0.05),
                io.Latent.Input("latent", optional=True),
                io.Mask.Input("mask", optional=True),
                io.Combo.Input("min_score_as", options=list(MEASURES), optional=True, default=OWN_SCALE),
                anything,
            ],
            outputs=[
                io.Image.Output("passed_images", is_output_list=True),
                io.Image.Output("failed_images", is_output_list=True),
                io.Latent.Output("passed_latent", is_output_list=True),
                io.Latent.Output("failed_latent", is_output_list=True),
                io.Mask.Output("passed_mask", is_output_list=True),
                io.Mask.Output("failed_mask", is_output_list=True),
                io.Float.Output("passed_scores", is_output_list=True),
                io.Float.Output("failed_scores", is_output_list=True),
                io.Int.Output("passed_count"),
                io.Int.Output("failed_count"),
                *of_anything,
            ],
        )

    @classmethod
    def execute(
        cls, images, scorer, min_score, prompt=None, latent=None, mask=None, min_score_as=OWN_SCALE, anything=None
    ):
        pictures = flattened(images)
        companions = Companions("Image Quality Gate", len(pictures), latent, mask, anything)
        measure = one(min_score_as, "min score is")
        limit = limit_for(min_score, scorer, measure)
        scores = scores_for(pictures, None, scorer, prompt, cls.hidden.unique_id, batch_sizes(images))
        chosen = split_at(scores, limit, measure, [score.percentile for score in scores])
        sides = (chosen.kept, chosen.rejected)
        return io.NodeOutput(
            *(as_image_output([pictures[index] for index in side]) for side in sides),
            *(companions.latents(side) for side in sides),
            *(companions.masks(side) for side in sides),
            *(skipped_if_empty([scores[index] for index in side]) for side in sides),
            *map(len, sides),
            *(companions.others(side) for side in sides),
        )
