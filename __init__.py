"""ComfyUI's door to the nodes.

Nothing of ours is imported before ComfyUI asks for it, since pytest imports this file as well. What fails then is
logged with its own traceback and with what to install, and ComfyUI continues without these nodes.
"""

import logging
import sys
from pathlib import Path

WEB_DIRECTORY = "web"

_logger = logging.getLogger(__name__)


async def comfy_entrypoint():
    """The extension that ComfyUI asks for its nodes."""
    from comfy_api.latest import ComfyExtension  # noqa: TID251 (this is the door)

    class MaAgiqaExtension(ComfyExtension):
        async def get_node_list(self):
            return _nodes()

    return MaAgiqaExtension()


def _nodes():
    try:
        from .nodes import node_classes

        return node_classes()
    except Exception:
        _logger.exception(
            "[ma-agiqa] its nodes are missing. Install what they need with ComfyUI's own Python, then restart ComfyUI: "
            '"%s" -m pip install -r "%s"',
            sys.executable,
            Path(__file__).with_name("requirements.txt"),
        )
        raise  # ComfyUI marks the pack as failed and continues
