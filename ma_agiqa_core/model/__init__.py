"""The network of MA-AGIQA, file by file as in the paper's figure."""

from .config import MaAgiqaConfig
from .ma_agiqa import MaAgiqa

__all__ = ["MaAgiqa", "MaAgiqaConfig"]
