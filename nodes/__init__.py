"""The nodes: the only place that imports ComfyUI."""

from .load_scorer import LoadScorer

NODES = [LoadScorer]
