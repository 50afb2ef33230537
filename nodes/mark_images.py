"""Mark Images."""

from comfy_api.latest import io

from ..ma_agiqa_core.comfyui.selection import parse_indexes
from ..ma_agiqa_core.picks.marking import add_marks
from .schema import CATEGORY, schema
from .scorers.model_folder import picks_file
from .sockets.images import batch_sizes, flattened, for_core, one, prompts_for, unchanged


class MarkImages(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="MaAgiqaMarkImages",
            category=CATEGORY,
            search_aliases=["like", "dislike", "rate", "favourite", "picks", "learn my taste", "feedback"],
            is_input_list=True,
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Image.Input("images"),
                io.String.Input("indexes", default=""),
                io.String.Input("prompt", optional=True, multiline=True, default=""),
                io.String.Input("file_name", optional=True, default="picks"),
            ],
            outputs=[io.Image.Output("marked_images", is_output_list=True)],
        )

    @classmethod
    def execute(cls, images, indexes, prompt=None, file_name=None):
        pictures = flattened(images)
        kept = parse_indexes(one(indexes, "indexes"), len(pictures))
        texts = prompts_for(prompt, len(pictures), batch_sizes(images))
        file = picks_file(one(file_name, "file name") or "picks")
        seen = for_core(pictures)
        for text in dict.fromkeys(texts if isinstance(texts, list) else [texts]):  # marks of one prompt belong together
            rows = [row for row in range(len(pictures)) if not isinstance(texts, list) or texts[row] == text]
            liked = [seen[row] for row in rows if row in kept]
            add_marks(file, liked, [seen[row] for row in rows if row not in kept], prompt=text)
        told = f"{len(kept)} liked, {len(pictures) - len(kept)} disliked, in {file}"
        return io.NodeOutput(unchanged(images, pictures), ui={"text": [told]})
