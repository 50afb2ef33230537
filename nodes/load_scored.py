"""Load Scored Images."""

import math

from comfy_api.latest import io

from ..ma_agiqa_core.comfyui.scored_folder import BY_NAME, ORDERS, folder_report, picture_files, read_folder
from ..ma_agiqa_core.records.png_metadata import PictureMetadata
from .schema import CATEGORY, Scorer, schema
from .sockets.folders import folder_names, folder_of
from .sockets.images import as_image_output
from .sockets.scores import Origin, ScoreOf, one_scorer, scores_of

MOST = 4096


class LoadScored(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        folders = folder_names()
        return schema(
            node_id="MaAgiqaLoadScored",
            category=CATEGORY,
            search_aliases=["load folder", "load images", "batch from folder", "rank folder", "read score", "PNG info"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Combo.Input("folder", options=folders, default=folders[0]),
                io.Combo.Input("order", options=list(ORDERS), default=BY_NAME),
                io.Int.Input("most", default=64, min=1, max=MOST),
                Scorer.Input("scorer", optional=True),
                io.String.Input("prompt", optional=True, default=""),
            ],
            outputs=[
                io.Image.Output("images", is_output_list=True),
                io.Float.Output("scores", is_output_list=True),
                io.String.Output("files", is_output_list=True),
                io.String.Output("report"),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder=None):
        """Also folders that are not on the list, such as one that the workflow itself has just made."""
        if folder is None:  # connected
            return True
        try:
            folder_of(folder)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, folder=None, **_):
        """Reads again when files have come, gone or changed."""
        states = [(path.name, path.stat()) for path in picture_files(folder_of(folder))] if folder else []
        return folder, [(name, state.st_size, state.st_mtime_ns) for name, state in states]

    @classmethod
    def execute(cls, folder, order, most, scorer=None, prompt=""):
        scorer = one_scorer(scorer)
        read = read_folder(folder_of(folder), order_by=order, most=most, info=scorer and scorer.info)
        pictures = [pixels.movedim(0, -1).float() / 255 for pixels in read.pixels]
        known = [file.metadata for file in read.files]
        scores = [_carried(score, entry) for score, entry in zip(read.scores, known, strict=True)]
        new = [row for row, score in enumerate(scores) if math.isnan(score)]
        if scorer is not None and new:
            texts = [(known[row] and known[row].prompt) or prompt for row in new]
            texts = texts if any(text.strip() for text in texts) else None
            made = scores_of(scorer, [pictures[row] for row in new], texts, cls.hidden.unique_id)
            for row, score in zip(new, made, strict=True):
                scores[row] = score
        names = [file.path.name for file in read.files]
        return io.NodeOutput(as_image_output(pictures), scores, names, folder_report(read, scores))


def _carried(score: float, known: PictureMetadata | None) -> ScoreOf:
    """With what the file says of its candidate; only a seed makes its number mean anything here."""
    origin = None if known is None or known.seed is None else Origin(known.index, known.seed)
    return ScoreOf.of(score, origin, None if known is None or math.isnan(score) else known.percentile)
