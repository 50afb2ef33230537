"""What the ComfyUI nodes cost, and what the best-of-N sampler saves.

    COMFYUI_PATH=/path/to/ComfyUI python -m benchmarks.nodes                    all, on one thread
    COMFYUI_PATH=/path/to/ComfyUI python -m benchmarks.nodes --only overhead    or sampler, patches, judge

overhead  Score Images for a batch of 8 at 1024 px: everything that ComfyUI does for the node, the strip on it included,
          beside the bare call of the core's scorer in the same process, in turns, and beside the call that it makes
sampler   every sampler of ComfyUI in Best-of-N Sampler, on a tiny random UNet (`node_sampling`): calls of the diffusion
          model beside those of an unpruned run, and how near the survivors are to its pictures
patches   every model patch of ComfyUI's core in Best-of-N Sampler: exact, or refused by name (`node_patches`)
judge     what choosing with the judge in memory costs beside sampling one candidate (`node_judge`)

ComfyUI runs as a child process in a folder of its own; see `timed_nodes`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from . import node_judge, node_patches, node_sampling
from .machine import machine

ROOT = Path(__file__).parents[1]
SERVER = ROOT / "tests" / "support" / "comfyui_server.py"
OVERHEAD_BAR = 0.05  # of the core call
CORE, INSIDE, NODE, GATE = "core call", "core call inside", "MaAgiqaScoreImages", "MaAgiqaQualityGate"
LABELS = {
    CORE: "the core call alone",
    NODE: "Score Images",
    INSIDE: "… of which the core call",
    GATE: "Image Quality Gate, the same pictures: scores remembered",
}


@click.command()
@click.option("--only", type=click.Choice(["overhead", "sampler", "patches", "judge"]), help="One part.")
@click.option("--turns", default=45, show_default=True, type=click.IntRange(min=3), help="Of each.")
def main(only: str | None, turns: int) -> None:
    if "COMFYUI_PATH" not in os.environ:
        raise click.UsageError("Expected COMFYUI_PATH with a checkout of ComfyUI, got none. Set it.")
    comfyui = Path(os.environ["COMFYUI_PATH"]).resolve()
    print(machine(), flush=True)
    if only in (None, "overhead"):
        print(overhead_table(timings(comfyui, turns)), flush=True)
    if only in (None, "sampler"):
        print(node_sampling.table(node_sampling.measured(comfyui)), flush=True)
    if only in (None, "patches"):
        print(node_patches.table(node_patches.measured(comfyui)), flush=True)
    if only in (None, "judge"):
        print(node_judge.table(node_judge.measured(comfyui)))


def timings(comfyui: Path, turns: int) -> dict[str, list[dict[str, float]]]:
    """Seconds of each turn, by the clock ("wall") and by ComfyUI's own process time ("own"); see `LABELS`."""
    server_module = _server_module()
    times: dict[str, list[dict[str, float]]] = {name: [] for name in LABELS}
    with tempfile.TemporaryDirectory() as base, server_module.comfyui_server(comfyui, Path(base), _install) as server:
        for turn in range(turns + 1):
            node, core = _prompts(turn)
            for prompt in (node, core) if turn % 2 else (core, node):  # neither is always the second
                ended = server.run(prompt).ending
                if ended != "execution_success":
                    raise RuntimeError(f"Expected a result, got {ended}:\n{server.log[-4000:]}")
            found = {entry["node"]: entry for entry in server.get("/timings")}
            if turn:  # the first loads the network
                for name in LABELS:
                    times[name].append(found[name])
    return times


def overhead_table(times: dict[str, list[dict[str, float]]]) -> str:
    def ratio(name: str, clock: str, to: str = CORE) -> float:
        return statistics.median(a[clock] / b[clock] for a, b in zip(times[name], times[to], strict=True))

    lines = [
        f"\nBatch of 8 at 1024 px, `lite`, one thread, {len(times[CORE])} interleaved turns with new pictures each; "
        "medians (least–most).\n",
        "| what | s, clock | s, process time | of the core call alone, clock | process time |",
        "|---|---|---|---|---|",
    ]
    for name, label in LABELS.items():
        spread = []
        for clock in ("wall", "own"):
            seconds = [entry[clock] for entry in times[name]]
            spread.append(f"{statistics.median(seconds):.3f} ({min(seconds):.3f}–{max(seconds):.3f})")
        lines.append(f"| {label} | {' | '.join(spread)} | {ratio(name, 'wall'):.1%} | {ratio(name, 'own'):.1%} |")
    over, added = ([ratio(NODE, clock, to) - 1 for clock in ("own", "wall")] for to in (CORE, INSIDE))
    verdict = "met" if over[0] < OVERHEAD_BAR else f"MISSED ({over[0]:.2%})"
    lines.append(
        f"\nOverhead of Score Images, median of the turns' ratios: {over[0]:.2%} by process time, {over[1]:.2%} by the "
        f"clock. Bar, under {OVERHEAD_BAR:.0%}: {verdict}.\nOver the core call that it makes itself, which a busy "
        f"machine blurs less: {added[0]:.2%} and {added[1]:.2%}."
    )
    return "\n".join(lines)


def _server_module() -> ModuleType:
    """The tests' own way to run ComfyUI."""
    spec = importlib.util.spec_from_file_location("comfyui_server", SERVER)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _install(pack: Path) -> None:
    """The whole checkout: the demo's photographs are not in the registry's archive."""
    pack.parent.mkdir(parents=True)
    pack.symlink_to(ROOT)
    shutil.copy(Path(__file__).with_name("timed_nodes.py"), pack.parent)


def _prompts(turn: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """With the nodes, and with the core alone, on the same pictures."""

    def node(class_type: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": class_type, "inputs": inputs}

    settings = {"semantic_model": "from checkpoint", "precision": "auto", "device": "default", "cache_vectors": False}
    shared = {
        "photographs": node("TimedPhotographs", seed=turn),
        "scorer": node("MaAgiqaLoadScorer", model="lite", **settings),
    }
    nodes = {
        **shared,
        "score": node(NODE, scorer=["scorer", 0], images=["photographs", 0], prompt=""),
        "report": node("PreviewAny", source=["score", 3]),
        "gate": node(GATE, scorer=["scorer", 0], images=["score", 0], prompt="", min_score=-1.0),
        "count": node("PreviewAny", source=["gate", 1]),
    }
    return nodes, {**shared, "core": node("TimedCoreCall", images=["photographs", 0])}


if __name__ == "__main__":
    main()
