"""Score Images."""

from comfy_api.latest import io

from ..ma_agiqa_core.report.judges import disagreements, judges_table, notes_of_others, rank_correlation
from ..ma_agiqa_core.report.score_table import score_table
from .schema import CATEGORY, KNOWS_DYNAMIC_INPUTS, Scorer, images_or_videos, schema
from .sockets.companions import told_if_none
from .sockets.images import batch_sizes, flattened, one, prompts_for, unchanged
from .sockets.score_strip import SHEET, SHOWN, score_strip, side_of, thumbnail
from .sockets.scores import one_scorer, scores_of_each

OTHERS = ("scorer_2", "scorer_3", "scorer_4")


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
                images_or_videos(),
                io.String.Input("prompt", optional=True, default=""),  # of one line: a box would fill the empty node
                *(Scorer.Input(name, optional=True) for name in OTHERS),
                io.Boolean.Input("overlay", optional=True, default=True),
                _show(),
            ],
            outputs=[
                io.Image.Output("scored_images", is_output_list=True),
                io.Float.Output("scores", is_output_list=True),
                io.Float.Output("best_score"),
                io.String.Output("report"),
                io.Float.Output("percentiles", is_output_list=True),
                io.Float.Output("agreement"),
                io.Float.Output("disagreement", is_output_list=True),
            ],
        )

    @classmethod
    def execute(cls, scorer, images, prompt=None, overlay=True, show=SHEET, **others):
        pictures = flattened(images)
        scorers = [scorer for given in (scorer, *map(others.get, OTHERS)) if (scorer := one_scorer(given)) is not None]
        texts = prompts_for(prompt, len(pictures), batch_sizes(images))
        columns = scores_of_each(scorers, pictures, texts, cls.hidden.unique_id)
        infos, scores = [scorer.info for scorer in scorers], columns[0]
        report = judges_table(infos, columns) if columns[1:] else score_table(infos[0], scores)
        manner = one(overlay, "scores on pictures"), *_shown(show)
        side = side_of(len(pictures), *manner)
        thumbnails = [thumbnail(picture, side) for picture in pictures]
        shown = score_strip(thumbnails, scores, *manner, notes=notes_of_others(columns))
        percentiles = [score.percentile for score in scores]
        alone = "only one scorer is connected to Score Images. Connect a second one."
        return io.NodeOutput(
            unchanged(images, pictures),
            scores,
            max(scores),
            report,
            told_if_none(percentiles if None not in percentiles else None, f"{infos[0].name} has no percentiles."),
            told_if_none(rank_correlation(columns) if columns[1:] else None, alone),
            told_if_none(disagreements(columns) if columns[1:] else None, alone),
            ui=shown | {"text": [report]},
        )


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
