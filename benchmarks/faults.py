"""The long fault tests, engines and the wheel among them: `pytest -m long`, with the machine's line before.

python -m benchmarks.faults [PYTEST ARGUMENTS]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.machine import machine

ROOT = Path(__file__).parents[1]


def main() -> int:
    print(machine(), flush=True)
    command = [sys.executable, "-m", "pytest", "-m", "long", "-v", "--durations=0", *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
