"""Runs the fuzz harnesses of tests/support/fuzz_targets.py for some minutes each, with new inputs every time.

python -m benchmarks.fuzz [TARGET ...] [--minutes 10] [--seed 0]

Prints one line a target: inputs, minutes, minutes of the processor, findings. Exit code 1 if there is any; hypothesis
prints the smallest input.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

EXAMPLES = 300  # of a round


def main() -> int:
    from fuzz_targets import TARGETS, quietly

    from benchmarks.machine import machine

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all without")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(machine(), flush=True)
    findings = 0
    for name in arguments.targets or TARGETS:
        target = TARGETS[name]
        busy = time.process_time()
        count, minutes, found = fuzz(target.inputs, quietly(target.check), arguments.minutes, arguments.seed)
        findings += found
        busy = (time.process_time() - busy) / 60
        print(f"| {name} | {target.reads} | {count:,} | {minutes:.1f} | {busy:.1f} | {found} |", flush=True)
    return 1 if findings else 0


def fuzz(inputs, check, minutes: float, first_seed: int) -> tuple[int, float, int]:
    """Draws inputs until the time is over or three were findings: how many inputs, minutes and findings there were."""
    from hypothesis import HealthCheck, Phase, given, seed, settings

    count = found = 0
    started, number = time.monotonic(), first_seed

    def counted(drawn):
        nonlocal count
        count += 1
        check(drawn)

    while time.monotonic() - started < 60 * minutes and found < 3:
        number += 1
        run = settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )(seed(number)(given(inputs)(counted)))
        try:
            run()
        except Exception:
            found += 1
            traceback.print_exc()
    return count, (time.monotonic() - started) / 60, found


if __name__ == "__main__":
    sys.exit(main())
