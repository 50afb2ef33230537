"""A Stable Diffusion 1.5 checkpoint of random numbers that ComfyUI's own loader takes, and a TAESD decoder.

ComfyUI tells models apart by the names and shapes of their weights. What it insists on for SD 1.5 is a UNet of 320
channels whose text vectors have 768 numbers, and OpenAI's text tower of 12 layers. So the UNet here has one level with
one block, the autoencoder is a TAESD (a VAE like any other to CheckpointLoaderSimple), and the layers of the text tower
are zeros. The UNet takes most of the noise away (see `_let_noise_through`), so latents come out at the usual scale:
pictures depend on the seed and on the words of the prompt, and mean nothing.

The file says it holds 270 MB; it takes about 25, because zeros are holes in it.
"""

import json
import math
from pathlib import Path

import numpy as np

Shape = tuple[int, ...]

CHANNELS, TIME, TEXT, TOKENS = 320, 1280, 768, 49408
PASSING = 8  # channels of the UNet that carry its four input channels, with either sign, to its end
WANDER = 0.4  # what the random part adds to the predicted noise of deviation 1
COMMON_TOKENS = 4096  # the tokenizer's first: letters and the commonest words; the others have a vector of zeros
LAYERS = 12


def write_tiny_checkpoint(path: Path, seed: int = 0) -> Path:
    """Writes the checkpoint; `seed` is that of all its weights."""
    random = np.random.default_rng(seed)
    weights = {f"model.diffusion_model.{key}": value for key, value in _unet(random).items()}
    weights |= {f"first_stage_model.{key}": value for key, value in _taesd(random).items()}
    weights |= {f"cond_stage_model.transformer.text_model.{key}": value for key, value in _text_tower(random).items()}
    _write_safetensors(path, weights)
    return path


def write_tiny_taesd(folder: Path, seed: int = 0) -> Path:
    """Writes taesd_decoder.safetensors as it lies in models/vae_approx; gives its path back."""
    start = "taesd_decoder."
    weights = _taesd(np.random.default_rng(seed))
    path = folder / "taesd_decoder.safetensors"
    _write_safetensors(
        path, {key.removeprefix(start): value for key, value in weights.items() if key.startswith(start)}
    )
    return path


class _Zeros:
    """Zeros that are never made: a hole in the file."""

    def __init__(self, *shape: int, first: np.ndarray | None = None) -> None:
        self.shape = shape
        self.first = first  # numbers of the first rows, if not all are zeros


Weights = dict[str, np.ndarray | _Zeros]


def _unet(random: np.random.Generator) -> Weights:
    def dense(*shape: int) -> np.ndarray:
        return random.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))

    weights: Weights = {
        "time_embed.0.weight": dense(TIME, CHANNELS),
        "time_embed.2.weight": dense(TIME, TIME),
        "input_blocks.0.0.weight": dense(CHANNELS, 4, 3, 3),
        "out.2.weight": dense(4, CHANNELS, 3, 3),
        **_norm("out.0", CHANNELS),
    }
    block = "input_blocks.1.0."
    weights |= {
        **_norm(block + "in_layers.0", CHANNELS),
        block + "in_layers.2.weight": dense(CHANNELS, CHANNELS, 3, 3),
        block + "emb_layers.1.weight": dense(CHANNELS, TIME),
        **_norm(block + "out_layers.0", CHANNELS),
        block + "out_layers.3.weight": dense(CHANNELS, CHANNELS, 3, 3),
    }
    attention = "input_blocks.1.1."
    weights |= {
        **_norm(attention + "norm", CHANNELS),
        attention + "proj_in.weight": dense(CHANNELS, CHANNELS, 1, 1),
        attention + "proj_out.weight": dense(CHANNELS, CHANNELS, 1, 1),
    }
    layer = attention + "transformer_blocks.0."
    for i, width in ((1, CHANNELS), (2, TEXT)):
        weights[f"{layer}attn{i}.to_q.weight"] = dense(CHANNELS, CHANNELS)
        weights[f"{layer}attn{i}.to_k.weight"] = dense(CHANNELS, width)
        weights[f"{layer}attn{i}.to_v.weight"] = dense(CHANNELS, width) * (5 if width == TEXT else 1)
        weights[f"{layer}attn{i}.to_out.0.weight"] = dense(CHANNELS, CHANNELS)
    weights |= {
        layer + "ff.net.0.proj.weight": _Zeros(8 * CHANNELS, CHANNELS),
        layer + "ff.net.0.proj.bias": _Zeros(8 * CHANNELS),
        layer + "ff.net.2.weight": _Zeros(CHANNELS, 4 * CHANNELS),
        **_norm(layer + "norm1", CHANNELS),
        **_norm(layer + "norm2", CHANNELS),
        **_norm(layer + "norm3", CHANNELS),
    }
    for i in range(2):  # only their shortcut does something
        block = f"output_blocks.{i}.0."
        weights |= {
            **_norm(block + "in_layers.0", 2 * CHANNELS),
            block + "in_layers.2.weight": _Zeros(CHANNELS, 2 * CHANNELS, 3, 3),
            block + "emb_layers.1.weight": _Zeros(CHANNELS, TIME),
            **_norm(block + "out_layers.0", CHANNELS),
            block + "out_layers.3.weight": _Zeros(CHANNELS, CHANNELS, 3, 3),
            block + "skip_connection.weight": dense(CHANNELS, 2 * CHANNELS, 1, 1),
        }
    _let_noise_through(weights)
    without_bias = ("to_q.weight", "to_k.weight", "to_v.weight")
    for key in [key for key in weights if key.endswith(".weight") and not key.endswith(without_bias)]:
        weights.setdefault(key.removesuffix("weight") + "bias", _Zeros(weights[key].shape[0]))
    return weights


