"""Started by test_processes.py as two processes, and called in its own: runs best_of_n in several ways."""

import json
import sys
from typing import Any

import numpy as np
import tiny_pipelines
import torch

from ma_agiqa_core import CallableScorer, EnsembleScorer
from ma_agiqa_core.generation import best_of_n
from ma_agiqa_core.generation.best_of.processes import Processes

CONTRAST = CallableScorer(lambda images, _: [float(np.std(image)) / 128 for image in images], name="contrast")
BRIGHT = CallableScorer(lambda images, _: [float(np.mean(image)) / 255 for image in images], name="bright")
BY_RANK = EnsembleScorer([(CONTRAST, 2.0), (BRIGHT, 1.0)], combine="rank")


def outcome(pipe: Any, scorer: Any, side: int, **options: Any) -> dict[str, Any]:
    options = {"n": 5, "keep": 2, "seed": 3, "prune_at": {0.5: 3}, "batch_size": 2} | options
    call = {"num_inference_steps": 4, "height": side, "width": side, "guidance_scale": 3.0, "output_type": "pt"}
    try:
        result = best_of_n(pipe, scorer, "a red fox", **options, **call)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {
        "seeds": result.seeds,
        "scores": result.scores,
        "observed": result.observed,
        "kept": [step.kept for step in result.history],
        "seen": [sorted(step.scores) for step in result.history],
        "evaluations": result.network_evaluations,
        "pictures": [float(image.double().sum()) for image in result.images],
        "files": [path.name for path in result.paths],
    }


def runs_of_this_process(folder: str) -> dict[str, Any]:
    """What came of every way, and how many processes took part."""
    torch.set_num_threads(1)
    pipe, processes = tiny_pipelines.pipeline("sd"), Processes()
    calls: list[int] = []

    def fail_in_the_last(images: list[Any], _: object) -> list[float]:
        calls.append(1)
        if len(calls) > 1 and processes.index == processes.count - 1:
            raise ZeroDivisionError("broken")
        return [0.5] * len(images)

    runs: dict[str, dict[str, Any]] = {
        "pruned": {"observe": BRIGHT, "save_dir": folder},
        "two stages": {"prune_at": {0.3: 3, 0.7: 1}, "keep": 1},
        "all finished": {"prune_at": None},
        "sequential": {"strategy": "sequential"},
        "one candidate": {"n": 1, "keep": 1, "prune_at": {0.5: 1}},
        "rounds": {"min_score": 5.0, "max_rounds": 2},
    }
    made = {name: outcome(pipe, CONTRAST, tiny_pipelines.SIDE, **options) for name, options in runs.items()}
    made["by rank"] = outcome(pipe, BY_RANK, tiny_pipelines.SIDE)
    made["failing"] = outcome(pipe, CallableScorer(fail_in_the_last, name="failing"), tiny_pipelines.SIDE)
    made["afterwards"] = outcome(pipe, CONTRAST, tiny_pipelines.SIDE)
    return {"processes": processes.count, "made": made}


if __name__ == "__main__":
    print(json.dumps(runs_of_this_process(sys.argv[1])))
