"""Trains in children that kill themselves, each at a moment of its own.

    python killed_runs.py < jobs, one JSON object a line; for each comes the number of the signal that ended its child

The children are forked, since importing torch takes seconds, but not from the tests' own process: where autograd has
once used threads, it does not work in a fork.
"""

import json
import os
import pickle
import shutil
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ma_agiqa_core.labels.splits import make_split
from ma_agiqa_core.training import state as training_state
from ma_agiqa_core.training.progress import TrainingProgress
from ma_agiqa_core.training.train import train


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KilledAfterStep(TrainingProgress):
    """Of the whole run, from 1; 0: never."""

    def __init__(self, step: int) -> None:
        self.left = step

    def stepped(self) -> None:
        self.left -= 1
        if self.left == 0:
            die()


def killed_at_state(moment: str, call: int) -> None:
    """From now on the process dies when it writes its state for this time: half-way, or around the move."""
    calls = 0
    save, move = training_state.save_file, Path.replace

    def save_file(tensors: Any, path: Path, metadata: Any) -> None:
        nonlocal calls
        calls += 1
        save(tensors, path, metadata)
        if calls == call and moment == "half written":
            shutil.copyfile(path, path.with_name(".tmpAbC123"))  # safetensors' own name for it
            os.truncate(path, path.stat().st_size // 2)
            die()

    def replace_file(self: Path, target: Path) -> Path:
        is_it = calls == call and Path(target).name == "state.safetensors"
        if is_it and moment == "before the move":
            die()
        moved = move(self, target)
        if is_it:
            die()
        return moved

    training_state.save_file = save_file  # type: ignore[assignment]
    Path.replace = replace_file  # type: ignore[method-assign, assignment]


def run(job: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    settings, labelled = pickle.loads(Path(job["inputs"]).read_bytes())
    if "moment" in job:
        killed_at_state(job["moment"], job["call"])
    settings = replace(settings, **job["fields"])
    progress = KilledAfterStep(job.get("step", 0))
    train(settings, labelled, make_split(labelled), Path(job["out"]), device="cpu", progress=progress)


def ended_by(job: dict[str, Any]) -> int:
    child = os.fork()
    if child == 0:
        try:
            run(job)
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    return os.waitpid(child, 0)[1] & 0x7F


if __name__ == "__main__":
    for line in sys.stdin:
        print(ended_by(json.loads(line)), flush=True)
