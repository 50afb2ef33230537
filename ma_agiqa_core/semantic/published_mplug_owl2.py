"""mPLUG-Owl2 as its authors publish it: the network with its tokenizer and its preprocessing, from one folder.

The prompt is the one of the published extraction, `USER: {question}\\n<|image|> ASSISTANT:` without a system
prompt. The text before and after the picture is tokenized apart, as there; the beginning-of-sequence token
stands only at the start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import MaAgiqaError
from ..model_files.transformers_folder import read_json
from ..preprocess import ClipPreprocessing
from .mplug_owl2 import MplugOwl2
from .mplug_owl2.config import OwlConfig
from .placement import check_fits, device_of, dispatch, entry_device, plan_device_map
from .quantization import quantize_linears
from .weight_loading import fill

logger = logging.getLogger(__name__)

Tokenize = Callable[[str], list[int]]
NOT_QUANTIZED = ("vision_model", "visual_abstractor")  # 0.4 of 8.1 billion weights, and the first to see the picture
BEFORE_PICTURE, AFTER_PICTURE = "USER: {question}\n", " ASSISTANT:"


class PublishedMplugOwl2:
    """Answers with features: what mPLUG-Owl2 makes of pictures and questions.

    Args:
        network: In eval mode, where it is to compute.
        preprocessing: The pictures' way in.
        tokenize: Text to token ids, without special tokens.
        bos_token_id: The beginning of a sequence.
        device: Where pictures enter the network while accelerate keeps its weights elsewhere; else they follow it.
        dtype: What they are computed in.
    """

    def __init__(
        self,
        network: MplugOwl2,
        preprocessing: ClipPreprocessing,
        tokenize: Tokenize,
        bos_token_id: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.network, self.preprocessing = network, preprocessing
        self._tokenize, self._bos_token_id = tokenize, bos_token_id
        self._device, self._dtype = device, dtype

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        device: torch.device,
        dtype: torch.dtype,
        quantization: str | None = None,
        device_map: Any = None,
    ) -> PublishedMplugOwl2:
        """Loads config.json, the shards, the tokenizer and preprocessor_config.json.

        Raises:
            ValueError: A file is missing, damaged or another model's; too little memory.
        """
        preprocessing, tokenize, bos_token_id = read_all_but_weights(folder)
        network = MplugOwl2.empty(read_json(folder / "config.json"))
        if device_map is None:
            check_fits(network, device, dtype, quantization, what="mPLUG-Owl2", skip=NOT_QUANTIZED)
            plan = {"": device}
        else:
            no_split = network.no_split_modules
            plan = plan_device_map(network, device_map, dtype, no_split, quantization=quantization, what="mPLUG-Owl2")

        def quantize() -> None:  # shard by shard: all of them in 16 bits might not fit
            if quantization is not None:
                quantize_linears(network, quantization, skip=NOT_QUANTIZED)

        fill(
            network,
            folder,
            MplugOwl2.own_name,
            device_of=lambda name: device_of(plan, name),
            dtype=dtype,
            after_shard=quantize,
        )
        if device_map is not None:
            dispatch(network, plan)
        device = device_of(plan, "vision_model.embeddings")
        return cls(network, preprocessing, tokenize, bos_token_id, device=device, dtype=dtype)

    @property
    def hidden_size(self) -> int:
        return self.network.hidden_size

    def prompt_ids(self, question: str) -> list[int]:
        """Token ids of a question's whole prompt; the picture stands at `MplugOwl2.image_token_id`."""
        return self.ids_around_picture(BEFORE_PICTURE.format(question=question), AFTER_PICTURE)

    def ids_around_picture(self, before: str, after: str) -> list[int]:
        """Token ids of a beginning, a text, the picture and another text; the texts are tokenized apart."""
        return [self._bos_token_id, *self._tokenize(before), self.network.image_token_id, *self._tokenize(after)]

    def pixel_values(self, pictures: Sequence[Tensor]) -> Tensor:
        """Pictures, uint8 (3, H, W) RGB of any sizes, as the network takes them, where it takes them."""
        return self.preprocessing(pictures, entry_device(self.network, self._device), self._dtype)

    def features(self, pictures: Sequence[Tensor], questions: Mapping[str, str]) -> dict[str, Tensor]:
        """The mean last hidden state over all positions, for every picture and question.

        Args:
            pictures: uint8 (3, H, W) RGB, of any sizes.
            questions: By name.

        Returns:
            By the questions' names: (N, D) float32 on the CPU.
        """
        prompts = {name: self.prompt_ids(question) for name, question in questions.items()}
        vectors = self.network.features(self.pixel_values(pictures), prompts)
        return {name: vector.cpu() for name, vector in vectors.items()}


