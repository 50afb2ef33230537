"""Models of transformers loaded strictly: every weight must be in the folder, and whole."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from ..arguments.options import first_names
from ..errors import MaAgiqaError, first_line


def load_pretrained(
    model_class: Any,
    folder: Path,
    model_type: str,
    dtype: torch.dtype,
    *,
    unneeded: Collection[str] = (),
    **options: Any,
) -> Any:
    """What `model_class.from_pretrained` loads from a folder, without the network.

    Args:
        model_class: A class of transformers, also one of its `Auto` classes.
        folder: With config.json and weights.
        model_type: For messages.
        dtype: Precision of the weights.
        unneeded: Names of weights that may be missing.
        **options: For `from_pretrained`.

    Raises:
        ImportError: A package that the weights need is not installed.
        ValueError: Weights are missing, damaged, or of another shape than the config says.
    """
    options |= {_dtype_option(): dtype, "local_files_only": True, "output_loading_info": True}
    try:
        model, found = model_class.from_pretrained(folder, **options)
    except Exception as error:  # safetensors, transformers and accelerate have no base class in common
        if isinstance(error, torch.OutOfMemoryError | ImportError):
            raise
        damaged = _damaged_files(folder)
        what = f"a damaged {str(damaged[0])!r}: " if damaged else ""
        raise MaAgiqaError(
            f"Expected the weights of a {model_type} in {str(folder)!r}, got {what}{first_line(error)} "
            f"{'Download it again.' if damaged else ''}".rstrip()
        ) from error
    mismatched = [entry[0] if isinstance(entry, tuple) else entry for entry in found.get("mismatched_keys", ())]
    if absent := sorted({*found["missing_keys"], *mismatched} - set(unneeded)):
        raise MaAgiqaError(
            f"Expected all weights of a {model_type} in {str(folder)!r}, got none, or of another shape, for "
            f"{first_names(absent)}. Check that config.json and the weights belong together."
        )
    return model


def _damaged_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder that cannot be opened."""
    from safetensors import SafetensorError, safe_open

    damaged = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError):
            damaged.append(path)
    return damaged


def _dtype_option() -> str:
    """`dtype` since transformers 4.56, `torch_dtype` before."""
    import transformers
    from packaging.version import Version

    return "dtype" if Version(transformers.__version__) >= Version("4.56") else "torch_dtype"
