"""ma-agiqa: judges the quality of generated pictures. The public names, loaded when first used."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # not relative: ComfyUI's archive of the pack has neither, and its relative imports must all lead somewhere
    from ma_agiqa_core.learning.learn import learn
    from ma_agiqa_core.scale.actor import ScoreActor
    from ma_agiqa_core.scale.dataset import score_dataset

    from .errors import MaAgiqaError, PictureError
    from .ranking import RankedPicture, Ranking, rank
    from .scorers.callable import CallableScorer
    from .scorers.ensemble import EnsembleScorer
    from .scorers.load import load_scorer
    from .scorers.scorer import Scorer, ScorerInfo

    __version__: str

__all__ = [
    "CallableScorer",
    "EnsembleScorer",
    "MaAgiqaError",
    "PictureError",
    "RankedPicture",
    "Ranking",
    "ScoreActor",
    "Scorer",
    "ScorerInfo",
    "__version__",
    "learn",
    "load_scorer",
    "rank",
    "score_dataset",
]

_MODULE_OF = {
    "CallableScorer": "scorers.callable",
    "EnsembleScorer": "scorers.ensemble",
    "MaAgiqaError": "errors",
    "PictureError": "errors",
    "RankedPicture": "ranking",
    "Ranking": "ranking",
    "ScoreActor": "scale.actor",
    "Scorer": "scorers.scorer",
    "ScorerInfo": "scorers.scorer",
    "learn": "learning.learn",
    "load_scorer": "scorers.load",
    "rank": "ranking",
    "score_dataset": "scale.dataset",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        value: object = _version()
    elif name in _MODULE_OF:
        value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ma-agiqa")
    except PackageNotFoundError:  # a bare clone, e.g. in ComfyUI's custom_nodes
        return "0+unknown"
