"""Combine Image Scorers."""

from comfy_api.latest import io

from ..ma_agiqa_core import EnsembleScorer as CoreEnsemble
from .schema import CATEGORY, KNOWS_DYNAMIC_INPUTS, Scorer, schema
from .scorers.managed_scorer import ManagedScorer
from .sockets.scores import one_scorer

NUMBERS = range(1, 9 if KNOWS_DYNAMIC_INPUTS else 5)
_VISIBLE_WEIGHTS = 2


class EnsembleScorer(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        weights = [
            io.Float.Input(f"weight_{number}", optional=True, default=1.0, min=0.01, max=100.0, step=0.05, round=0.01)
            for number in NUMBERS
        ]
        return schema(
            node_id="MaAgiqaEnsembleScorer",
            category=CATEGORY,
            search_aliases=["ensemble", "average scores", "merge scorers", "mixed reward", "multiple scorers"],
            accept_all_inputs=True,  # workflows of before connect sockets with other names
            # combine first, else it stands between the weights: the front end shows the optional ones last
            inputs=[
                io.Combo.Input("combine", options=["calibrated", "rank", "zscore"], default="calibrated"),
                *_sockets(),
                *weights,
            ],
            advanced=[weight.id for weight in weights[_VISIBLE_WEIGHTS:]],
            outputs=[Scorer.Output("scorer")],
        )

    @classmethod
    def execute(cls, combine, scorers=None, **given):
        connected = {**given, **(scorers or {})}
        members = [
            (one_scorer(connected[_socket(number)]), given.get(f"weight_{number}", 1.0))
            for number in NUMBERS
            if connected.get(_socket(number)) is not None
        ]
        if not members:
            raise ValueError("Expected at least one scorer, got none. Connect Load Image Scorer.")
        ensemble = CoreEnsemble(members, combine)
        identity = "+".join(f"{scorer.identity}*{weight:g}" for scorer, weight in members)
        passes = sum(scorer.passes for scorer, _ in members)
        return io.NodeOutput(ManagedScorer(ensemble, f"{combine}({identity})", passes=passes))


def _socket(number):
    return f"scorer_{number}"


def _sockets():
    """As many as are connected, and one more; in older versions of ComfyUI always four."""
    names = [_socket(number) for number in NUMBERS]
    if not KNOWS_DYNAMIC_INPUTS:
        return [Scorer.Input(name, optional=number > 0) for number, name in enumerate(names)]
    template = io.Autogrow.TemplateNames(Scorer.Input("scorer"), names=names, min=0)
    return [io.Autogrow.Input("scorers", template=template)]
