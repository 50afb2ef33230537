"""ComfyUI's door to the nodes. Nothing else is imported here, so that it opens wherever this repository lies."""

import logging

WEB_DIRECTORY = "web"


async def comfy_entrypoint():
    """The nodes as ComfyUI asks for them; where they cannot be imported, none, and the log says what to install."""
    from comfy_api.latest import ComfyExtension

    class MaAgiqa(ComfyExtension):
        async def get_node_list(self):
            try:
                from .nodes import NODES
            except Exception:
                logging.exception("[ma-agiqa] its nodes are missing")
                return []
            return list(NODES)

    return MaAgiqa()
