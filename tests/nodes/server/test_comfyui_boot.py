"""A ComfyUI that dies fails its tests at once, and they show what it printed."""

import time
from pathlib import Path

import pytest
from comfyui_server import BOOT_LIMIT, comfyui_server


def test_a_server_that_dies_at_boot_shows_its_log(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "main.py").write_text("raise SystemExit('no module named comfy_aimdo')\n")
    begun = time.monotonic()

    with (
        pytest.raises(RuntimeError, match=r"Expected ComfyUI to start.*\n.*no module named comfy_aimdo"),
        comfyui_server(checkout, tmp_path, lambda pack: pack.mkdir(parents=True)),
    ):
        pass

    assert time.monotonic() - begun < BOOT_LIMIT / 4
