"""Runs of `score_dataset` as processes that can be killed, interrupted and starved.

`python dataset_runs.py` reads one run a line as JSON, the arguments of `score_dataset` with the name of a judge of
`brightness_judge` as `model`, and runs each in a fork of itself, so that many runs need the seconds of one start. It
answers with the process id, then with the exit code (negative: the signal that ended it).
"""

import json
import os
import resource
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import filelock
import pyarrow.compute
import pyarrow.parquet
from brightness_judge import judge

from ma_agiqa_core import MaAgiqaError
from ma_agiqa_core.scale import parts
from ma_agiqa_core.scale.dataset import score_dataset
from ma_agiqa_core.scale.engines import local

IMPORTED_BEFORE_THE_FORK = (
    parts,
    local,
    filelock,
    pyarrow,
)  # somebody else, whom a run may become, need not be able to read them
REFUSED, NO_SPACE, BUG = 2, 3, 70


class Runs:
    """Starts runs, and ends them."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, **run: Any) -> int:
        """Starts a run; gives its process id. `user` is whom it runs as, `bytes` the size that files may have."""
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(run, default=str) + "\n")
        self._server.stdin.flush()
        return self._answer()

    def exit_code(self) -> int:
        """Of the run that was started last."""
        return self._answer()

    def run(self, **run: Any) -> int:
        """Starts one, and waits for its exit code."""
        self.start(**run)
        return self._answer()

    def close(self) -> None:
        """Ends the server."""
        self._server.kill()
        self._server.communicate()

    def _answer(self) -> int:
        assert self._server.stdout is not None
        return int(self._server.stdout.readline())


def _run(run: dict[str, Any]) -> int:
    if limit := run.pop("bytes", None):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if (user := run.pop("user", None)) is not None:
        os.seteuid(user)
    log = run.pop("log", None)
    try:
        model = judge(run.pop("model", "brightness"), seconds=run.pop("seconds", 0.0))
        score_dataset(run.pop("source"), model, **run)
    except (MaAgiqaError, OSError) as error:
        if log:
            Path(log).write_text(str(error), "utf-8")
        return NO_SPACE if isinstance(error, OSError) and not isinstance(error, MaAgiqaError) else REFUSED
    except BaseException:
        traceback.print_exc()
        return BUG
    return 0


def _serve() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            os._exit(_run(json.loads(line)))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
