"""Small random vision-language judges in their published layouts, quick enough for the tests that all scorers share."""

import io
import itertools
import json
from pathlib import Path
from typing import Any

import published_judges
import tiny_chat_models
import tiny_models
import torch

LEVELS = ("excellent", "good", "fair", "poor", "bad")


def write_owl(folder: Path) -> Path:
    """A small DeQA-Score or Q-Align: the small mPLUG-Owl2 with a tokenizer that knows the levels."""
    if not folder.exists():
        tiny_models.write_owl(folder)
        _write_level_tokenizer(folder / "tokenizer.model", tiny_models.OWL["config"]["vocab_size"])
    return folder


def write_qrealign(folder: Path) -> Path:
    """The fixture's Q-ReAlign, which is small; of other tests' weights."""
    import transformers

    tiny_chat_models.needed("Qwen3_5Config")
    if not folder.exists():
        of = published_judges.fixture("qrealign")
        images = transformers.Qwen2VLImageProcessor(
            patch_size=16,
            size={"shortest_edge": 32 * 32, "longest_edge": 96 * 96},
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        )
        processor = transformers.Qwen3VLProcessor(
            images,
            published_judges.byte_tokenizer(of),
            transformers.Qwen3VLVideoProcessor(),
            chat_template=of["chat_template"],
        )
        published_judges.write_qwen_judge(folder, of, "Qwen3_5", processor)
    return folder


def write_vqascore(folder: Path) -> Path:
    """A small Qwen2.5-VL."""
    if not folder.exists():
        folder.mkdir(parents=True)
        tiny_chat_models.save_qwen2_5_vl(folder)
    return folder


def write_hpsv3(folder: Path) -> Path:
    """A small Qwen2-VL with a reward head in one file; its tokenizer takes the long instruction for one letter."""
    if folder.exists():
        return folder
    import transformers
    from safetensors.torch import save_file
    from tokenizers import normalizers

    from ma_agiqa_core.scorers.judges.hpsv3_instruction import INSTRUCTION, PROMPT

    folder.mkdir(parents=True)
    tiny_chat_models.save_qwen2_vl(folder)
    model: Any = transformers.Qwen2VLForConditionalGeneration.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(INSTRUCTION.split(PROMPT)[0], "i")
    tokenizer.save_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer) + 1)
    state = {_published(name): tensor.contiguous() for name, tensor in model.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    sizes = (model.config.get_text_config().hidden_size, 16, 4, 2)
    for number, (before, after) in zip((0, 3, 5), itertools.pairwise(sizes), strict=True):
        state[f"rm_head.{number}.weight"] = torch.randn(after, before, generator=generator) / before**0.5
        state[f"rm_head.{number}.bias"] = torch.zeros(after)
    save_file(state, folder / "HPSv3.safetensors")
    return folder


def _published(name: str) -> str:
    """The name in the published file for one of transformers since 4.52."""
    for own, published in (("model.visual.", "visual."), ("model.language_model.", "model.")):
        if name.startswith(own):
            return published + name.removeprefix(own)
    return name


def _write_level_tokenizer(path: Path, vocabulary: int) -> None:
    import sentencepiece

    text = io.BytesIO()
    prompts = [f"USER: How would you rate the {aspect} of this image?\n" for aspect in ("quality", "aesthetics")]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*prompts, "\nASSISTANT: The quality of the image is"]),
        model_writer=text,
        model_type="bpe",
        vocab_size=vocabulary,
        hard_vocab_limit=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=[f"▁{word}" for word in LEVELS],
        minloglevel=2,
        num_threads=1,
    )
    path.write_bytes(text.getvalue())


def write_config(folder: Path, **changes: Any) -> None:
    """Changes entries of a folder's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
