"""What choosing with the judge that is in memory already costs, as a share of sampling one candidate.

    COMFYUI_PATH=/path/to/ComfyUI python -m benchmarks.node_judge

Krea 2 Turbo and its text encoder, Qwen3-VL 4B, as ComfyUI builds them, with all their layers, an eighth of their width
and random numbers, on one thread of a processor: eight steps of one candidate at 256 px, and VQAScore of eight pictures
of that size by CLIP as Image Scorer. An eighth of the width leaves what both compute in the same proportion, but for
attention, which counts eight times as much in both.
"""

from __future__ import annotations

import importlib
import statistics
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .comfyui_child import main_or_child, opened, run_in_comfyui
from .node_sampling import plain

SIDE, STEPS, PICTURES, TURNS = 256, 8, 8, 3
BAR = 1.0  # of one candidate's sampling
WIDTH = 8  # times narrower than the published model
DIFFUSION = {"image_model": "krea2", "features": 6144 // WIDTH, "heads": 6, "kvheads": 2, "layers": 28, "channels": 16}
DIFFUSION |= {"patch": 2, "txtdim": 2560 // WIDTH, "txtheads": 2, "txtkvheads": 2, "txtlayers": 12}
LANGUAGE = {"hidden_size": 2560 // WIDTH, "intermediate_size": 9728 // WIDTH, "num_hidden_layers": 36}
LANGUAGE |= {"num_attention_heads": 4, "num_key_value_heads": 1}
EYES = {"hidden_size": 1024 // WIDTH, "intermediate_size": 4096 // WIDTH, "depth": 24, "num_heads": 16 // WIDTH}
EYES |= {"deepstack_visual_indexes": [5, 11, 17]}


def measured(comfyui: Path) -> dict[str, list[float]]:
    """Seconds of each turn: "sampling" one candidate, "judging" eight pictures; empty where ComfyUI has no Krea 2.

    Args:
        comfyui: A checkout of ComfyUI.
    """
    return run_in_comfyui("node_judge", comfyui)


def table(times: dict[str, list[float]]) -> str:
    """Text with the verdict."""
    if not times:
        return "\nThe judge in memory: this ComfyUI has no Krea 2."
    shares = [judging / sampling for judging, sampling in zip(times["judging"], times["sampling"], strict=True)]
    seconds = {name: f"{statistics.median(given):.1f} s" for name, given in times.items()}
    verdict = "met" if max(shares) < BAR else "MISSED"
    return (
        f"\nKrea 2 Turbo at 1/{WIDTH} of its width, {SIDE} px, {STEPS} steps, one thread, {TURNS} turns: sampling one "
        f"candidate {seconds['sampling']}, VQAScore of {PICTURES} pictures by its own text encoder "
        f"{seconds['judging']}: {statistics.median(shares):.2f} of it ({min(shares):.2f}–{max(shares):.2f}). "
        f"Bar, under {BAR:g}: {verdict}."
    )


def _child() -> dict[str, list[float]]:
    """In a process of its own, where importing ComfyUI is right."""
    tiny, _, runs = opened()
    import torch

    try:
        import comfy.text_encoders.krea2  # noqa: F401, TID251
    except ImportError:
        return {}
    with torch.inference_mode():
        clip, model = _clip(tiny), _model(tiny)
        judge = importlib.import_module("ma_agiqa_pack.nodes.scorers.clip_reader").clip_judge(clip)
        text = clip.encode_from_tokens_scheduled(clip.tokenize("a red cup of coffee on a wooden table"))
        settings = runs.SamplerSettings("euler", "simple", STEPS, 1.0, 1.0, 0)
        latent = {"samples": torch.zeros(1, 16, 1, SIDE // 8, SIDE // 8), "batch_index": [0]}
        times: dict[str, list[float]] = {"sampling": [], "judging": []}
        for turn in range(TURNS + 1):
            pictures = list(torch.rand(PICTURES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(turn)))
            started = time.process_time()
            plain(model, settings, text, text, latent)
            between = time.process_time()
            judge.score(pictures, "a red cup of coffee on a wooden table")
            if turn:  # the first loads the networks
                times["sampling"].append(between - started)
                times["judging"].append(time.process_time() - between)
    return times


def _clip(tiny: Any) -> Any:
    import comfy.text_encoders.krea2 as krea2  # noqa: TID251
    import comfy.text_encoders.qwen3vl as qwen3vl  # noqa: TID251
    import torch
    from comfy.sd import CLIP  # noqa: TID251

    qwen3vl.QWEN3VL_VISION["qwen3vl_4b"] = EYES
    qwen3vl.QWEN3VL_VISION_COMMON["num_heads"] = EYES["num_heads"]
    target = SimpleNamespace(params={}, clip=krea2.te(), tokenizer=krea2.Krea2Tokenizer)
    clip = CLIP(target, model_options={"qwen3vl_4b_model_config": LANGUAGE, "dtype": torch.float32})
    tiny.fill(clip.cond_stage_model)
    return clip


def _model(tiny: Any) -> Any:
    import comfy.supported_models  # noqa: TID251
    import torch
    from comfy.model_patcher import ModelPatcher  # noqa: TID251

    config = comfy.supported_models.Krea2(dict(DIFFUSION))
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, device="cpu")
    tiny.fill(model)
    return ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


if __name__ == "__main__":
    main_or_child(lambda comfyui: table(measured(comfyui)), _child)
