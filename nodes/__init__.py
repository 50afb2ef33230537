"""The nodes: the only place that imports ComfyUI."""

from .ensemble_scorer import EnsembleScorer
from .load_scorer import LoadScorer
from .model_folder import register
from .quality_gate import QualityGate
from .save_scored import SaveScored
from .score_images import ScoreImages
from .score_sheet import ScoreSheet
from .select_best import SelectBest

NODES = [LoadScorer, EnsembleScorer, ScoreImages, SelectBest, QualityGate, ScoreSheet, SaveScored]

__all__ = ["NODES", "register"]
