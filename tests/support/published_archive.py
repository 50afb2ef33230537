"""The files that the ComfyUI registry's archive holds: what git tracks, less what .comfyignore names.

`comfy node publish` matches .comfyignore with the rules of .gitignore; here git itself does.
"""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def published_files(root: Path = ROOT) -> list[str]:
    """Paths below `root`, with "/" between the parts, sorted.

    Raises:
        RuntimeError: `root` is no git checkout, or git is not there.
    """
    tracked = _git_files(root)
    ignored = _git_files(root, "--cached", "--ignored", "--exclude-from=.comfyignore")
    return sorted(name for name in tracked - ignored if (root / name).is_file())


def copy_published(target: Path, root: Path = ROOT) -> Path:
    """Makes the folder that an installation from the registry makes, and gives it back."""
    for name in published_files(root):
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, copy)
    return target


def _git_files(root: Path, *options: str) -> set[str]:
    command = ["git", "-C", str(root), "ls-files", "-z", *options]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode()
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(f"Expected the git checkout {root}, got {error}. Clone the repository.") from None
    return {name for name in listed.split("\0") if name}
