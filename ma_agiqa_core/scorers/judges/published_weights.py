"""Tables of weights as judges are published: pickles and safetensors, read as data, and networks filled with them."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ...arguments.options import first_names
from ...errors import MaAgiqaError, MissingFileError, first_line
from ...model_files.refused_pickle import why_refused

_INSIDE = "state_dict"  # where some pickles keep their table
Network = TypeVar("Network", bound=nn.Module)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by their published names, on the CPU.

    Args:
        path: A .safetensors file, or a torch pickle: nothing in it is executed. Its table may lie under "state_dict".

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or a pickle of anything but tensors; the message names the file.
    """
    if not path.is_file():
        raise MissingFileError(f"Expected the weights of a judge, got {str(path)!r}: no such file.")
    if path.suffix.lower() == ".safetensors":
        return _safetensors(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise MaAgiqaError(
            f"Expected a pickle of tensors, got {str(path)!r}: {why_refused(error)}. Nothing in it was executed; "
            "take the published file."
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise MaAgiqaError(
            f"Expected a whole file of weights, got {str(path)!r}: {first_line(error)} Download it again."
        ) from error
    if isinstance(found, Mapping) and isinstance(found.get(_INSIDE), Mapping):
        found = found[_INSIDE]
    if not isinstance(found, Mapping) or not found:
        raise MaAgiqaError(f"Expected a table of tensors in {str(path)!r}, got {type(found).__name__}.")
    if others := [name for name, value in found.items() if not isinstance(value, Tensor)]:
        raise MaAgiqaError(
            f"Expected only tensors in {str(path)!r}, got {type(found[others[0]]).__name__} under {others[0]!r}. "
            "Take the published file."
        )
    return {str(name): value for name, value in found.items()}


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise MaAgiqaError(
            f"Expected a whole safetensors file, got {str(path)!r}: {first_line(error)} Download it again."
        ) from error


def filled(
    make: Callable[[], Network], weights: Mapping[str, Tensor], source: Path, judge: str, *, prefix: str = ""
) -> Network:
    """A network in eval mode with these weights; none are made only to be thrown away.

    Args:
        make: Makes it; called where new tensors have no memory.
        weights: By the network's names, float32.
        source: For messages.
        judge: For messages.
        prefix: A start of published names that the network's may lack: transformers 5 dropped some.

    Raises:
        ValueError: A weight is missing, unknown, of another shape or not finite: it is another family's checkpoint, or
            damaged.
    """
    with torch.device("meta"):
        network = make()
    expected = network.state_dict()
    if not any(name.startswith(prefix) for name in expected):
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    with checkpoint_of(source, judge):
        check_table(weights, {name: tuple(tensor.shape) for name, tensor in expected.items()})
    network.load_state_dict(dict(weights), assign=True)
    for module in network.modules():  # counts that transformers makes of the sizes, and keeps in no file
        for name, table in module.named_buffers(recurse=False):
            if table.is_meta:
                module.register_buffer(name, torch.arange(table.shape[-1]).expand(table.shape), persistent=False)
    return network.requires_grad_(False).eval()


def check_table(weights: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compares a table with the names and shapes that a network has.

    Raises:
        ValueError: They differ, or a value is not finite.
    """
    for names, what in ((set(shapes) - set(weights), "nothing for"), (set(weights) - set(shapes), "unknown")):
        if names:
            raise MaAgiqaError(f"{what} {first_names(sorted(names))}")
    for name, shape in shapes.items():
        tensor = weights[name]
        if tuple(tensor.shape) != shape:
            raise MaAgiqaError(f"{tuple(tensor.shape)} in the place of {shape} for {name!r}")
        if not tensor.is_floating_point() or not all(bool(end.isfinite()) for end in tensor.aminmax()):
            raise MaAgiqaError(f"numbers that are not finite in {name!r}")


@contextmanager
def checkpoint_of(source: Path, judge: str) -> Any:
    """What is wrong with weights becomes one sentence with the file, and what to do."""
    try:
        yield
    except MaAgiqaError as error:
        raise MaAgiqaError(
            f"Expected the weights of {judge} in {str(source)!r}, got {str(error).rstrip('.')}. It may be another "
            f"family's checkpoint: see `ma-agiqa models --all`."
        ) from error


def as_float32(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights to compute with: published ones are often half precision, and what is read may be the file itself."""
    return {name: _own(tensor) for name, tensor in weights.items()}


def _own(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32, copy=True) if tensor.is_floating_point() else tensor
