"""Save Scored Images."""

from dataclasses import replace

from comfy_api.latest import io

from ..ma_agiqa_core.records.png_metadata import metadata_of_scores
from .schema import CATEGORY, Scorer, schema
from .sockets.images import flattened, one
from .sockets.saved_images import save_in_output
from .sockets.scores import given_scores, one_scorer


class SaveScored(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="MaAgiqaSaveScored",
            category=CATEGORY,
            search_aliases=["save image", "metadata", "PNG info", "save with score", "export"],
            is_input_list=True,
            is_output_node=True,
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            inputs=[
                io.Image.Input("images"),
                io.Float.Input("scores", force_input=True),
                Scorer.Input("scorer", optional=True),
                io.String.Input("filename_prefix", default="MA-AGIQA"),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, images, scores, filename_prefix, scorer=None):
        pictures = flattened(images)
        scorer = one_scorer(scorer)
        values = given_scores(scores, len(pictures), scorer)
        metadata = [
            entry and replace(entry, percentile=value.percentile, **value.origin._asdict())
            for entry, value in zip(metadata_of_scores(values, scorer and scorer.info), values, strict=True)
        ]
        prefix = one(filename_prefix, "filename prefix")
        return io.NodeOutput(ui={"images": save_in_output(pictures, metadata, prefix, cls.hidden)})
