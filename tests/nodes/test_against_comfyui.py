"""Runs this folder once more against the real ComfyUI, so that the fakes cannot drift."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ITS_OWN_WAY = [Path(__file__), *HERE.rglob("test_comfyui_*.py")]  # the others start ComfyUI themselves
LIMIT = 1500  # seconds


@pytest.mark.skipif("MA_AGIQA_TEST_NODES_AGAINST" in os.environ, reason="this is that run")
@pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason="COMFYUI_PATH names no checkout of ComfyUI")
def test_the_node_tests_pass_against_the_real_modules() -> None:
    options = ["-q", "-p", "no:cacheprovider", *(f"--ignore={path}" for path in ITS_OWN_WAY)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(HERE)],
        env={**os.environ, "MA_AGIQA_TEST_NODES_AGAINST": "comfyui"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
