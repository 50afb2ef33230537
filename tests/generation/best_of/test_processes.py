"""Candidates spread over processes: the same winners as in one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import process_runs
import pytest
from project_paths import ROOT, SUPPORT

SCRIPT = SUPPORT / "process_runs.py"
RUNS = ["pruned", "two stages", "all finished", "sequential", "one candidate", "rounds", "by rank", "afterwards"]


def start(folder: Path, **environment: str) -> "subprocess.Popen[str]":
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process: "subprocess.Popen[str]") -> dict[str, Any]:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(output.splitlines()[-1])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What one process alone made, and what each of two did."""
    folders = [tmp_path_factory.mktemp(name) for name in ("alone", "both")]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        launched = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    processes = [start(folders[1], RANK=str(rank), LOCAL_RANK=str(rank), **launched) for rank in range(2)]
    alone = json.loads(json.dumps(process_runs.runs_of_this_process(str(folders[0]))))
    outcomes = [alone, *(said(process) for process in processes)]
    assert [outcome["processes"] for outcome in outcomes] == [1, 2, 2]
    assert [len(list(folder.iterdir())) for folder in folders] == [2, 2]
    return [outcome["made"] for outcome in outcomes]


@pytest.mark.parametrize("run", RUNS)
def test_two_processes_choose_what_one_chooses(made: list[dict[str, Any]], run: str) -> None:
    expected, *both = [outcome[run] for outcome in made]
    assert "error" not in expected
    for one in both:
        for name in ("seeds", "kept", "seen"):
            assert one[name] == expected[name]
        for name in ("scores", "pictures"):
            assert one[name] == pytest.approx(expected[name], rel=1e-4)
        if run != "sequential":  # each process compares with its own candidates only
            assert one["evaluations"] == expected["evaluations"]


def test_only_the_first_process_writes(made: list[dict[str, Any]]) -> None:
    alone, first, second = [outcome["pruned"] for outcome in made]
    assert len(alone["files"]) == 2
    assert first["files"] == alone["files"]
    assert second["files"] == []
    assert first["observed"] == second["observed"] == pytest.approx(alone["observed"], rel=1e-4)


def test_one_that_fails_ends_the_others(made: list[dict[str, Any]]) -> None:
    alone, first, second = [outcome["failing"]["error"] for outcome in made]
    assert alone == second == "ZeroDivisionError: broken"
    assert first == "OtherProcessError: Process 1 failed: ZeroDivisionError: broken"
