"""Pickled shards of a published model, once and for all as safetensors: nothing in a pickle is executed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ..errors import MaAgiqaError, OutputExistsError
from .transformers_folder import DESCRIBING, read_shard, weight_files


def convert_shards(folder: Path, out: Path) -> list[Path]:
    """Writes a model's folder anew, its weights as safetensors, shard by shard; the small files are copied.

    Args:
        folder: With pytorch_model.bin, whole or in shards with their index.
        out: Made; must not exist, or be empty.

    Returns:
        The files of weights that were written.

    Raises:
        OutputExistsError: `out` has files in it.
        ValueError: There is nothing to convert, or a shard is damaged or holds more than tensors.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as place:
        ...     folder = Path(place, "published")
        ...     folder.mkdir()
        ...     torch.save({"weight": torch.ones(2)}, folder / "pytorch_model.bin")
        ...     [path.name for path in convert_shards(folder, Path(place, "converted"))]
        ['model.safetensors']
    """
    from safetensors.torch import save_file

    shards = weight_files(folder)
    if all(shard.suffix == ".safetensors" for shard in shards):
        raise MaAgiqaError(
            f"Expected pickled weights in {str(folder)!r}, got {shards[0].name}. Use the folder as it is."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputExistsError(f"Expected a new or empty folder, got {str(out)!r}. Choose another.")
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    weight_map: dict[str, str] = {}
    total = 0
    for shard in shards:
        name = f"{shard.stem.replace('pytorch_model', 'model')}.safetensors"
        tensors = {key: tensor.clone().contiguous() for key, tensor in read_shard(shard)}
        save_file(tensors, out / name, {"format": "pt"})
        written.append(out / name)
        weight_map |= dict.fromkeys(tensors, name)
        total += sum(tensor.nbytes for tensor in tensors.values())
    if len(written) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    for name in DESCRIBING:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)
    return written
