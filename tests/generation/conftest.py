"""Fixture: tiny random pipelines of every family that pruning knows."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def tiny_pipelines() -> ModuleType:
    return load_tiny_pipelines()


def load_tiny_pipelines() -> ModuleType:
    """tests/generation/tiny_pipelines.py: this folder is no package."""
    if "tiny_pipelines" not in sys.modules:
        spec = importlib.util.spec_from_file_location("tiny_pipelines", Path(__file__).with_name("tiny_pipelines.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules["tiny_pipelines"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["tiny_pipelines"]
