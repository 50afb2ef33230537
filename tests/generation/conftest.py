"""Fixtures: tiny random pipelines of every family that pruning knows, and calls of them in which rows are dropped."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def load_beside(name: str) -> ModuleType:
    """A module of this folder: it is no package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def tiny_pipelines() -> ModuleType:
    return load_beside("tiny_pipelines")


@pytest.fixture(scope="session")
def pruned_calls(tiny_pipelines: ModuleType) -> Any:
    return load_beside("pruned_calls").PrunedCalls(tiny_pipelines)


@pytest.fixture(scope="session")
def call(pruned_calls: Any) -> Callable[..., Any]:
    """Calls a tiny pipeline; see PrunedCalls.call."""
    return pruned_calls.call


@pytest.fixture(scope="session")
def unpruned(pruned_calls: Any) -> Callable[..., Any]:
    """The call without pruning, made once."""
    return pruned_calls.unpruned


@pytest.fixture(scope="session")
def assert_same(pruned_calls: Any) -> Callable[..., None]:
    return load_beside("pruned_calls").assert_same


@pytest.fixture(scope="session")
def run_pruned(pruned_calls: Any) -> Callable[..., Any]:
    """Calls a pipeline of the test's own; see pruned_calls.run."""
    return load_beside("pruned_calls").run
