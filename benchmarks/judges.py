"""Speed, FLOPs and memory of the judges beside the flows of their published code.

python -m benchmarks.judges                     all of them, at the scale of the fixtures and at a larger one
python -m benchmarks.judges --scale fixture     at one scale; --turns and --batch as they say
"""

from __future__ import annotations

import importlib
import importlib.util

import click

from .machine import machine

PARTS = ("language_judges", "clip_judges")  # each prints its tables, by `run(scale, batch, turns)` or its own command


@click.command()
@click.option("--scale", type=click.Choice(["fixture", "reduced", "both"]), default="both", show_default=True)
@click.option("--batch", default=8, show_default=True, type=click.IntRange(min=1), help="Pictures at a time.")
@click.option("--turns", default=5, show_default=True, type=click.IntRange(min=1), help="Of each flow.")
def main(scale: str, batch: int, turns: int) -> None:
    import torch

    torch.set_num_threads(1)
    print(machine(), flush=True)
    for part in PARTS:
        if importlib.util.find_spec(f"{__package__}.{part}") is not None:
            module = importlib.import_module(f".{part}", __package__)
            if hasattr(module, "run"):
                module.run(scale, batch, turns)
            else:
                module.main(["--turns", str(turns)], standalone_mode=False)


if __name__ == "__main__":
    main()
