"""Models on the Hugging Face Hub: what is in the local cache is used as it is, the rest is downloaded once.

An id may carry the revision it is pinned to: `owner/name@revision`. Without one, the local cache's "main" is
taken, so that a model does not change from one run to the next and nothing is asked of the network.
"""

import logging
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from ..errors import MaAgiqaError, MissingFileError

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
# Weights in other frameworks' formats, and what no loader here reads.
_NEVER = ["*.h5", "*.msgpack", "*.onnx", "*.gguf", "*.tflite", "*.mlmodel", "original/*", "*.md", "*.png", "*.jpg"]


def is_hub_id(model: object) -> bool:
    """Whether this has the form `owner/name` or `owner/name@revision` and is no path on this machine."""
    if not isinstance(model, str) or _HUB_ID.fullmatch(model) is None:
        return False
    with suppress(OSError):  # longer than any file's name
        return not Path(model).exists()
    return False


def split_hub_id(model: str, revision: str | None = None) -> tuple[str, str | None]:
    """The id alone, and the revision it is pinned to.

    Raises:
        ValueError: No Hub id, or two revisions that contradict each other.
    """
    match = _HUB_ID.fullmatch(model)
    if match is None:
        raise MaAgiqaError(f"Expected a Hub id such as 'owner/name', got {model!r}.")
    pinned = match["revision"]
    if pinned and revision and pinned != revision:
        raise MaAgiqaError(f"Expected one revision of {match['id']!r}, got {pinned!r} and {revision!r}.")
    return match["id"], pinned or revision


def hub_file(model: str, filename: str, *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """One file of a Hub repository, on this machine.

    Raises:
        FileNotFoundError: It is not in the local cache and may not or cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download

    repository, revision = split_hub_id(model, revision)

    def fetch(local: bool) -> Path:
        return Path(hf_hub_download(repository, filename, revision=revision, local_files_only=local))

    return _local_first(fetch, lambda path: path.is_file(), repository, revision, local_files_only)


def hub_folder(
    model: str,
    is_complete: Callable[[Path], bool],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
) -> Path:
    """A whole Hub repository as a folder on this machine, weights in one format only.

    Args:
        model: `owner/name`, or `owner/name@revision`.
        is_complete: Whether a folder has all that is needed; an interrupted download does not.
        revision: Branch, tag or commit.
        local_files_only: Never use the network.

    Raises:
        FileNotFoundError: It is not complete in the local cache and may not or cannot be downloaded.
    """
    from huggingface_hub import HfApi, snapshot_download

    repository, revision = split_hub_id(model, revision)

    def fetch(local: bool) -> Path:
        ignored = list(_NEVER)
        if not local and any(
            name.endswith(".safetensors") for name in HfApi().list_repo_files(repository, revision=revision)
        ):
            ignored += ["*.bin", "*.pt", "*.pth"]
        return Path(snapshot_download(repository, revision=revision, local_files_only=local, ignore_patterns=ignored))

    return _local_first(fetch, is_complete, repository, revision, local_files_only)


def commit_of(folder: Path) -> str | None:
    """The commit of a folder inside the local Hub cache (`.../snapshots/<commit>`), else None."""
    return folder.name if folder.parent.name == "snapshots" else None


def _local_first(
    fetch: Callable[[bool], Path],
    is_complete: Callable[[Path], bool],
    repository: str,
    revision: str | None,
    local_files_only: bool,
) -> Path:
    at = f" at revision {revision!r}" if revision else ""
    try:
        if is_complete(path := fetch(True)):
            return path
        why = "no such folder here, and only a part of it in the local Hub cache"
    except (OSError, ValueError):
        why = "no such file or folder here, nor is it in the local Hub cache"
    fix = f"Run `hf download {repository}{f' --revision {revision}' if revision else ''}`, or give a local folder."
    if local_files_only:
        raise MissingFileError(f"Expected {repository!r}{at} on this machine, got none: {why}. {fix}")
    try:
        check_reachable()
        logger.info("downloading %s from the Hugging Face Hub", repository)
        if is_complete(path := fetch(False)):
            return path
        why = "the repository lacks files that a model needs"
    except (OSError, ValueError) as error:  # no network, no such repository or revision, no access
        if type(error).__name__ == "GatedRepoError":  # of huggingface_hub, an OSError
            fix = f"Ask for access at https://huggingface.co/{repository}, then run `hf auth login`."
        reason, *_ = str(error).strip().splitlines() or [type(error).__name__]
        why = f"{why}, and downloading it failed: {reason.rstrip('.')}"
    raise MissingFileError(f"Expected {repository!r}{at}, got none: {why}. {fix}")


def check_reachable() -> None:
    """Without a network, says so at once: the Hub's client would try again for half a minute."""
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname
    if host and not getproxies():  # a proxy may know names that this machine does not
        try:
            socket.getaddrinfo(host, None)
        except OSError as error:
            raise OSError(f"{host} cannot be reached ({error.strerror or error})") from None
