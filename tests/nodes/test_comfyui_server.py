"""The nodes in the real ComfyUI, through its HTTP interface and its websocket. One server serves all tests."""

import json
import os
from typing import Any

import pytest

pytestmark = pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason="COMFYUI_PATH names no checkout of ComfyUI")


def test_the_pack_is_there_and_nothing_else(comfyui: Any) -> None:
    info = comfyui.get("/object_info")
    ours = {name for name, node in info.items() if node["python_module"] == "custom_nodes.ma-agiqa"}
    assert ours == {name for name in info if name.startswith("MaAgiqa")}
    assert "IMPORT FAILED: " + str(comfyui.base) not in comfyui.log
