"""Score Images."""

from comfy_api.latest import io

from ..ma_agiqa_core.report.score_table import score_table
from .schema import CATEGORY, KNOWS_DYNAMIC_INPUTS, Scorer, schema
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
                _show(),
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
        shown = score_strip(pictures, scores, scorer.info, *_shown(show)) | {"text": [report]}
        return io.NodeOutput(unchanged(images, pictures), scores, max(scores), report, ui=shown)


def _show():
    """What to show; only a sheet has columns, and older versions of ComfyUI know no options that depend on others."""
    if not KNOWS_DYNAMIC_INPUTS:
        return io.Combo.Input("show", options=list(SHOWN), default=SHEET, optional=True)
    columns = io.Int.Input("columns", optional=True, default=0, min=0, max=64)
    options = [io.DynamicCombo.Option(choice, [columns] if choice == SHEET else []) for choice in SHOWN]
    return io.DynamicCombo.Input("show", options=options, optional=True)


def _shown(show):
    """The choice and the columns, 0 for as many as fit."""
    given = show if isinstance(show, dict) else {"show": show}
    return one(given["show"], "show"), one(given.get("columns", 0), "columns")
