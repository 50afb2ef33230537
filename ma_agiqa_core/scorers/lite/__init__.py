"""The scorer carried in the package: small, technical quality only, and not MA-AGIQA."""

from pathlib import Path

from .scorer import LiteScorer, load

LITE_WEIGHTS = Path(__file__).with_name("lite.safetensors")

__all__ = ["LITE_WEIGHTS", "LiteScorer", "load"]
