"""Score Images."""

from comfy_api.latest import io

from ..ma_agiqa_core.report.judges import disagreements, judges_table, notes_of_others, rank_correlation
from ..ma_agiqa_core.report.score_table import score_table
from .schema import CATEGORY, Scorer, images_or_videos, schema
from .sockets.companions import told_if_none
from .sockets.images import batch_sizes, flattened, one, prompts_for, unchanged
from .sockets.score_strip import score_strip, thumbnail
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
                io.String.Input("prompt", optional=True, multiline=True, default=""),
                *(Scorer.Input(name, optional=True) for name in OTHERS),
                io.Boolean.Input("overlay", optional=True, default=True),
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
    def execute(cls, scorer, images, prompt=None, overlay=True, **others):
        pictures = flattened(images)
        scorers = [scorer for given in (scorer, *map(others.get, OTHERS)) if (scorer := one_scorer(given)) is not None]
        texts = prompts_for(prompt, len(pictures), batch_sizes(images))
        columns = scores_of_each(scorers, pictures, texts, cls.hidden.unique_id)
        infos, scores = [scorer.info for scorer in scorers], columns[0]
        report = judges_table(infos, columns) if columns[1:] else score_table(infos[0], scores)
        shown = score_strip(
            list(map(thumbnail, pictures)), scores, one(overlay, "scores on pictures"), notes=notes_of_others(columns)
        )
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
