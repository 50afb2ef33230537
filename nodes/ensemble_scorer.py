"""Combine Image Scorers."""

from comfy_api.latest import io

from ..ma_agiqa_core import EnsembleScorer as CoreEnsemble
from .schema import CATEGORY, KNOWS_DYNAMIC_INPUTS, Scorer, schema
from .scorers.managed_scorer import ManagedScorer
from .sockets.scores import one_scorer

NUMBERS = (1, 2, 3, 4)
MORE = (5, 6, 7, 8)  # without weights of their own


class EnsembleScorer(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        inputs = []
        for number in NUMBERS:
            is_more = number > 1
            inputs.append(Scorer.Input(f"scorer_{number}", optional=is_more))
            weight = io.Float.Input(
                f"weight_{number}", optional=is_more, default=1.0, min=0.01, max=100.0, step=0.05, round=0.01
            )
            inputs.append(weight)
        return schema(
            node_id="MaAgiqaEnsembleScorer",
            category=CATEGORY,
            search_aliases=["ensemble", "average scores", "merge scorers", "mixed reward", "multiple scorers"],
            # first, else it stands between the weights: the front end shows the optional ones last
            inputs=[
                io.Combo.Input("combine", options=["calibrated", "rank", "zscore"], default="calibrated"),
                *inputs,
                *_growing(),
            ],
            advanced=["weight_3", "weight_4"],
            outputs=[Scorer.Output("scorer")],
        )

    @classmethod
    def execute(cls, combine, more_scorers=None, **given):
        given |= {f"scorer_{number}": scorer for number, scorer in (more_scorers or {}).items()}
        members = [
            (one_scorer(given[f"scorer_{number}"]), given.get(f"weight_{number}", 1.0))
            for number in (*NUMBERS, *MORE)
            if given.get(f"scorer_{number}") is not None
        ]
        ensemble = CoreEnsemble(members, combine)
        identity = "+".join(f"{scorer.identity}*{weight:g}" for scorer, weight in members)
        passes = sum(scorer.passes for scorer, _ in members)
        return io.NodeOutput(ManagedScorer(ensemble, f"{combine}({identity})", passes=passes))


def _growing():
    """A fifth socket, and another one for each that is connected, where ComfyUI knows sockets that grow in number.

    Their labels are their ids, in every language.
    """
    if not KNOWS_DYNAMIC_INPUTS:
        return []
    template = io.Autogrow.TemplateNames(Scorer.Input("scorer"), names=list(map(str, MORE)), min=0)
    return [io.Autogrow.Input("more_scorers", template=template, optional=True)]
