"""mPLUG-Owl2 (Ye et al. 2023, arXiv 2311.04257), our own: what it thinks of pictures, not what it would write."""

from .network import MplugOwl2

__all__ = ["MplugOwl2"]
