"""Packages that teach Pillow further formats. Imports neither Pillow nor them."""

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class PlugIn:
    """A package that teaches Pillow a format.

    Attributes:
        format: What people call it.
        package: To be installed.
        module: Registers itself when it is imported, or by its `register_heif_opener`.
        suffixes: Of the files.
    """

    format: str
    package: str
    module: str
    suffixes: tuple[str, ...]

    @property
    def is_installed(self) -> bool:
        try:
            return importlib.util.find_spec(self.module) is not None
        except ValueError:  # in sys.modules without a spec
            return True


AVIF = PlugIn("AVIF", "pillow-avif-plugin", "pillow_avif", (".avif",))
HEIC = PlugIn("HEIC", "pillow-heif", "pillow_heif", (".heic", ".heif", ".hif"))
JPEG_XL = PlugIn("JPEG XL", "pillow-jxl-plugin", "pillow_jxl", (".jxl",))
PLUG_INS = (HEIC, JPEG_XL)
"""For formats that no Pillow opens by itself."""
