"""What to install if something is missing, with the Python that ComfyUI runs on."""

import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[1] / "requirements.txt"


def install_advice(error: BaseException) -> str:
    """How to get what an import found missing; for other errors how to get all that the nodes need."""
    missing = f"The Python package {error.name!r} is missing. " if isinstance(error, ModuleNotFoundError) else ""
    return (
        f"{missing}Install what these nodes need with ComfyUI's own Python, then restart ComfyUI: "
        f'"{sys.executable}" -m pip install -r "{REQUIREMENTS}"'
    )
