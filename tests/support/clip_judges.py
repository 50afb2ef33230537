"""The judges of tests/fixtures/judges that see with CLIP, BLIP or SigLIP, in the layouts they are published in.

Every number comes from the fixture: a file of another seed may stand in its place. The weights are made up. The
vocabularies are those that the judges were published with, BERT's (Apache-2.0) and CLIP's merges (MIT).
"""

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from project_paths import FIXTURES
from safetensors.torch import save_file

JUDGES = FIXTURES / "judges"


def fixture(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((JUDGES / f"{name}.json").read_text(encoding="utf-8"))
    return content


def made_up(seed: int, table: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Weights by the formula of the fixtures' README; tables that a module computes are left out."""
    weights = {}
    for key, made in table.items():
        if not made.get("buffer"):
            random = np.random.RandomState(zlib.crc32(f"{seed}:{key}".encode()))
            values = made["offset"] + made["scale"] * random.standard_normal(made["shape"])
            weights[key] = torch.from_numpy(np.asarray(values)).float()
    return weights


def pictures(judge: Mapping[str, Any]) -> list[PIL.Image.Image]:
    """A fixture's pictures."""
    sizes = zip(judge["image_seeds"], judge["image_sizes_hw"], strict=True)
    return [PIL.Image.fromarray(waves(seed, *size)) for seed, size in sizes]


def waves(seed: int, height: int, width: int) -> np.ndarray:
    """The picture formula of the fixtures' README: (height, width, 3) uint8."""
    random = np.random.RandomState(seed)
    yy, xx = np.mgrid[0:height, 0:width].astype(np.float64)
    out = np.zeros((height, width, 3))
    for channel in range(3):
        for _ in range(6):
            fx, fy = random.uniform(0.002, 0.2), random.uniform(0.002, 0.2)
            phase, strength = random.uniform(0, 6.283), random.uniform(10, 40)
            out[..., channel] += strength * np.sin(fx * xx + fy * yy + phase)
    out += 128 + random.uniform(-20, 20, out.shape)
    return np.clip(np.round(out), 0, 255).astype(np.uint8)


def write_bert_vocabulary(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_bytes(gzip.decompress((JUDGES / "bert_vocab.txt.gz").read_bytes()))


def write_clip_vocabulary(folder: Path) -> None:
    """vocab.json and merges.txt of CLIP: 256 bytes, the same at a word's end, what the merges make, two marks."""
    merges = gzip.decompress((JUDGES / "clip_merges.txt.gz").read_bytes()).decode().splitlines()
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = [*map(chr, plain), *(chr(256 + place) for place in range(len(others)))]
    made = ["".join(merge.split()) for merge in merges]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *made, "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))


def write_imagereward(folder: Path) -> Path:
    """THUDM/ImageReward with BERT's vocabulary; config.json says what is smaller than BLIP-large."""
    judge = fixture("imagereward")
    write_bert_vocabulary(folder)
    weights = made_up(judge["seed"], judge["state_dict"])
    places = judge["config"]["med_config"]["max_position_embeddings"]
    weights["blip.text_encoder.embeddings.position_ids"] = torch.arange(places)[None]
    torch.save(weights, folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(judge["config"]["med_config"]))
    heads = judge["config"]["vit"]["num_heads"]
    (folder / "config.json").write_text(json.dumps({"vision_config": {"num_attention_heads": heads}}))
    return folder


def write_hpsv2(folder: Path) -> Path:
    """xswu/HPSv2 with CLIP's vocabulary; open_clip_config.json says what is smaller than ViT-H-14."""
    judge = fixture("hpsv2")
    write_clip_vocabulary(folder)
    table = made_up(judge["seed"], judge["state_dict"])
    torch.save({"epoch": 1, "state_dict": table}, folder / "HPS_v2.1_compressed.pt")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": judge["config"]}))
    return folder


def write_pickscore(folder: Path) -> Path:
    """yuvalkirstain/PickScore_v1 with the processor of the model that it is tuned from."""
    judge = fixture("pickscore")
    size = judge["config"]["vision_config"]["image_size"]
    limit = judge["config"]["text_config"]["max_position_embeddings"]
    write_clip_vocabulary(folder)
    save_file(made_up(judge["seed"], judge["state_dict"]), folder / "model.safetensors", {"format": "pt"})
    config = {"model_type": "clip", "architectures": ["CLIPModel"], **judge["config"]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "crop_size": size,
                "do_center_crop": True,
                "do_normalize": True,
                "do_resize": True,
                "feature_extractor_type": "CLIPFeatureExtractor",
                "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711],
                "resample": 3,
                "size": size,
            }
        )
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": limit})
    )
    return folder


def write_laion(folder: Path) -> Path:
    """CLIP's picture half as transformers keeps it, and the predictor's head beside it."""
    judge = fixture("aesthetic_laion_v2")
    folder.mkdir(parents=True, exist_ok=True)
    save_file(made_up(judge["seed"], judge["state_dict_vision"]), folder / "model.safetensors", {"format": "pt"})
    config = {"model_type": "clip_vision_model", "architectures": ["CLIPVisionModelWithProjection"]}
    (folder / "config.json").write_text(json.dumps({**config, **judge["config"]["vision"]}))
    torch.save(made_up(judge["seed"], judge["state_dict_head"]), folder / "sac+logos+ava1-l14-linearMSE.pth")
    return folder


def write_aesthetic_v2_5(folder: Path) -> Path:
    """SigLIP as transformers keeps it, and the file of the head, whose names begin at scoring_head, beside it."""
    judge = fixture("aesthetic_v2_5")
    folder.mkdir(parents=True, exist_ok=True)
    weights = made_up(judge["seed"], judge["state_dict"])
    head = {name.removeprefix("layers."): weights.pop(name) for name in list(weights) if name.startswith("layers.")}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = {"model_type": "siglip_vision_model", "architectures": ["SiglipVisionModel"]}
    (folder / "config.json").write_text(json.dumps({**config, **judge["config"]["vision"]}))
    torch.save(head, folder / "aesthetic_predictor_v2_5.pth")
    return folder
