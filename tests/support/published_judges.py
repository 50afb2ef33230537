"""The judges of tests/fixtures/judges: their pictures, weights and folders, made again from the numbers in the files.

Nothing here knows a number of its own, so a file of another seed can stand in the place of each.
"""

import json
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from packaging.version import Version
from project_paths import FIXTURES

JUDGES = FIXTURES / "judges"
TOKENIZER = "PreTrainedTokenizerFast" if Version(version("transformers")) >= Version("5") else "Qwen2TokenizerFast"
"""Before transformers 5 Qwen's processors take only a class of their own."""


def fixture(name: str) -> dict[str, Any]:
    return json.loads((JUDGES / f"{name}.json").read_text(encoding="utf-8"))


def pictures(of: dict[str, Any]) -> list[np.ndarray]:
    """Waves and noise, (H, W, 3) uint8; the formula stands in the fixtures' README."""
    return [_picture(seed, *size) for seed, size in zip(of["image_seeds"], of["image_sizes_hw"], strict=True)]


def _picture(seed: int, height: int, width: int) -> np.ndarray:
    random = np.random.RandomState(seed)
    down, right = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = np.zeros((height, width, 3))
    for channel in range(3):
        for _ in range(6):
            fx, fy, phase, size = (random.uniform(*ends) for ends in ((0.002, 0.2), (0.002, 0.2), (0, 6.283), (10, 40)))
            waves[..., channel] += size * np.sin(fx * right + fy * down + phase)
    waves += 128 + random.uniform(-20, 20, waves.shape)
    return np.clip(np.round(waves), 0, 255).astype(np.uint8)


def weights(of: dict[str, Any], table: str = "state_dict") -> dict[str, torch.Tensor]:
    """The published state dict; what the module computes itself is left out."""
    state = {}
    for key, made in of[table].items():
        if not made.get("buffer"):
            random = np.random.RandomState(zlib.crc32(f"{of['seed']}:{key}".encode()))
            values = made["offset"] + made["scale"] * random.standard_normal(made["shape"])
            state[key] = torch.from_numpy(np.asarray(values)).float()
    return state


def write_owl_judge(folder: Path, of: dict[str, Any]) -> Path:
    """DeQA-Score or Q-Align as on the Hub: pickled shards with an index, config, tokenizer, preprocessing."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "mplug_owl2", "architectures": ["MPLUGOwl2LlamaForCausalLM"], **of["config"]}
    (folder / "config.json").write_text(json.dumps(config))
    side = config["visual_config"]["visual_model"]["image_size"]
    preprocessing = {"crop_size": side, "size": side, "do_center_crop": True, "do_normalize": True, "do_resize": True}
    preprocessing |= {"image_mean": [0.48145466, 0.4578275, 0.40821073]}
    preprocessing |= {"image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    _write_tokenizer_of_pieces(folder, of)
    write_shards(folder, weights(of), pickled=True)
    return folder


def write_shards(folder: Path, state: dict[str, torch.Tensor], *, pickled: bool, shards: int = 3) -> None:
    """A state dict in several files with their index."""
    from safetensors.torch import save_file

    stem, suffix = ("pytorch_model", "bin") if pickled else ("model", "safetensors")
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        name = f"{stem}-{shard + 1:05}-of-{shards:05}.{suffix}"
        part = {key: tensor for i, (key, tensor) in enumerate(state.items()) if i * shards // len(state) == shard}
        if pickled:
            torch.save(part, folder / name)
        else:
            save_file({key: tensor.contiguous() for key, tensor in part.items()}, folder / name, {"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    total = sum(tensor.nbytes for tensor in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


def _write_tokenizer_of_pieces(folder: Path, of: dict[str, Any]) -> None:
    """A tokenizer that gives the fixture's ids for the fixture's texts; LLaMA's own has another licence.

    A known text becomes one private letter for each of its ids.
    """
    known: dict[str, list[int]] = {}
    for question in [*of["questions"].values(), *of.get("score_method", {}).values()]:
        ids = question["input_ids"]
        cut = ids.index(of["image_token_id"])
        known |= dict(zip(question["prompt_pieces"], (ids[1:cut], ids[cut + 1 :]), strict=True))
    with_bos = of["level_token_ids_with_bos"]
    known |= {word: ids[1:] for word, ids in zip(of["level_words"], with_bos, strict=True)}
    tokenizer = tokenizer_of_texts(known, {"<s>": with_bos[0][0], "<unk>": 0})
    tokenizer.save(str(folder / "tokenizer.json"))


def tokenizer_of_texts(known: dict[str, list[int]], others: dict[str, int]) -> Any:
    """A tokenizer that gives certain ids for certain texts: each becomes one private letter for each of its ids.

    Args:
        known: The ids of each text.
        others: Tokens besides, "<unk>" among them, by their ids.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    used = sorted({token for ids in known.values() for token in ids})
    letters = {token: chr(0xE000 + place) for place, token in enumerate(used)}
    vocabulary = {letter: token for token, letter in letters.items()} | others
    tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(text, "".join(letters[token] for token in ids)) for text, ids in known.items()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return tokenizer


def write_qwen_judge(folder: Path, of: dict[str, Any], kind: str, processor: Any, *, shards: int = 2) -> Path:
    """A Qwen vision-language model as on the Hub: config, safetensors in shards, processor.

    Args:
        folder: Is made.
        of: The fixture.
        kind: "Qwen2VL", "Qwen2_5_VL" or "Qwen3_5", as transformers names its classes.
        processor: Of transformers.
        shards: Files of weights.
    """
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    config = getattr(transformers, f"{kind}Config")(**of["config"])
    config.architectures = [f"{kind}ForConditionalGeneration"]
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    write_shards(folder, weights(of), pickled=False, shards=shards)
    return folder


def byte_tokenizer(of: dict[str, Any]) -> Any:
    """Bytes as tokens, then the special ones, then whole words, as the fixture says."""
    import transformers
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    said = of["tokenizer"]
    tokenizer = Tokenizer(models.BPE(vocab={letter: byte for byte, letter in bytes_to_unicode().items()}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(said["specials_from_256"]))
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in said.get("then", ())])
    kind = getattr(transformers, TOKENIZER)
    return kind(tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|im_end|>")


def unrolled(runs: list[list[int]]) -> list[int]:
    """Token ids of [id, repeats] pairs."""
    return [token for token, repeats in runs for _ in range(repeats)]


def reader_of(scorer: Any) -> Any:
    """The reader behind a judge, loaded."""
    return scorer.language_model.get()
