"""Image Quality Gate."""

from comfy_api.latest import io

from ..ma_agiqa_core.comfyui.selection import split_at
from .schema import CATEGORY, Scorer, schema
from .sockets.images import as_image_output, flattened
from .sockets.scores import limit_for, scores_for


class QualityGate(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="MaAgiqaQualityGate",
            category=CATEGORY,
            search_aliases=["filter by score", "threshold", "reject bad images", "quality filter", "if image good"],
            is_input_list=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Image.Input("images"),
                Scorer.Input("scorer"),
                io.String.Input("prompt", optional=True, multiline=True, default=""),
                io.Float.Input("min_score", default=5.0, min=-10000.0, max=10000.0, step=0.05),
            ],
            outputs=[
                io.Image.Output("passed_images", is_output_list=True),
                io.Image.Output("failed_images", is_output_list=True),
            ],
        )

    @classmethod
    def execute(cls, images, scorer, min_score, prompt=None):
        pictures = flattened(images)
        limit = limit_for(min_score, scorer)
        scores = scores_for(pictures, scorer=scorer, prompt=prompt, node_id=cls.hidden.unique_id)
        sides = split_at(scores, limit)
        return io.NodeOutput(
            as_image_output([pictures[index] for index in sides.kept]),
            as_image_output([pictures[index] for index in sides.rejected]),
        )
