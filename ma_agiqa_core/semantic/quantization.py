"""Weights of linear layers in 8 or 4 bits, for cards that are too small for 16.

int8 is weight-only by torchao where that is installed: weights are rounded, activations are not, so a vector never
depends on what else is in its batch. bitsandbytes stands in; its LLM.int8() (Dettmers et al. 2022, arXiv 2208.07339)
also rounds activations, in float16, except the columns in which any token of the batch has an outlier: vectors then
depend on the batch by about the error of rounding. nf4 (Dettmers et al. 2023, arXiv 2305.14314), by bitsandbytes, is
weight-only.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..errors import MaAgiqaError, MissingPackageError

KINDS = ("int8", "nf4")
NF4_BLOCK = 64  # weights that share a scale; the scales are themselves rounded to 8 bits, 256 at a time
_CPU_ROWS = 32  # bitsandbytes packs so many outputs together for processors with AVX512-BF16
_OUTLIER = 6.0  # LLM.int8(): activations from here on are not rounded
_PIP = {"int8": "pip install torchao", "nf4": "pip install bitsandbytes"}


def linears(module: nn.Module, quantization: str, skip: Sequence[str] = ()) -> list[str]:
    """The names of the layers to quantize: every nn.Linear outside the parts named in `skip`.

    For nf4 a layer's sizes must be whole blocks, which bitsandbytes needs on the CPU; others stay as they are.

    Args:
        module: May be on the meta device.
        quantization: "int8" or "nf4".
        skip: Names of layers or of whole parts, from the root of `module` ("vision", "layers.0.mlp").
    """
    return [
        name
        for name, layer in module.named_modules()
        if type(layer) is nn.Linear
        and not (quantization == "nf4" and (layer.in_features % NF4_BLOCK or layer.out_features % _CPU_ROWS))
        and not any(name == part or name.startswith(f"{part}.") for part in skip)
    ]


def quantize_linears(
    module: nn.Module,
    quantization: str,
    *,
    skip: Sequence[str] = (),
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> list[str]:
    """Quantizes the linear layers of our own networks in place, for inference.

    Layers on the meta device or already quantized are left alone, so this may be called after every shard.

    Args:
        module: Layers of it are replaced or get other weights; `module` itself must not be a linear layer.
        quantization: "int8" or "nf4".
        skip: As for `linears`.
        device: Where quantized layers go, one at a time; by default where they are.
        dtype: To compute in; by default that of each layer.

    Returns:
        The names of the layers that were quantized now.

    Raises:
        ImportError: The library for it is not installed.
        ValueError: Another kind of quantization.
    """
    library = quantization_library(quantization)
    done = []
    for name in linears(module, quantization, skip):
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        if layer.weight.is_meta or type(layer.weight.data) is not torch.Tensor:
            continue
        layer.requires_grad_(False)
        layer.to(device=device or layer.weight.device, dtype=dtype or layer.weight.dtype)
        if library == "torchao":
            _round_in_place(layer)
        else:
            parent, _, own = name.rpartition(".")
            setattr(module.get_submodule(parent), own, _bitsandbytes_layer(layer, quantization))
        done.append(name)
    return done


def transformers_config(quantization: str, dtype: torch.dtype, keep: Sequence[str]) -> Any:
    """The `quantization_config` for `from_pretrained` of transformers.

    Args:
        quantization: "int8" or "nf4".
        dtype: To compute in.
        keep: Full names of the layers that stay as they are, the LM head among them.

    Raises:
        ImportError: The library for it is not installed.
        ValueError: Another kind of quantization.
    """
    if quantization_library(quantization) == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        return TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=list(keep))
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        _silence_casting_warnings()
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=_OUTLIER, llm_int8_skip_modules=list(keep))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=True,
        llm_int8_skip_modules=list(keep),
    )


def quantization_library(quantization: str) -> str:
    """Which of the installed libraries does it: "torchao" or "bitsandbytes".

    Raises:
        ImportError: None of them is installed; the message says how to get one.
        ValueError: Another kind of quantization.
    """
    if quantization not in KINDS:
        raise MaAgiqaError(f"Expected quantization None, 'int8' or 'nf4', got {quantization!r}.")
    able = ("torchao", "bitsandbytes") if quantization == "int8" else ("bitsandbytes",)
    for library in able:
        if _is_installed(library):
            return library
    raise MissingPackageError(
        f"Expected {' or '.join(able)} for quantization={quantization!r}, got none. Run: {_PIP[quantization]}"
    )


def quantized_bytes(layer: nn.Linear, quantization: str) -> int:
    """What the weight of one layer takes when quantized, scales included; about, for nf4."""
    rows, weights = layer.out_features, layer.out_features * layer.in_features
    if quantization == "int8":
        return weights + 4 * rows
    blocks = -(-weights // NF4_BLOCK)
    return weights // 2 + blocks + 4 * -(-blocks // 256)


def _is_installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def _round_in_place(layer: nn.Linear) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(layer, Int8WeightOnlyConfig())


def _silence_casting_warnings() -> None:
    """LLM.int8() casts its inputs to float16 and warns of it in every call of every layer."""
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)


def _bitsandbytes_layer(layer: nn.Linear, quantization: str) -> nn.Module:
    import bitsandbytes as bnb

    sizes = (layer.in_features, layer.out_features)
    weight, has_bias = layer.weight.data, layer.bias is not None
    quantized: nn.Module
    if quantization == "int8":
        _silence_casting_warnings()
        quantized = bnb.nn.Linear8bitLt(
            *sizes, bias=has_bias, has_fp16_weights=False, threshold=_OUTLIER, device="meta"
        )
        quantized.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    else:
        quantized = bnb.nn.Linear4bit(
            *sizes, bias=has_bias, quant_type="nf4", compute_dtype=weight.dtype, device="meta"
        )
        quantized.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True)
    quantized.bias = layer.bias
    return quantized.to(weight.device).eval()  # moving it is what quantizes
