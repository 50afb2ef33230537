"""Published pickles of judges as .safetensors: the same names and numbers, once, in a file that cannot run code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from ...atomic_write import atomic_write
from ...errors import MaAgiqaError
from .judge_files import CONFIGS
from .published_weights import read_weights

_CONFIG_FILES = ("med_config.json", "config.json", "open_clip_config.json")  # what a judge is read with
_MARKS: dict[str, tuple[str, ...]] = {
    "imagereward": ("blip.text_encoder.embeddings.word_embeddings.weight", "mlp.layers.0.weight"),
    "hpsv2": ("visual.conv1.weight", "token_embedding.weight", "text_projection"),
    "aesthetic-v2.5": ("scoring_head.0.weight", "scoring_head.8.weight"),
    "laion-aesthetic": ("layers.0.weight", "layers.7.weight"),
}
"""Names that only weights of this family have all of."""


def judge_of(names: Mapping[str, Tensor]) -> str | None:
    """The family of a table of weights, by the names in it; None of any other."""
    plain = {name.removeprefix("layers.") for name in names if name.startswith("layers.scoring_head.")} | set(names)
    return next((family for family, marks in _MARKS.items() if plain.issuperset(marks)), None)


def convert_judge(published: Path, out: Path) -> str | None:
    """Writes a judge's pickle as .safetensors, in its precision.

    Args:
        published: ImageReward.pt, HPS_v2.1_compressed.pt, sac+logos+ava1-l14-linearMSE.pth or
            aesthetic_predictor_v2_5.pth; JSON files of its config beside it go along in the metadata.
        out: The .safetensors file.

    Returns:
        Its family; None, and nothing is written, if it is none of a judge's.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, holds anything but tensors, or `out` has another ending.
    """
    from safetensors.torch import save_file

    if out.suffix.lower() != ".safetensors":
        raise MaAgiqaError(f"Expected a path that ends in .safetensors, got {str(out)!r}.")
    weights = read_weights(published)
    if (family := judge_of(weights)) is None:
        return None
    configs = {}
    for name in _CONFIG_FILES:
        with suppress(OSError, ValueError):
            configs[name] = json.loads((published.parent / name).read_text(encoding="utf-8"))
    metadata = {"ma_agiqa.format": "1", "ma_agiqa.kind": family, "ma_agiqa.name": family, CONFIGS: json.dumps(configs)}
    metadata["ma_agiqa.description"] = f"{published.name}, converted."
    with atomic_write(out) as temporary:  # tensors that share memory, or are views, as their own
        save_file({name: tensor.clone().contiguous() for name, tensor in weights.items()}, temporary, metadata)
    return family
