"""The line that says what a figure was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path


def machine() -> str:
    """Processor, cores and how busy they are, system, Python and the libraries that do the work."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "pillow"))
    busy = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return (
        f"Machine: {_processor()}, {os.cpu_count()} cores{busy}, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, {libraries}."
    )


def _processor() -> str:
    facts = Path("/proc/cpuinfo")  # platform.processor() is empty on most Linux systems
    if facts.is_file():
        names = [line.partition(":")[2].strip() for line in facts.read_text().splitlines() if "model name" in line]
        if names:
            return names[0]
    return platform.processor() or "unknown processor"
