"""The authors' checkpoint, a torch pickle of wangpuyi/MA-AGIQA's state dict, under this project's names.

Tables say what is renamed and what is dropped because the published code never computes with it. Every other
difference is an error.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..arguments.options import first_names
from ..compute.caller_state import as_loaded
from ..errors import MaAgiqaError, MissingFileError, first_line
from ..model import MaAgiqaConfig
from ..model.without_weights import without_weights
from ..model_files.refused_pickle import why_refused

UNUSED = (
    "vit.blocks.10.",
    "vit.blocks.11.",
    "vit.norm.",
    "vit.head.",
    "swintransformer1.downsample.",
    "swintransformer2.downsample.",
    "fc39_784.",
    "encoder_layer.",
    "fc_output.",
    "fc4096_784_a.",
    "fc4096_784_b.",
    "quality.",
    "fc784x3_1.",
    "fc4096_1024_a.",
    "fc4096_1024_b.",
)
"""Layers that the published `forward` never reaches, by the start of their names."""

COMPUTED = (".attn.relative_position_index", ".attn_mask")
"""Buffers of the Swin blocks that follow from the sizes, by the end of their names."""

RENAMED = {
    "vit.": "features.vit.",
    "tablock1.": "stage1.channel_attention.",
    "conv1.": "stage1.reduce.",
    "swintransformer1.": "stage1.swin.",
    "tablock2.": "stage2.channel_attention.",
    "conv2.": "stage2.reduce.",
    "swintransformer2.": "stage2.swin.",
    "fc_score.": "patch_quality.score.",
    "fc_weight.": "patch_quality.weight.",
    "fc4096_784_a2.": "fusion.semantic_content.",
    "fc4096_784_b2.": "fusion.coherence.",
    "fc784_784.": "fusion.visual.",
    "gating.": "fusion.gate.",
    "output_fc.": "fusion.score.",
}
"""By the start of the name."""

RENAMED_INSIDE = {
    ".c_q.": ".query.",
    ".c_k.": ".key.",
    ".c_v.": ".value.",
    ".attn.relative_position_bias_table": ".attention.position_bias",
    ".attn.": ".attention.",
    ".mlp.fc1.": ".mlp.0.",
    ".mlp.fc2.": ".mlp.2.",
}
"""Further on in the names of the two stages, in this order. The ViT's names stay timm's."""

_WIDTH_KEY = "fc4096_784_a2.0.weight"  # (patches, semantic width)
_REDUCE_KEYS = ("conv1.weight", "conv2.weight")  # 1x1 convolutions there, linear layers here
_ADVICE = "Use the authors' checkpoint (README, 'MA-AGIQA')."


@as_loaded()
def convert_reference(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], MaAgiqaConfig]:
    """The published state dict as `MaAgiqa(config)` loads it.

    Args:
        state_dict: Under the published names, each with `module.` before it or none, in any float dtype.

    Returns:
        The state dict, float32, and the config, its semantic width read from the tensors.

    Raises:
        ValueError: Keys are unknown or missing, or tensors have other shapes or dtypes.

    Example:
        >>> import torch
        >>> from ma_agiqa_core.checkpoint import convert_reference
        >>> published = torch.load("MA-AGIQA.pt", weights_only=True)  # doctest: +SKIP
        >>> state_dict, config = convert_reference(published)  # doctest: +SKIP
    """
    published = _without_module(state_dict)
    kept = {key: tensor for key, tensor in published.items() if not _is_dropped(key)}
    width = kept.get(_WIDTH_KEY)
    if not isinstance(width, Tensor) or width.ndim != 2:
        found = str(tuple(width.shape)) if isinstance(width, Tensor) else "none"
        raise MaAgiqaError(f"Expected {_WIDTH_KEY!r} (784, D) among {len(published)} entries, got {found}. {_ADVICE}")
    config = MaAgiqaConfig(semantic_dim=width.shape[1])
    expected = {_published_name(name): tensor.shape for name, tensor in without_weights(config).state_dict().items()}
    if unknown := [key for key in kept if key not in expected]:
        raise MaAgiqaError(f"Expected the tensors of MA-AGIQA, got {listed(unknown, 'unknown')}. {_ADVICE}")
    if missing := [key for key in expected if key not in kept]:
        raise MaAgiqaError(f"Expected the tensors of MA-AGIQA, got {listed(missing, 'missing')}. {_ADVICE}")
    converted = {}
    for key, tensor in kept.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise MaAgiqaError(f"Expected a float tensor as {key!r}, got {kind}. {_ADVICE}")
        if not tensor.isfinite().all():
            raise MaAgiqaError(f"Expected finite weights, got NaN or infinity in {key!r}. {_ADVICE}")
        if key in _REDUCE_KEYS and tensor.shape[2:] == (1, 1):
            tensor = tensor[:, :, 0, 0]
        if tensor.shape != expected[key]:
            raise MaAgiqaError(
                f"Expected {key!r} of shape {tuple(expected[key])}, got {tuple(tensor.shape)}. {_ADVICE}"
            )
        converted[_own_name(key)] = tensor.to(torch.float32).contiguous()
    return converted, config


@as_loaded()
def read_published(path: Path) -> dict[str, Tensor]:
    """Reads a checkpoint as torch saves it. Only tensors and plain containers are accepted; nothing is executed.

    Args:
        path: A state dict, or a dict that holds one as "state_dict" or "model".

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no pickle of tensors, is truncated, or would run code.
    """
    if not path.is_file():
        raise MissingFileError(f"Expected the published checkpoint, got {str(path)!r}: no such file.")
    if path.suffix.lower() == ".safetensors":
        raise MaAgiqaError(
            f"Expected the published checkpoint, a torch pickle, got {str(path)!r}. It needs no convert."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise MaAgiqaError(
            f"Expected plain tensors in {str(path)!r}, got something else: {why_refused(error)}. "
            "Nothing in it was executed. Download the file again, from its authors."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise MaAgiqaError(
            f"Expected a whole torch checkpoint, got {str(path)!r}: {first_line(error)} Download it again."
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(isinstance(key, str) for key in content):
        raise MaAgiqaError(f"Expected a table of tensors in {str(path)!r}, got {type(content).__name__}. {_ADVICE}")
    return dict(content)


def listed(keys: Iterable[str], what: str) -> str:
    """ "7 unknown: a, b, c, d, e and 2 more", for errors."""
    names = sorted(keys)
    return f"{len(names)} {what}: {first_names(names)}"


def _without_module(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = "module."  # of nn.DataParallel
    if all(key.startswith(prefix) for key in state_dict):
        return {key.removeprefix(prefix): tensor for key, tensor in state_dict.items()}
    return dict(state_dict)


def _is_dropped(key: str) -> bool:
    return key.startswith(UNUSED) or (key.startswith("swintransformer") and key.endswith(COMPUTED))


def _own_name(published: str) -> str:
    start = next(start for start in RENAMED if published.startswith(start))
    rest = published.removeprefix(start)
    if start != "vit.":
        for theirs, ours in RENAMED_INSIDE.items():
            rest = rest.replace(theirs, ours)
    return RENAMED[start] + rest


def _published_name(own: str) -> str:
    start = next(start for start, ours in RENAMED.items() if own.startswith(ours))
    rest = own.removeprefix(RENAMED[start])
    if start != "vit.":
        for theirs, ours in RENAMED_INSIDE.items():
            rest = rest.replace(ours, theirs)
    return start + rest