def read_all_but_weights(folder: Path) -> tuple[ClipPreprocessing, Tokenize, int]:
    """The preprocessing, the tokenizer and the id of a sequence's beginning; config.json is checked as well.

    Cheap: it finds what is wrong with a folder before 16 GB are read.

    Raises:
        ValueError: A file is missing, damaged or another model's.
    """
    config = _read_config(folder)
    tokenize, bos_token_id, size = read_tokenizer(folder)
    if size > config.vocab_size:
        raise MaAgiqaError(
            f"Expected a tokenizer of at most {config.vocab_size} tokens in {str(folder)!r}, got {size}. "
            "Use the one that came with the model."
        )
    return _read_preprocessing(folder, config.vision.image_size), tokenize, bos_token_id


def read_tokenizer(folder: Path) -> tuple[Tokenize, int, int]:
    """A LLaMA tokenizer as text -> ids without special tokens, the id of a sequence's beginning, and its size.

    sentencepiece reads tokenizer.model, the file that the published slow tokenizer used; tokenizer.json is
    taken where that is absent.

    Raises:
        ValueError: Neither file is there, or it is damaged.
    """
    if (path := folder / "tokenizer.model").is_file():
        from sentencepiece import SentencePieceProcessor

        try:
            if not (content := path.read_bytes()):  # sentencepiece takes that for a model
                raise RuntimeError("it is empty")
            pieces = SentencePieceProcessor(model_proto=content)
        except (RuntimeError, OSError) as error:
            raise MaAgiqaError(
                f"Expected a sentencepiece model, got {str(path)!r}: {str(error).rstrip('.')}. Download it again."
            ) from error
        if pieces.bos_id() < 0:
            raise MaAgiqaError(f"Expected the token '<s>' in {str(path)!r}, got none. Use LLaMA's tokenizer.")
        return pieces.encode, pieces.bos_id(), pieces.vocab_size()
    if (path := folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more special
            raise MaAgiqaError(f"Expected a tokenizer, got {str(path)!r}: {error}. Download it again.") from error
        bos = tokenizer.token_to_id("<s>")
        if bos is None:
            raise MaAgiqaError(f"Expected the token '<s>' in {str(path)!r}, got none. Use LLaMA's tokenizer.")
        return partial(_token_ids, tokenizer), bos, tokenizer.get_vocab_size()
    raise MaAgiqaError(
        f"Expected tokenizer.model or tokenizer.json in {str(folder)!r}, got neither. "
        "Download the model's whole repository."
    )


def _token_ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def _read_config(folder: Path) -> OwlConfig:
    config = read_json(folder / "config.json")
    try:
        return OwlConfig.from_published(config)
    except (ValueError, TypeError) as error:
        raise MaAgiqaError(
            f"Expected the config of an mPLUG-Owl2 in {str(folder / 'config.json')!r}: {error}"
        ) from error


def _read_preprocessing(folder: Path, image_size: int) -> ClipPreprocessing:
    path = folder / "preprocessor_config.json"
    if not path.exists():
        logger.warning("no %s: taking CLIP's settings, which are mPLUG-Owl2's", path)
        return ClipPreprocessing(image_size)
    settings = read_json(path)
    try:
        preprocessing = ClipPreprocessing.from_config(settings)
    except ValueError as error:
        raise MaAgiqaError(f"{error} It is in {str(folder)!r}.") from error
    if preprocessing.size != image_size:
        raise MaAgiqaError(
            f"Expected pictures of {image_size} px from preprocessor_config.json in {str(folder)!r}, got "
            f"{preprocessing.size}. Use the file that came with the model."
        )
    return preprocessing
