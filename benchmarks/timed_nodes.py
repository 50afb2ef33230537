"""Runs inside ComfyUI, as a single file in custom_nodes: photographs, the bare core call, and what every node takes.

`benchmarks.nodes` puts it there and reads the times from GET /timings.
"""

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
        demo = _module("demo")
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
            _core["lite"] = _module("scorer").load_scorer("lite", device="cpu")
        ready = images.movedim(-1, 1).contiguous()
        wall, own = time.perf_counter(), time.process_time()
        scores = _core["lite"].score(ready)
        _timings.append({"node": "core call", "wall": time.perf_counter() - wall, "own": time.process_time() - own})
        return {"ui": {"text": [f"{score:.6f}" for score in scores.tolist()]}}


@PromptServer.instance.routes.get("/timings")
async def timings(_):
    """What was timed since the last time somebody asked."""
    told = web.json_response(_timings)
    _timings.clear()
    return told


def _module(name):
    pack = next(module for module in sys.modules if module.endswith("ma-agiqa"))
    return importlib.import_module(f"{pack}.ma_agiqa_core.{name}")


async def _timed(server, dynprompt, caches, node_id, *args, **kwargs):
    wall, own = time.perf_counter(), time.process_time()
    try:
        return await _execute(server, dynprompt, caches, node_id, *args, **kwargs)
    finally:
        spent = {"wall": time.perf_counter() - wall, "own": time.process_time() - own}
        _timings.append({"node": dynprompt.get_node(node_id)["class_type"], **spent})


_execute, execution.execute = execution.execute, _timed
NODE_CLASS_MAPPINGS = {"TimedPhotographs": TimedPhotographs, "TimedCoreCall": TimedCoreCall}
