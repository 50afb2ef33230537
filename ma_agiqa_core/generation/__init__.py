"""The generation loop of diffusers: pruning candidates early, best of N, and where pruning pays."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..scorers.judges.edit import edit_judge
    from .best_of.best_of_n import BestOfN, best_of_n
    from .calibration.measure import calibrate
    from .calibration.report import CalibrationReport
    from .early.early_scorer import EarlyScorer, load_early_scorer
    from .pipeline_judge import pipeline_judge
    from .pipelines.schedulers import UnsupportedPipelineError
    from .planning.plan import PruningPlan
    from .planning.planner import plan_pruning
    from .pruning.callback import QualityFilterCallback
    from .pruning.modular import ModularQualityFilter
    from .pruning.rule import PruningStep

__all__ = [
    "BestOfN",
    "CalibrationReport",
    "EarlyScorer",
    "ModularQualityFilter",
    "PruningPlan",
    "PruningStep",
    "QualityFilterCallback",
    "UnsupportedPipelineError",
    "best_of_n",
    "calibrate",
    "edit_judge",
    "load_early_scorer",
    "pipeline_judge",
    "plan_pruning",
]

_MODULE_OF = {
    "BestOfN": "best_of.best_of_n",
    "CalibrationReport": "calibration.report",
    "EarlyScorer": "early.early_scorer",
    "ModularQualityFilter": "pruning.modular",
    "PruningPlan": "planning.plan",
    "PruningStep": "pruning.rule",
    "QualityFilterCallback": "pruning.callback",
    "UnsupportedPipelineError": "pipelines.schedulers",
    "best_of_n": "best_of.best_of_n",
    "calibrate": "calibration.measure",
    "edit_judge": ".scorers.judges.edit",
    "load_early_scorer": "early.early_scorer",
    "pipeline_judge": "pipeline_judge",
    "plan_pruning": "planning.planner",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value  # a function may have its module's name: the next access takes this one
    return value
