"""mPLUG-Owl2, from a picture and questions to what the model thinks at its last layer; inference only.

Follows the published model (github.com/X-PLUG/mPLUG-Owl, Apache-2.0) and its parameter names. What we leave out is
exactly redundant for features:
- A picture is encoded once for all questions.
- The text before the picture comes out the same for every picture, since attention is causal: its keys, values and
  the sum of its last hidden states are computed once and kept.
- All questions about all pictures go through the layers as one padded batch.
- There is no LM head, and no hidden state is kept but the running one.
- Where only the end of each prompt is asked for (`answers`), the last layer computes nothing else but keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...arguments.options import first_names
from ...compute.caller_state import as_loaded
from ...errors import MaAgiqaError
from .abstractor import VisualAbstractor
from .config import OwlConfig
from .language import KeysValues, LanguageLayer, Packing, rotation_at
from .prefix_cache import Prefix, PrefixCache
from .vision import VisionModel

IMAGE_TOKEN_ID = -200  # stands in a prompt where the picture belongs
_KEPT_PREFIXES = 16  # about 17 MB for a published prompt and the 7B model in half precision
_KEPT_TOKENS = 1024  # 0.5 GB of that model: questions about pictures' own prompts are many, and may be long

# in published checkpoints, but not learned: we compute them
_COMPUTED = (".rotary_emb.inv_freq", ".attention.q_pos_embed", ".attention.k_pos_embed")


class MplugOwl2(nn.Module):
    """An mPLUG-Owl2 that reads pictures and questions.

    Attributes:
        image_token_id: What stands in a prompt for the picture.
        hidden_size: Width of the features.
        no_split_modules: Names of the classes that must stay on one device as a whole (for accelerate).
    """

    image_token_id = IMAGE_TOKEN_ID
    no_split_modules = ("LanguageLayer", "VisionEmbeddings", "VisionLayer", "AbstractorLayer")

    def __init__(self, config: OwlConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden_size = config.hidden_size
        self.vision_model = VisionModel(config.vision)
        self.visual_abstractor = VisualAbstractor(config.abstractor, config.hidden_size)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(LanguageLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self._prefix_cache = PrefixCache(_KEPT_PREFIXES, _KEPT_TOKENS)
        self.requires_grad_(False).eval()

    @classmethod
    def empty(cls, config: Mapping[str, Any]) -> MplugOwl2:
        """The model of a published config with its parameters on the meta device, to be filled; it has no buffers.

        Raises:
            ValueError: A config that is not of an mPLUG-Owl2 of the published form.
        """
        with torch.device("meta"):
            return cls(OwlConfig.from_published(config))

    @classmethod
    def from_reference(cls, config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> MplugOwl2:
        """The model of a published config and state dict, whose tensors it takes over without a copy.

        Raises:
            ValueError: An unfit config, or keys or shapes that are not those of the config's model.

        Example:
            >>> import torch
            >>> from ma_agiqa_core.semantic import MplugOwl2
            >>> sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
            >>> vision = {**sizes, "image_size": 28, "patch_size": 14}
            >>> abstractor = {**sizes, "encoder_hidden_size": 8, "num_learnable_queries": 4, "grid_size": 2}
            >>> visual = {"visual_model": vision, "visual_abstractor": abstractor}
            >>> config = {**sizes, "vocab_size": 10, "visual_config": visual}
            >>> names = MplugOwl2.empty(config).named_parameters()
            >>> weights = {f"model.{name}": torch.zeros(parameter.shape) for name, parameter in names}
            >>> owl = MplugOwl2.from_reference(config, weights)
            >>> owl.features(torch.zeros(3, 3, 28, 28), {"question": [1, 2, owl.image_token_id, 3]})["question"].shape
            torch.Size([3, 8])
        """
        model = cls.empty(config)
        named = {key: own for key in state_dict if (own := cls.own_name(key)) is not None}
        parameters = dict(model.named_parameters())
        _refuse_keys("no unknown keys", [key for key, own in named.items() if own not in parameters])
        found = set(named.values())
        _refuse_keys("no missing keys", [f"model.{own}" for own in parameters if own not in found])
        for key, own in named.items():
            wanted, got = tuple(parameters[own].shape), tuple(state_dict[key].shape)
            if got != wanted:
                raise MaAgiqaError(f"Expected {key} {wanted}, got {got}. Use the config.json of these weights.")
        model.load_state_dict({own: state_dict[key] for key, own in named.items()}, assign=True)
        return model

    @staticmethod
    def own_name(published_key: str) -> str | None:
        """The name of our parameter for a key of a published state dict; None for what is not needed."""
        if published_key.startswith("lm_head.") or published_key.endswith(_COMPUTED):
            return None
        return published_key.removeprefix("model.")

    @as_loaded(float32_by_default=False)
    def features(self, pixel_values: Tensor, prompts: Mapping[str, Sequence[int] | Tensor]) -> dict[str, Tensor]:
        """Asks every question about every picture.

        Args:
            pixel_values: (B, 3, S, S) float, RGB, normalised as for CLIP.
            prompts: Token ids of each question, (L,) or (1, L), with `image_token_id` where the picture belongs.

        Returns:
            For each question (B, `hidden_size`) float32: the mean over all positions, text and image, of the last
            hidden state after the final norm. Neither other pictures nor other questions change it, up to rounding.

        Raises:
            ValueError: Pixels of another shape or kind, or a prompt that has not exactly one image token.
        """
        self._check_pixels(pixel_values)
        asked = [self._prompt(name, ids) for name, ids in prompts.items()]
        if not asked or not len(pixel_values):
            return {name: pixel_values.new_zeros(len(pixel_values), self.hidden_size).float() for name in prompts}
        prefix, image, text = self.last_hidden_states(self.image_tokens(pixel_values), asked)
        means = {}
        for q, (name, prompt) in enumerate(zip(prompts, asked, strict=True)):
            after = len(prompt.after)
            total = image[q].sum(1, dtype=torch.float32) + text[q, :, :after].sum(1, dtype=torch.float32)
            total += prefix.sums[q].to(total.device)
            means[name] = total / (prefix.lengths[q] + image.shape[2] + after)
        return means

    @as_loaded(float32_by_default=False)
    def answers(self, pixel_values: Tensor, prompts: Mapping[str, Sequence[int] | Tensor]) -> Tensor:
        """Where the model is about to answer: what its LM head would be given.

        Args:
            pixel_values: (B, 3, S, S) float, RGB, normalised as for CLIP.
            prompts: Token ids of each question, as for `features`; there is text after the picture.

        Returns:
            (B, Q, `hidden_size`) in the network's precision: the last hidden state at each prompt's last token.

        Raises:
            ValueError: As for `features`, or a prompt that ends with the picture.
        """
        self._check_pixels(pixel_values)
        asked = [self._prompt(name, ids) for name, ids in prompts.items()]
        if ending := [name for name, prompt in zip(prompts, asked, strict=True) if not prompt.after]:
            raise MaAgiqaError(f"Expected text after the picture in prompt {ending[0]!r}, got none.")
        _, packing, ends = self._run(self.image_tokens(pixel_values), asked, only_ends=True)
        return ends.unflatten(0, (packing.questions, packing.pictures)).transpose(0, 1)

    def image_tokens(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, M, D), what the language model sees of a picture."""
        return self.visual_abstractor(self.vision_model(pixel_values))

    def last_hidden_states(self, image_tokens: Tensor, prompts: Sequence[Prompt]) -> tuple[Prefix, Tensor, Tensor]:
        """Of Q prompts about B pictures, after the final norm.

        Returns:
            What is kept of the text before the picture; the image tokens (Q, B, M, D); the text after the picture
            (Q, B, T, D), padded behind its end.
        """
        prefix, packing, x = self._run(image_tokens, prompts, only_ends=False)
        return prefix, *packing.unpack(x)

    def _run(
        self, image_tokens: Tensor, prompts: Sequence[Prompt], *, only_ends: bool
    ) -> tuple[Prefix, Packing, Tensor]:
        """Of Q prompts about B pictures, after the final norm: all tokens, packed, or the last of each (Q B, D)."""
        prefix = self._prefix(tuple(prompt.before for prompt in prompts), image_tokens.device, image_tokens.dtype)
        T = max(len(prompt.after) for prompt in prompts)
        ids = [[*prompt.after, *[0] * (T - len(prompt.after))] for prompt in prompts]
        text = self._embed(ids, image_tokens.device)  # (Q, T, D)
        Q, (B, M, _) = len(prompts), image_tokens.shape
        packing = Packing(Q, B, M, T)
        x = torch.cat(
            [
                image_tokens.to(text.dtype).expand(Q, -1, -1, -1).flatten(0, 2),
                text[:, None].expand(-1, B, -1, -1).flatten(0, 2),
            ]
        )
        mask = _mask(prefix.lengths, packing, x)
        last = torch.tensor([len(prompt.after) - 1 for prompt in prompts], device=x.device).repeat_interleave(B)
        x, _ = self._through_layers(x, packing, prefix, mask, last if only_ends else None)
        return prefix, packing, self.norm(x)

    def clear_prefix_cache(self) -> None:
        """Drops what was kept of the text before pictures; needed only after parameters were changed in place."""
        self._prefix_cache.clear()

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self.clear_prefix_cache()
        return super().load_state_dict(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MplugOwl2:
        self.clear_prefix_cache()  # weights move or change their type: .to(), .half(), .cuda()
        return super()._apply(fn, recurse)

    def _prefix(self, befores: tuple[tuple[int, ...], ...], device: torch.device, dtype: torch.dtype) -> Prefix:
        def compute() -> Prefix:
            if len(befores) == 1:
                return self._read_prefix(befores[0], device)
            return Prefix.join([self._prefix((before,), device, dtype) for before in befores])

        return self._prefix_cache.get((befores, device, dtype), compute)

    def _read_prefix(self, before: tuple[int, ...], device: torch.device) -> Prefix:
        if not before:
            return Prefix((0,), (), torch.zeros(1, self.hidden_size, dtype=torch.float32, device=device))
        nothing = Prefix((0,), (), torch.empty(0))
        packing = Packing(questions=1, pictures=1, image_tokens=0, text_tokens=len(before))
        x, keys_values = self._through_layers(self._embed([before], device)[0], packing, nothing, None)
        kept = tuple((key[None, None], value[None, None]) for key, value in keys_values)
        return Prefix((len(before),), kept, self.norm(x).sum(0, keepdim=True, dtype=torch.float32))

    def _embed(self, ids: Sequence[Sequence[int]], device: torch.device) -> Tensor:
        return self.embed_tokens(torch.tensor(ids, dtype=torch.long, device=device)).to(device)

    def _through_layers(
        self, x: Tensor, packing: Packing, prefix: Prefix, mask: Tensor | None, last: Tensor | None = None
    ) -> tuple[Tensor, list[KeysValues]]:
        """All tokens; with `last`, (Q B,) places in the texts, after the last layer only these."""
        positions = packing.positions(torch.tensor(prefix.lengths, device=x.device))
        rotation = rotation_at(positions, self.config.head_dim, self.config.rope_theta, x.dtype)
        computed = []
        for index, layer in enumerate(self.layers):
            before = prefix.keys_values[index] if prefix.keys_values else None
            ends = None
            if last is not None and mask is not None and index == len(self.layers) - 1:
                sequence = torch.arange(len(last), device=x.device)
                ends = packing.image_rows + sequence * packing.text_tokens + last
                mask = mask[sequence, :, packing.image_tokens + last][:, :, None]
            x, keys_values = layer(x, packing, rotation, mask, before, ends)
            if mask is None:
                computed.append(keys_values)
        return x, computed

    def _check_pixels(self, pixel_values: Tensor) -> None:
        S = self.config.vision.image_size
        if pixel_values.ndim != 4 or pixel_values.shape[1:] != (3, S, S) or not pixel_values.is_floating_point():
            got = f"{pixel_values.dtype} {tuple(pixel_values.shape)}"
            raise MaAgiqaError(
                f"Expected float pixel_values (B, 3, {S}, {S}), got {got}. Use the model's preprocessing."
            )

    def _prompt(self, name: str, token_ids: Sequence[int] | Tensor) -> Prompt:
        ids = torch.as_tensor(token_ids)
        ids = ids[0] if ids.ndim == 2 and len(ids) == 1 else ids
        if ids.ndim != 1 or (ids.numel() and (ids.is_floating_point() or ids.dtype == torch.bool)):
            raise MaAgiqaError(f"Expected token ids (L,) in prompt {name!r}, got {ids.dtype} {tuple(ids.shape)}.")
        listed = [int(token) for token in ids.tolist()]
        if (count := listed.count(IMAGE_TOKEN_ID)) != 1:
            raise MaAgiqaError(
                f"Expected exactly one image token ({IMAGE_TOKEN_ID}) in prompt {name!r}, got {count}. "
                "Put it where the picture belongs."
            )
        V = self.config.vocab_size
        if strange := [token for token in listed if token != IMAGE_TOKEN_ID and not 0 <= token < V]:
            raise MaAgiqaError(
                f"Expected token ids below {V} in prompt {name!r}, got {strange[0]}. Use this model's own tokenizer."
            )
        image = listed.index(IMAGE_TOKEN_ID)
        return Prompt(tuple(listed[:image]), tuple(listed[image + 1 :]))


@dataclass(frozen=True)
class Prompt:
    """Token ids before and after the picture."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def _mask(lengths: tuple[int, ...], packing: Packing, like: Tensor) -> Tensor:
    """What each token may see, 0 or -inf: (Q B, 1, M + T, P + M + T), all real text before the picture included."""
    Q, B, M, T = packing
    before = torch.arange(max(lengths), device=like.device) < torch.tensor(lengths, device=like.device)[:, None]
    causal = torch.ones(M + T, M + T, dtype=torch.bool, device=like.device).tril()
    seen = torch.cat([before[:, None].expand(-1, M + T, -1), causal.expand(Q, -1, -1)], dim=2)
    mask = torch.zeros_like(seen, dtype=like.dtype).masked_fill(~seen, -torch.inf)
    return mask[:, None, None].expand(-1, B, -1, -1, -1).flatten(0, 1)


def _refuse_keys(expected: str, keys: list[str]) -> None:
    if keys:
        raise MaAgiqaError(
            f"Expected {expected}, got {len(keys)}: {first_names(keys)}. Use the config.json of these weights."
        )
