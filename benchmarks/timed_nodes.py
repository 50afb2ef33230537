"""Runs inside ComfyUI, as a single file in custom_nodes: photographs, the bare core call, and what every node takes.

`benchmarks.nodes` puts it there and reads the times from GET /timings.
"""

import contextlib
import importlib
import sys
import time
from pathlib import Path

import execution
import numpy as np
import torch
from aiohttp import web
from PIL import Image
from server import PromptServer

COUNT, SIDE = 8, 1024
_timings = []  # of every node that ran: {"node", "wall", "own"}, seconds
_core = {}


class TimedPhotographs:
    """Eight photographs, 1024 px, with faint noise of their own for each seed: no cache has seen them."""

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"seed": ("INT", {"default": 0})}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "make"
    CATEGORY = "benchmarks"

    def make(self, seed):
        demo = _module(".demo")
        folder = Path(demo.__file__).parent
        photographs = [Image.open(folder / f"{name}.jpg").convert("RGB") for name in demo.PHOTOGRAPHS]
        pictures = [
            np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box), np.float32) / 255
            for picture in photographs
            for box in ((0, 0, picture.height, picture.height), (20, 10, picture.height - 10, picture.height - 20))
        ]
        batch = torch.from_numpy(np.stack(pictures[:COUNT]))
        noise = torch.randn(batch.shape, generator=torch.Generator().manual_seed(seed))
        return ((batch + 0.004 * noise).clamp(0, 1),)


class TimedCoreCall:
    """`load_scorer("lite").score(batch)` and nothing else is timed: the batch lies ready as the core wants it."""

    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"images": ("IMAGE",)}}

    RETURN_TYPES = ()
    FUNCTION = "score"
    CATEGORY = "benchmarks"

    def score(self, images):
        if "lite" not in _core:
            _core["lite"] = _module().load_scorer("lite", device="cpu")
            _watch_core(type(_core["lite"]))
        scores = _core["lite"].score(images.movedim(-1, 1).contiguous())
        return {"ui": {"text": [f"{score:.6f}" for score in scores.tolist()]}}


def _watch_core(kind):
    """From now on every call of the core is timed, those from within nodes too."""
    score = kind.score

    def timed(scorer, *args, **kwargs):
        with _timing("core call" if scorer is _core["lite"] else "core call inside"):
            return score(scorer, *args, **kwargs)

    kind.score = timed


@contextlib.contextmanager
def _timing(name):
    wall, own = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        _timings.append({"node": name, "wall": time.perf_counter() - wall, "own": time.process_time() - own})


@PromptServer.instance.routes.get("/timings")
async def timings(_):
    """What was timed since the last time somebody asked."""
    told = web.json_response(_timings)
    _timings.clear()
    return told


def _module(name=""):
    """The pack's own core, or a module of it."""
    pack = next(module for module in sys.modules if module.endswith("ma-agiqa"))
    return importlib.import_module(f"{pack}.ma_agiqa_core{name}")


async def _timed(server, dynprompt, caches, node_id, *args, **kwargs):
    with _timing(dynprompt.get_node(node_id)["class_type"]):
        return await _execute(server, dynprompt, caches, node_id, *args, **kwargs)


_execute, execution.execute = execution.execute, _timed
NODE_CLASS_MAPPINGS = {"TimedPhotographs": TimedPhotographs, "TimedCoreCall": TimedCoreCall}
