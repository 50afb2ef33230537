"""The generation loop of diffusers: pruning candidates early, best of N, and where pruning pays."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .best_of import BestOfN, best_of_n
    from .calibration import calibrate
    from .calibration_report import CalibrationReport
    from .callback import QualityFilterCallback
    from .families import UnsupportedPipelineError
    from .modular import ModularQualityFilter
    from .pruning_rule import PruningStep

__all__ = [
    "BestOfN",
    "CalibrationReport",
    "ModularQualityFilter",
    "PruningStep",
    "QualityFilterCallback",
    "UnsupportedPipelineError",
    "best_of_n",
    "calibrate",
]

_MODULE_OF = {
    "BestOfN": "best_of",
    "CalibrationReport": "calibration_report",
    "ModularQualityFilter": "modular",
    "PruningStep": "pruning_rule",
    "QualityFilterCallback": "callback",
    "UnsupportedPipelineError": "families",
    "best_of_n": "best_of",
    "calibrate": "calibration",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value  # a function may have its module's name: the next access takes this one
    return value
