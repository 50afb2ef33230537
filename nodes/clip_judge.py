"""CLIP as Image Scorer."""

from comfy_api.latest import io

from .schema import CATEGORY, Scorer, schema
from .scorers.clip_reader import clip_judge


class ClipJudge(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="MaAgiqaClipJudge",
            category=CATEGORY,
            search_aliases=["VQAScore", "prompt adherence", "Qwen3-VL", "Gemma", "judge", "text encoder scorer"],
            inputs=[
                io.Clip.Input("clip"),
                io.String.Input("question", optional=True, multiline=True, default=""),
            ],
            outputs=[Scorer.Output("scorer")],
        )

    @classmethod
    def execute(cls, clip, question=""):
        return io.NodeOutput(clip_judge(clip, question))
