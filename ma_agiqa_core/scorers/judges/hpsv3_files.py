"""The published file of HPSv3: weights over a Qwen2-VL whose config and tokenizer lie elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import MaAgiqaError, MissingFileError, first_line
from ...model_files.hub import hub_file
from ...model_files.transformers_folder import TOKENIZER_FILES, fingerprint, model_type, read_json
from ...semantic.chat_model_files import load_config, load_processor, not_in_language_model
from ...semantic.placement import check_fits, device_of, dispatch, plan_device_map
from ...semantic.quantization import quantize_linears
from ...semantic.weight_loading import fill
from .asking import Reader
from .hpsv3_instruction import REWARD_TOKEN
from .lazy_reader import LazyReader
from .qwen_files import check_processor_files

REPOSITORY, FILE = "MizzenAI/HPSv3", "HPSv3.safetensors"
BASE = "Qwen/Qwen2-VL-7B-Instruct"
_OF_THE_BASE = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "chat_template.json",
)
_EMBEDDING, _HEAD = "embed_tokens.weight", "rm_head."


@dataclass(frozen=True, eq=False)
class LoadedHpsV3:
    """What a reader is made of.

    Attributes:
        model: A Qwen2-VL with the reward head in the place of its LM head, in eval mode.
        processor: The base's, which knows the reward token.
        reward_token_id: Its id.
        device: Where inputs go while accelerate keeps weights elsewhere.
    """

    model: Any
    processor: Any
    reward_token_id: int
    device: torch.device


class LazyHpsV3(LazyReader):
    """Loads HPSv3 when it is first needed: see `LazyReader`.

    Args:
        folder: With the published file.
        name: For messages.
        make: As for `LazyReader`, with `base=` the folder of config.json and the processor.
        check: As for `LazyReader`.
        local_files_only: Never use the network.
        options: As for `LazyReader`.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        make: Callable[..., Reader],
        check: Any,
        *,
        local_files_only: bool,
        **options: Any,
    ) -> None:
        self.base = base_folder(folder, local_files_only=local_files_only)
        super().__init__(folder, name, partial(make, base=self.base), check, **options)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the published file, and of what describes its base."""
        return fingerprint(self.base, [self.folder / FILE])

    def _read_config(self) -> dict[str, Any]:
        return read_json(self.base / "config.json")


def has_hpsv3(folder: Path) -> bool:
    """Whether the published file is there."""
    return (folder / FILE).is_file()


def base_folder(folder: Path, *, local_files_only: bool = False) -> Path:
    """Where config.json and the processor's files are: in the folder itself, or the base's in the Hub's cache.

    Raises:
        FileNotFoundError: They are in neither and cannot be downloaded.
    """
    if (folder / "config.json").is_file() and any((folder / name).is_file() for name in TOKENIZER_FILES):
        return folder
    try:
        found = [hub_file(BASE, name, local_files_only=local_files_only) for name in _OF_THE_BASE]
    except FileNotFoundError as error:
        raise MissingFileError(
            f"Expected config.json and the tokenizer of {BASE} beside {FILE} in {str(folder)!r}, got none, nor are "
            f"they in the local Hub cache. Run `hf download {BASE} {' '.join(_OF_THE_BASE)}`, or copy these files "
            "into the folder."
        ) from error
    return found[0].parent


def check_hpsv3(folder: Path) -> None:
    """Looks at the table of contents of the published file.

    Raises:
        ValueError: It is missing, damaged or another model's.
    """
    _embedding_rows(folder)


def read_network(
    folder: Path,
    base: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantization: str | None = None,
    device_map: Any = None,
) -> LoadedHpsV3:
    """Loads the network; its reward head stays in float32, as published.

    Raises:
        ImportError: The library for the quantization is not installed.
        ValueError: Files are missing, damaged, or do not belong together; too little memory.
    """
    rows, sizes = _embedding_rows(folder)
    check_processor_files(base)
    config, processor = load_config(base), load_processor(base)
    if (kind := model_type(config)) != "qwen2_vl":
        raise MaAgiqaError(
            f"Expected the config.json of {BASE} (model_type 'qwen2_vl') in {str(base)!r}, got {kind!r}. "
            f"Copy it beside {FILE}."
        )
    reward = _add_reward_token(processor.tokenizer, rows, folder)
    network = _empty(config, rows, sizes)
    outside = not_in_language_model(network)
    if device_map is None:
        check_fits(network, device, dtype, quantization, what="HPSv3", skip=outside)
        plan = {"": device}
    else:
        no_split = tuple(getattr(network, "_no_split_modules", None) or ())
        plan = plan_device_map(network, device_map, dtype, no_split, quantization=quantization, what="HPSv3")
    fill(
        network,
        folder,
        _own_name,
        device_of=lambda name: device_of(plan, name),
        dtype=dtype,
        files=[folder / FILE],
    )
    if quantization is not None:
        quantize_linears(network, quantization, skip=outside)
    if device_map is not None:
        dispatch(network, plan)
    else:
        network.to(device)  # the tables of its rotary embeddings
    network.lm_head.float()
    first = next((place for place in plan.values() if place.type != "cpu"), torch.device("cpu"))
    return LoadedHpsV3(network.eval().requires_grad_(False), processor, reward, device if device_map is None else first)


def _empty(config: Any, rows: int, sizes: list[int]) -> Any:
    """The network with its weights on the meta device; what it computes itself is there."""
    import transformers
    from accelerate import init_empty_weights

    config.get_text_config().vocab_size = rows
    config.tie_word_embeddings = False
    with init_empty_weights(include_buffers=False):
        network = transformers.Qwen2VLForConditionalGeneration(config)
        first, second, third = sizes
        network.lm_head = nn.Sequential(  # the numbers of the layers are the published ones; 2 was a dropout
            nn.Linear(config.get_text_config().hidden_size, first),
            nn.ReLU(),
            nn.Identity(),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.Linear(second, third),
        )
    return network


def _own_name(published: str) -> str | None:
    """The name in transformers since 4.52 for a key of the published file; None for what is not needed."""
    if published.startswith("lm_head."):
        return None
    if published.startswith(_HEAD):
        return f"lm_head.{published.removeprefix(_HEAD)}"
    if published.startswith("visual."):
        return f"model.{published}"
    if published.startswith(("model.visual.", "model.language_model.")):
        return published
    return f"model.language_model.{published.removeprefix('model.')}"


def _embedding_rows(folder: Path) -> tuple[int, list[int]]:
    """How many tokens the published file has embeddings of, and the widths of its head's layers.

    Raises:
        ValueError: It is missing, damaged or another model's.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(folder) / FILE
    if not path.is_file():
        raise MaAgiqaError(f"Expected {FILE} in {str(folder)!r}, got none. Download it from {REPOSITORY}.")
    try:
        with safe_open(path, framework="pt") as weights:
            names = set(weights.keys())
            embedding = next((name for name in names if name.endswith(_EMBEDDING)), None)
            layers = [f"{_HEAD}{number}.weight" for number in (0, 3, 5)]
            if embedding is None or not names.issuperset(layers):
                raise MaAgiqaError(
                    f"Expected HPSv3's weights in {str(path)!r}, got no {layers[0] if embedding else _EMBEDDING}. "
                    f"Download the file again from {REPOSITORY}."
                )
            rows = weights.get_slice(embedding).get_shape()[0]
            return rows, [weights.get_slice(name).get_shape()[0] for name in layers]
    except (SafetensorError, OSError) as error:
        raise MaAgiqaError(
            f"Expected whole weights in {str(path)!r}, got {first_line(error)} Download the file again."
        ) from error


def _add_reward_token(tokenizer: Any, rows: int, folder: Path) -> int:
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken(REWARD_TOKEN, special=True, normalized=False)])
    ids = list(tokenizer(REWARD_TOKEN, add_special_tokens=False)["input_ids"])
    if len(ids) != 1 or ids[0] >= rows:
        raise MaAgiqaError(
            f"Expected one token below {rows} for {REWARD_TOKEN!r}, got {ids}. Use the tokenizer of {BASE} with "
            f"{str(folder)!r}."
        )
    return int(ids[0])
