"""Loads a diffusers pipeline from a folder or the Hub: what is on this machine is used without asking the network."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from ...compute.batching import is_out_of_memory
from ...errors import MaAgiqaError, MissingFileError, first_line
from ...model_files.hub import check_reachable, is_hub_id, split_hub_id

logger = logging.getLogger(__name__)


def load_pipeline(model: str, *, device: torch.device, dtype: torch.dtype, local_files_only: bool = False) -> Any:
    """A pipeline of the class that its model_index.json names, without progress bars. No code from it runs.

    Args:
        model: Folder, or Hub id (`owner/name`, `owner/name@revision`).
        device: Where it is to compute.
        dtype: Of all its parts.
        local_files_only: Never use the network.

    Raises:
        FileNotFoundError: There is no such folder, or the Hub's files are not here and cannot be downloaded.
        ValueError: A folder without a pipeline, damaged files, or too little memory on the device.
    """
    if is_hub_id(model):
        pipe = _from_hub(model, dtype, local_files_only)
    else:
        folder = Path(model).expanduser()
        if not folder.is_dir():
            raise MissingFileError(
                f"Expected the folder of a diffusers pipeline, or a Hub id such as "
                f"'stabilityai/stable-diffusion-xl-base-1.0', got {model!r}: no such folder."
            )
        if not (folder / "model_index.json").is_file():
            raise MaAgiqaError(
                f"Expected a diffusers pipeline with model_index.json in {model!r}, got none. Save one there with "
                "pipe.save_pretrained(folder)."
            )
        pipe = _from_pretrained(str(folder), dtype, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    try:
        return pipe.to(device)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MaAgiqaError(
            f"Expected memory for {model!r} on {str(device)!r}, got too little. Use --dtype float16, a smaller "
            "pipeline, or the function calibrate() with a pipeline that is offloaded."
        ) from error


def _from_hub(model: str, dtype: torch.dtype, local_files_only: bool) -> Any:
    repository, revision = split_hub_id(model)
    at = f" at revision {revision!r}" if revision else ""
    try:
        return _from_pretrained(repository, dtype, revision=revision, local_files_only=True)
    except (OSError, ValueError) as error:
        why = f"it is not whole in the local Hub cache ({first_line(error).rstrip('.')})"
    if not local_files_only:
        try:
            check_reachable()
            logger.info("downloading %s from the Hugging Face Hub", repository)
            return _from_pretrained(repository, dtype, revision=revision, local_files_only=False)
        except (OSError, ValueError) as error:  # no network, no such repository or revision, no access
            why = f"{why}, and downloading it failed: {first_line(error).rstrip('.')}"
    raise MissingFileError(
        f"Expected {repository!r}{at} on this machine, got none: {why}. Run `hf download {repository}"
        f"{f' --revision {revision}' if revision else ''}`, or give a local folder."
    )


def _from_pretrained(model: str, dtype: torch.dtype, **options: Any) -> Any:
    from diffusers import DiffusionPipeline

    try:
        return DiffusionPipeline.from_pretrained(model, **{_dtype_option(): dtype}, **options)
    except ImportError:
        raise
    except Exception as error:  # safetensors, transformers, accelerate and diffusers have no base class in common
        if isinstance(error, torch.OutOfMemoryError | OSError):
            raise
        raise MaAgiqaError(
            f"Expected a diffusers pipeline in {model!r}, got {first_line(error)} Download the whole repository."
        ) from error


def _dtype_option() -> str:
    """`torch_dtype` until diffusers could be given `dtype`, which the older ones pass over."""
    from diffusers.utils import deprecation_utils

    return "dtype" if hasattr(deprecation_utils, "_resolve_dtype") else "torch_dtype"
