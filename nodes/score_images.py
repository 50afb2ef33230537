"""Score Images."""

from comfy_api.latest import io

from ..ma_agiqa_core.report.score_table import score_table
from .schema import CATEGORY, Scorer, schema
from .sockets.images import flattened, one, prompts_for, unchanged
from .sockets.score_strip import SHEET, SHOWN, score_strip
from .sockets.scores import one_scorer, scores_of


class ScoreImages(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="MaAgiqaScoreImages",
            category=CATEGORY,
            essentials_category="Image Tools",
            search_aliases=[
                "image quality",
                "rate images",
                "aesthetic score",
                "IQA",
                "assess",
                "NIQE",
                "BRISQUE",
                "rank images",
            ],
            is_input_list=True,
            is_output_node=True,  # people end a workflow with it; and what it shows comes back when all is cached
            hidden=[io.Hidden.unique_id],
            inputs=[
                Scorer.Input("scorer"),
                io.Image.Input("images"),
                io.String.Input("prompt", optional=True, default=""),  # of one line: a box would fill the empty node
                io.Combo.Input("show", options=list(SHOWN), default=SHEET, optional=True),
            ],
            outputs=[
                io.Image.Output("scored_images", is_output_list=True),
                io.Float.Output("scores", is_output_list=True),
                io.Float.Output("best_score"),
                io.String.Output("report"),
            ],
        )

    @classmethod
    def execute(cls, scorer, images, prompt=None, show=SHEET):
        pictures, scorer = flattened(images), one_scorer(scorer)
        scores = scores_of(scorer, pictures, prompts_for(prompt, len(pictures)), cls.hidden.unique_id)
        report = score_table(scorer.info, scores)
        shown = score_strip(pictures, scores, scorer.info, one(show, "show")) | {"text": [report]}
        return io.NodeOutput(unchanged(images, pictures), scores, max(scores), report, ui=shown)
