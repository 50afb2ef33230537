"""Fills an empty network from a folder of shards, without ever holding the weights twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..arguments.options import first_names
from ..errors import MaAgiqaError
from ..model_files.transformers_folder import read_shard, weight_files

if TYPE_CHECKING:
    import torch


def fill(
    network: torch.nn.Module,
    folder: Path,
    own_name: Callable[[str], str | None],
    *,
    device_of: Callable[[str], torch.device],
    dtype: torch.dtype,
    after_shard: Callable[[], object] = lambda: None,
    files: Sequence[Path] | None = None,
) -> None:
    """Puts every published tensor where it belongs, shard by shard, tensor by tensor.

    Args:
        network: Its parameters are on the meta device.
        folder: Where the shards are.
        own_name: Published name -> parameter of `network`; None for what is not needed.
        device_of: Where a parameter, given by name, goes.
        dtype: What it becomes.
        after_shard: Called when all of a shard is in place.
        files: The shards, where they have not the usual names.

    Raises:
        ValueError: A shard is damaged, or the weights are those of another model.
    """
    from accelerate.utils import set_module_tensor_to_device

    expected = dict(network.named_parameters())
    unknown: list[str] = []
    for path in weight_files(folder) if files is None else files:
        for published, tensor in read_shard(path):
            name = own_name(published)
            if name is None:
                continue
            if name not in expected:
                unknown.append(published)
                continue
            if tensor.shape != expected[name].shape:
                raise MaAgiqaError(
                    f"Expected {tuple(expected[name].shape)} for {published!r} in {str(path)!r}, got "
                    f"{tuple(tensor.shape)}. Check that config.json and the weights belong together."
                )
            set_module_tensor_to_device(network, name, device_of(name), value=tensor, dtype=dtype)
        after_shard()
    missing = [name for name, parameter in network.named_parameters() if parameter.is_meta]
    for what, names in (("no other weights than the model's", unknown), ("all of the model's weights", missing)):
        if names:
            raise MaAgiqaError(
                f"Expected {what} in {str(folder)!r}, got {'unknown' if names is unknown else 'nothing for'} "
                f"{first_names(names)}. Check that config.json and the weights belong together."
            )
