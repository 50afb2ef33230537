"""Tiny text encoders and tokenizers, and the prompts of the calls."""

from collections.abc import Callable
from typing import Any

import torch

from .making import LENGTH, LETTERS, NEGATIVE_PROMPTS, PROMPTS, awaken, random


def tokenizer() -> Any:
    """One token per letter; ends with an end token, padded with it."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate(["<pad>", "<unk>", "<end>", *LETTERS])}
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    letters.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=letters,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<end>",
        model_max_length=LENGTH,
        model_input_names=["input_ids", "attention_mask"],  # transformers 4 would add token_type_ids
    )


def clip(seed: int, *, projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(LETTERS) + 3,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        projection_dim=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return awaken((CLIPTextModelWithProjection if projected else CLIPTextModel)(config), seed)


def t5(seed: int, width: int = 8) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(LETTERS) + 3, d_model=width, d_kv=4, d_ff=8, num_layers=1, num_heads=2, pad_token_id=0
    )
    return awaken(T5EncoderModel(config), seed)


def umt5(seed: int) -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(vocab_size=len(LETTERS) + 3, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    return awaken(UMT5EncoderModel(config), seed)


def gemma(seed: int) -> Any:
    from transformers import Gemma2Config, Gemma2Model

    config = Gemma2Config(
        vocab_size=len(LETTERS) + 3,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=4,
    )
    return awaken(Gemma2Model(config), seed)


def chat_glm(seed: int) -> Any:
    from diffusers.pipelines.kolors import ChatGLMModel
    from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig

    config = ChatGLMConfig(
        num_layers=2,
        padded_vocab_size=len(LETTERS) + 3,
        hidden_size=8,
        ffn_hidden_size=8,
        kv_channels=4,
        num_attention_heads=2,
        seq_length=256,
        multi_query_attention=True,
        multi_query_group_num=1,
        original_rope=True,
        use_cache=False,
    )
    return awaken(ChatGLMModel(config), seed)


class KolorsTokenizer:
    """Gives the numbers of positions too, as ChatGLM's own tokenizer."""

    def __init__(self) -> None:
        self.letters = tokenizer()

    def __call__(self, texts: list[str], **settings: Any) -> Any:
        tokens = self.letters(texts, **settings)
        tokens["position_ids"] = torch.arange(tokens["input_ids"].shape[1]).expand_as(tokens["input_ids"])
        return tokens


def text(prompts: int) -> dict[str, Any]:
    """Prompts of up to 10 letters and unlike negative ones."""
    if prompts == 1:
        return {"prompt": PROMPTS[0], "negative_prompt": NEGATIVE_PROMPTS[0]}
    return {"prompt": list(PROMPTS[:prompts]), "negative_prompt": list(NEGATIVE_PROMPTS[:prompts])}


def lengths_mask(prompts: int, *, negative: bool = False) -> torch.Tensor:
    """Which of six tokens belong to each prompt; the longest fills them: diffusers 0.35 knows no other padding."""
    lengths = torch.tensor([[6], [3], [4]] if negative else [[6], [5], [3]])
    return (torch.arange(6) < lengths[:prompts]).long()


def vectors(*, mask: bool = False, negative: bool = True) -> Callable[[int], dict[str, Any]]:
    """Prompt vectors instead of text: (prompts, 6, 8)."""

    def inputs(prompts: int) -> dict[str, Any]:
        made: dict[str, Any] = {"prompt_embeds": random(1, prompts, 6, 8)}
        if negative:
            made["negative_prompt_embeds"] = random(2, prompts, 6, 8)
        if mask:
            made["prompt_embeds_mask"] = lengths_mask(prompts)
            made["negative_prompt_embeds_mask"] = lengths_mask(prompts, negative=True)
        return made

    return inputs


def positive(prompts: int) -> dict[str, Any]:
    """Text without negative prompts."""
    return {"prompt": text(prompts)["prompt"]}


def flux_text(prompts: int) -> dict[str, Any]:
    return {**text(prompts), "max_sequence_length": LENGTH}
