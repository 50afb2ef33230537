"""Why torch refused a pickle, without torch's advice to load it in a way that runs what is in it."""

import re


def why_refused(error: Exception) -> str:
    """What in a pickle is no tensor, in a few words.

    Args:
        error: Raised by `torch.load` with `weights_only=True`.
    """
    needed = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f"it needs {needed[1].rstrip('.')}" if needed else "it is no pickle of tensors"
