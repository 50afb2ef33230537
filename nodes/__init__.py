"""The nodes: the only place that imports ComfyUI.

Each is imported separately: a node that a future ComfyUI breaks does not take the others with it.
"""

import logging
from importlib import import_module

from .install_advice import install_advice
from .scorers.model_folder import register

_logger = logging.getLogger(__name__)

NODES = {  # file: class
    "load_scorer": "LoadScorer",
    "ensemble_scorer": "EnsembleScorer",
    "score_images": "ScoreImages",
    "select_best": "SelectBest",
    "quality_gate": "QualityGate",
    "best_of_n_sampler": "BestOfNSampler",
    "best_of_n_custom": "BestOfNCustom",
    "clip_judge": "ClipJudge",
    "mark_images": "MarkImages",
    "score_sheet": "ScoreSheet",
    "save_scored": "SaveScored",
    "load_scored": "LoadScored",
}
register()


def node_classes() -> list[type]:
    """The classes of all nodes that work in this ComfyUI; what is wrong with others is logged."""
    found = []
    for module, name in NODES.items():
        try:
            node = getattr(import_module(f".{module}", __name__), name)
            node.GET_SCHEMA()  # ComfyUI asks for it next, and drops all nodes if one fails
        except Exception as error:
            _logger.exception("[ma-agiqa] the node %s is missing. %s", name, install_advice(error))
        else:
            found.append(node)
    return found
