"""ComfyUI nodes for the tests, as a single file in custom_nodes: pictures that none of its own nodes makes, other
packs' odd links, and a look into the process."""

# ruff: noqa: N802 - the names are ComfyUI's

import json
import sys

import torch
from comfy import model_management


class Pictures:
    """A made-up batch or list of pictures: blurred noise, so that a scorer tells them apart."""

    KINDS = ("batch", "one", "unlike", "alpha", "nan", "empty")
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
        pictures = [self.picture(side + (8 * i if kind == "unlike" else 0), i, random) for i in range(count)]
        if kind == "unlike":
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
        return torch.nn.functional.avg_pool2d(noise[None], size, 1, blur, count_include_pad=False)[0].movedim(0, -1)


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


class Inside:
    """What the process has imported and what ComfyUI holds in memory, as JSON."""

    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    @classmethod
    def IS_CHANGED(cls):
        return float("nan")

    RETURN_TYPES = ()
    FUNCTION = "look"
    CATEGORY = "tests"

    def look(self):
        modules = list(sys.modules.items())
        files = {name: getattr(module, "__file__", None) for name, module in modules if "ma_agiqa_core" in name}
        held = [type(loaded.model.model).__name__ for loaded in model_management.current_loaded_models if loaded.model]
        return {"ui": {"text": [json.dumps({"core": files, "imported": [name for name, _ in modules], "held": held})]}}


NODE_CLASS_MAPPINGS = {"TestPictures": Pictures, "TestNumbers": Numbers, "TestInside": Inside}
