"""Fixtures: tiny random pipelines of every family that pruning knows, and calls of them in which rows are dropped."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tiny_pipelines() -> ModuleType:
    import tiny_pipelines

    return tiny_pipelines


@pytest.fixture(scope="session")
def calls_module() -> ModuleType:
    import pruned_calls

    return pruned_calls


@pytest.fixture(scope="session")
def pruned_calls(calls_module: ModuleType, tiny_pipelines: ModuleType) -> Any:
    return calls_module.PrunedCalls(tiny_pipelines)


@pytest.fixture(scope="session")
def call(pruned_calls: Any) -> Callable[..., Any]:
    """Calls a tiny pipeline; see PrunedCalls.call."""
    return pruned_calls.call


@pytest.fixture(scope="session")
def unpruned(pruned_calls: Any) -> Callable[..., Any]:
    """The call without pruning, made once."""
    return pruned_calls.unpruned


@pytest.fixture(scope="session")
def assert_same(calls_module: ModuleType) -> Callable[..., None]:
    return calls_module.assert_same


@pytest.fixture(scope="session")
def run_pruned(calls_module: ModuleType) -> Callable[..., Any]:
    """Calls a pipeline of the test's own; see pruned_calls.run."""
    return calls_module.run
