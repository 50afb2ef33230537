"""ComfyUI nodes for the tests, as a single file in custom_nodes: pictures that none of its own nodes makes, other
packs' odd links, and a look into the process."""

# ruff: noqa: N802 - the names are ComfyUI's

import gc
import sys
from collections import Counter

import torch
from aiohttp import web
from comfy import model_management
from server import PromptServer
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

NETWORKS = ("LiteNetwork", "MaAgiqa", "CLIPModel")
finished: Counter[str] = Counter()  # how often networks gave an answer


def _tell(module, _):
    name = type(module).__name__
    if name in NETWORKS:
        server = PromptServer.instance
        server.send_sync("test_network", {"name": name, "prompt_id": server.last_prompt_id}, server.client_id)


def _count(module, *_):
    finished[type(module).__name__] += type(module).__name__ in NETWORKS


register_module_forward_pre_hook(_tell)
register_module_forward_hook(_count)


class Pictures:
    """A made-up batch or list of pictures: blurred noise, so that a scorer tells them apart."""

    KINDS = ("batch", "one", "mixed", "alpha", "nan", "empty")
    OUTPUT_IS_LIST = (True,)

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "kind": (cls.KINDS,),
                "count": ("INT", {"default": 4, "min": 1, "max": 64}),
                "side": ("INT", {"default": 64, "min": 8, "max": 8192}),
            }
        }

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "make"
    CATEGORY = "tests"

    def make(self, kind, count, side):
        random = torch.Generator().manual_seed(0)
        count = 1 if kind == "one" else count
        pictures = [self.picture(side + (8 * i if kind == "mixed" else 0), i, random) for i in range(count)]
        if kind == "mixed":
            return ([picture[None] for picture in pictures],)
        batch = torch.stack(pictures)
        if kind == "alpha":
            batch = torch.cat([batch, batch[..., :1]], dim=-1)
        if kind == "nan":
            batch[-1, 0, 0, 0] = torch.nan
        return ([batch[:0] if kind == "empty" else batch],)

    @staticmethod
    def picture(side, blur, random):
        noise = torch.rand(3, side, side, generator=random)
        size = 2 * blur + 1
        pixels = torch.nn.functional.avg_pool2d(noise[None], size, 1, blur, count_include_pad=False)[0].movedim(0, -1)
        return (pixels * 255).round() / 255  # as in the files that are compared


class Numbers:
    """A list of numbers, one output item each."""

    OUTPUT_IS_LIST = (True,)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"numbers": ("STRING", {"default": "1, 2, 3"})}}

    RETURN_TYPES = ("FLOAT",)
    FUNCTION = "make"
    CATEGORY = "tests"

    def make(self, numbers):
        return ([float(number) for number in numbers.split(",")],)


@PromptServer.instance.routes.get("/test_inside")
async def inside(_):
    """What the process has imported and holds: a prompt that asked would empty ComfyUI's cache."""
    modules = list(sys.modules.items())
    loaded = [entry.model.model for entry in model_management.current_loaded_models if entry.model]
    gc.collect()
    kinds = [type(thing) for thing in gc.get_objects() if isinstance(thing, torch.nn.Module)]
    alive = Counter(kind.__name__ for kind in kinds if ".nodes." not in kind.__module__)  # less what carries them
    return web.json_response(
        {
            "core": {name: getattr(module, "__file__", None) for name, module in modules if "ma_agiqa_core" in name},
            "loaded": [type(model).__name__ for model in loaded],
            "alive": {name: alive[name] for name in NETWORKS},
            "finished": {name: finished[name] for name in NETWORKS},
        }
    )


NODE_CLASS_MAPPINGS = {"TestPictures": Pictures, "TestNumbers": Numbers}
