"""Ranked Contact Sheet."""

import numpy as np
import torch
from comfy_api.latest import io

from ..ma_agiqa_core.report.contact_sheet import contact_sheet
from .schema import CATEGORY, Scorer, images_or_videos, schema
from .sockets.images import as_pil, flattened, one
from .sockets.scores import given_scores


class ScoreSheet(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="MaAgiqaScoreSheet",
            category=CATEGORY,
            search_aliases=["contact sheet", "image grid", "ranking", "overview", "compare images"],
            is_input_list=True,
            inputs=[
                images_or_videos(),
                io.Float.Input("scores", force_input=True),
                io.Int.Input("columns", default=0, min=0, max=64),
                Scorer.Input("scorer", optional=True),
            ],
            outputs=[io.Image.Output("sheet")],
        )

    @classmethod
    def execute(cls, images, scores, columns, scorer=None):
        pictures = flattened(images)
        values = given_scores(scores, len(pictures), scorer)
        percentiles = [value.percentile for value in values]
        sheet = contact_sheet(map(as_pil, pictures), values, percentiles, columns=one(columns, "columns"))
        pixels = torch.from_numpy(np.asarray(sheet, np.float32) / 255)
        return io.NodeOutput(pixels[None].to(pictures[0].device))