def _let_noise_through(weights: Weights) -> None:
    """Makes the prediction the input, normalised, plus `WANDER` times random features: silu(x) - silu(-x) = x."""

    def rows(key: str) -> np.ndarray:
        value = weights[key]
        assert isinstance(value, np.ndarray)
        value[: CHANNELS // 32] = (
            0  # the whole first group of the last normalisation: its mean is that of x and -x, nothing
        )
        return value

    signed = np.vstack([np.eye(4), -np.eye(4)])  # (PASSING, 4)
    rows("input_blocks.0.0.weight")[:PASSING, :, 1, 1] = signed
    rows("input_blocks.1.0.out_layers.3.weight")
    rows("input_blocks.1.1.proj_out.weight")
    for i in range(2):
        rows(f"output_blocks.{i}.0.skip_connection.weight")[:PASSING, :PASSING, 0, 0] = np.eye(PASSING)
    last = weights["out.2.weight"]
    assert isinstance(last, np.ndarray)
    last *= WANDER
    last[:, :PASSING] = 0
    last[:, :PASSING, 1, 1] = signed.T


def _taesd(random: np.random.Generator) -> Weights:
    """TAESD's encoder and decoder, rows of 3 × 3 convolutions, by their places in the row."""
    weights: Weights = {}

    def convolution(key: str, inputs: int, outputs: int, gain: float = 1.0, bias: bool = True) -> None:
        weights[f"{key}.weight"] = random.standard_normal((outputs, inputs, 3, 3)) * gain * math.sqrt(2 / (9 * inputs))
        if bias:
            weights[f"{key}.bias"] = random.standard_normal(outputs) * 0.1

    def block(key: str) -> None:
        for i, gain in ((0, 1.0), (2, 1.0), (4, 0.3)):
            convolution(f"{key}.conv.{i}", 64, 64, gain)

    convolution("taesd_encoder.0", 3, 64)
    for i in (1, 3, 4, 5, 7, 8, 9, 11, 12, 13):
        block(f"taesd_encoder.{i}")
    for i in (2, 6, 10):
        convolution(f"taesd_encoder.{i}", 64, 64, bias=False)
    convolution("taesd_encoder.14", 64, 4, 0.3)
    convolution("taesd_decoder.1", 4, 64)  # after a clamp
    for i in (3, 4, 5, 8, 9, 10, 13, 14, 15, 18):
        block(f"taesd_decoder.{i}")
    for i in (7, 12, 17):
        convolution(f"taesd_decoder.{i}", 64, 64, bias=False)
    convolution("taesd_decoder.19", 64, 3, 0.15)
    weights["taesd_decoder.19.bias"] = np.full(3, 0.5)  # pictures are neither black nor white
    return weights | {"vae_scale": np.ones(()), "vae_shift": np.zeros(())}


def _text_tower(random: np.random.Generator) -> Weights:
    words = random.standard_normal((COMMON_TOKENS, TEXT))
    weights: Weights = {
        "embeddings.token_embedding.weight": _Zeros(TOKENS, TEXT, first=words),
        "embeddings.position_embedding.weight": random.standard_normal((77, TEXT)),
        **_norm("final_layer_norm", TEXT),
    }
    for i in range(LAYERS):
        layer = f"encoder.layers.{i}."
        weights |= _norm(layer + "layer_norm1", TEXT) | _norm(layer + "layer_norm2", TEXT)
        matrices = {f"self_attn.{name}_proj": (TEXT, TEXT) for name in ("q", "k", "v", "out")}
        for name, (outputs, inputs) in {**matrices, "mlp.fc1": (4 * TEXT, TEXT), "mlp.fc2": (TEXT, 4 * TEXT)}.items():
            weights |= {f"{layer}{name}.weight": _Zeros(outputs, inputs), f"{layer}{name}.bias": _Zeros(outputs)}
    return weights


def _norm(key: str, width: int) -> Weights:
    return {f"{key}.weight": np.ones(width), f"{key}.bias": _Zeros(width)}


def _write_safetensors(path: Path, weights: Weights) -> None:
    """Half precision; https://github.com/huggingface/safetensors#format"""
    header: dict[str, object] = {}
    end = 0
    for key, value in weights.items():
        start, end = end, end + 2 * math.prod(value.shape)
        header[key] = {"dtype": "F16", "shape": list(value.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        position = file.tell()
        for value in weights.values():
            numbers = value.first if isinstance(value, _Zeros) else value
            if numbers is not None:
                file.seek(position)
                file.write(numbers.astype("<f2").tobytes())
            position += 2 * math.prod(value.shape)
        file.truncate(position)
