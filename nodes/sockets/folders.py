"""Folders with pictures that a node may read: ComfyUI's output and input folders, and those in them."""

import os
from pathlib import Path

import folder_paths

DEEPEST = 3  # levels of folders that are listed; deeper ones can be typed
MOST = 500  # entries of the list


def folder_names() -> list[str]:
    """Such as "output" and "output/night", with forward slashes."""
    found = []
    for name, root in _roots().items():
        for place, folders, _ in os.walk(root):
            inside = Path(place).relative_to(root)
            folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
            if len(inside.parts) >= DEEPEST:
                folders.clear()
            found.append("/".join((name, *inside.parts)))
            if len(found) >= MOST:
                return found
    return found or list(_roots())


def folder_of(name: str) -> Path:
    """The folder of a name.

    Raises:
        ValueError: There is none, or it is outside of ComfyUI's folders.
    """
    start, _, rest = name.replace("\\", "/").strip().strip("/").partition("/")
    root = _roots().get(start)
    folder = None if root is None else (root / rest).resolve()
    if root is None or folder is None or not folder.is_relative_to(root.resolve()) or not folder.is_dir():
        raise ValueError(
            f"Expected a folder in ComfyUI's output or input folder, such as 'output' or 'output/night', got {name!r}. "
            "Choose one from the list."
        )
    return folder


def _roots() -> dict[str, Path]:
    return {
        "output": Path(folder_paths.get_output_directory()),
        "input": Path(folder_paths.get_input_directory()),
    }
