"""Load Image Scorer."""

from comfy_api.latest import io

from ..ma_agiqa_core import load_scorer
from .managed_scorer import ManagedScorer
from .model_folder import LITE, register, scorer_names
from .schema import Scorer, schema

register()


class LoadScorer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MaAgiqaLoadScorer",
            display_name="Load Image Scorer",
            category="MA-AGIQA",
            inputs=[io.Combo.Input("model", options=scorer_names(), default=LITE)],
            outputs=[Scorer.Output("loaded_scorer", display_name="scorer")],
        )

    @classmethod
    def execute(cls, model: str) -> io.NodeOutput:
        scorer = load_scorer(model, device="cpu")
        return io.NodeOutput(ManagedScorer(scorer, f"{scorer.info.name}@{scorer.info.revision}"))
