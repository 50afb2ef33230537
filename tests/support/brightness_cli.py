"""The command line with a scorer that needs no weights: mean brightness, 0 to 1.

`python brightness_cli.py ARGUMENTS` is `ma-agiqa ARGUMENTS`. `python brightness_cli.py --serve` reads
command lines, one JSON list a line, and runs each in a fork of itself, so that many runs need the seconds
of one start; it answers with the process id, then with the exit code (negative: the signal that ended it).
"""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from ma_agiqa_core import MaAgiqaError, cli
from ma_agiqa_core.cli import (
    scoring_run,
    terminal,  # all before the fork
)
from ma_agiqa_core.records import writer as record_writer
from ma_agiqa_core.scorers.callable import CallableScorer

assert record_writer
assert terminal


def load_scorer(model: str, **options: object) -> CallableScorer:
    """`MODEL@REVISION`; some models misbehave in ways that tests ask for."""
    name, _, revision = model.partition("@")
    if name == "missing":
        raise MaAgiqaError("Expected a known model, got 'missing'. This version loads 'lite'.")
    calls = iter(range(10**9))

    def score(pictures: list[Any], prompts: list[str] | None) -> list[float]:
        if name == "hangs" and next(calls) >= 2:
            Path(os.environ["HANGS"]).touch()
            threading.Event().wait(60)  # a batch that takes for ever
        if name == "slow":
            threading.Event().wait(0.002)
        if name == "small-memory" and len(pictures) > 2:
            raise MemoryError
        if name == "stumbles" and any(np.asarray(picture).max() < 8 for picture in pictures):
            raise ValueError("too dark")
        if name == "needs-prompt":
            return [float(len(prompt)) for prompt in prompts or []]
        return [float("nan") if name == "nan" else float(np.asarray(picture).mean()) / 255 for picture in pictures]

    return CallableScorer(
        score,
        name=name,
        revision=revision or "1",
        high=100.0 if name == "needs-prompt" else 1.0,
        needs_prompt=name == "needs-prompt",
        relative=name == "relative",
        quantiles=() if name == "relative" else (0.0, 0.5, 1.0),
        trained_on="nothing",
    )


def serve() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            quiet = os.open(os.devnull, os.O_RDWR)
            for stream in range(3):
                os.dup2(quiet, stream)
            sys.argv[1:] = json.loads(line)
            cli.main()
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    setattr(scoring_run, "load_scorer", load_scorer)  # noqa: B010 (a stand-in of fewer options)
    serve() if sys.argv[1:] == ["--serve"] else cli.main()
