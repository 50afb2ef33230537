"""A decoder of transformers for its last hidden states: computing logits at every position is what it is spared."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import MaAgiqaError


class Decoder(Protocol):
    """What reads a chat.

    Attributes:
        model: Of transformers, in eval mode.
        head: What makes logits of hidden states; None if it was dropped.
    """

    model: Any

    @property
    def head(self) -> nn.Module | None: ...

    def __call__(self, **inputs: Any) -> tuple[Tensor, Any]:
        """Last hidden states (B, L, D) after the last norm, and the model's output."""
        ...

    def at_ends(self, ends: Tensor | None) -> contextlib.AbstractContextManager[None]:
        """Inside, hidden states are read at `ends` (B,), the place of one token in each sequence; None is nowhere."""
        ...


class OwnDecoder:
    """A model that nobody else uses: its LM head is taken out of the way for good.

    Args:
        model: Of transformers, in eval mode.
        keeps_head: It stays with the model, for `head`.
        ends_only: What comes out is read where `at_ends` says, and only there: the last layer's MLP, most of that
            layer, computes nothing else. Keys and values of all tokens do not depend on it.

    Raises:
        ValueError: The model has no LM head.
    """

    def __init__(self, model: Any, *, keeps_head: bool = False, ends_only: bool = False) -> None:
        if (head := model.get_output_embeddings()) is None:
            raise MaAgiqaError(f"Expected a decoder with an LM head, got {type(model).__name__}. Use a chat model.")
        self.model, self._last = model, _KeptHead(head if keeps_head else None)
        model.set_output_embeddings(self._last)
        self._last_mlp = _MlpAtEnds.of(model) if ends_only else None

    @contextlib.contextmanager
    def at_ends(self, ends: Tensor | None) -> Iterator[None]:
        """Inside, hidden states are right at `ends` (B,), the place of one token in each sequence; None is nowhere."""
        if self._last_mlp is None:
            yield
            return
        self._last_mlp.ends = torch.empty(0, dtype=torch.long) if ends is None else ends
        try:
            yield
        finally:
            self._last_mlp.ends = None

    @property
    def head(self) -> nn.Module | None:
        return self._last.inner

    def __call__(self, **inputs: Any) -> tuple[Tensor, Any]:
        output = self.model(**inputs, return_dict=True)
        return self._last.take(), output


class BorrowedDecoder:
    """A model that somebody else uses as well, such as a pipeline's text encoder: it is left as it is.

    It is called as a whole, so that hooks which bring its weights (accelerate's) see the call; its head computes one
    position of each sequence.

    Args:
        model: With an LM head, or a bare one whose embeddings are its head.

    Raises:
        ValueError: It has neither.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        head = model.get_output_embeddings()
        self._base = None if head is None else _base_of(model)
        if head is None and not _is_tied(model.config):
            raise MaAgiqaError(
                f"Expected a model that can answer, got {type(model).__name__}, which has no LM head: it was left out "
                "of the files. Use a pipeline that has one."
            )
        self.head: nn.Module = _TiedHead(model.get_input_embeddings()) if head is None else head

    def at_ends(self, ends: Tensor | None) -> contextlib.AbstractContextManager[None]:
        """Changes nothing: all is computed."""
        return contextlib.nullcontext()

    def __call__(self, **inputs: Any) -> tuple[Tensor, Any]:
        if self._base is None:
            output = self.model(**inputs, return_dict=True)
            return output.last_hidden_state, output
        kept: list[Tensor] = []
        handle = self._base.register_forward_hook(lambda *call: kept.append(call[2].last_hidden_state))
        try:
            output = self.model(**inputs, logits_to_keep=1, return_dict=True)
        finally:
            handle.remove()
        return kept[0], output


class _KeptHead(nn.Module):
    """Gives back what it was given, so that a model computes no logits; the head itself moves with the model."""

    def __init__(self, inner: nn.Module | None) -> None:
        super().__init__()
        self.inner = inner
        self._hidden: Tensor | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        self._hidden = hidden
        return hidden

    def take(self) -> Tensor:
        """The last hidden states of the latest call; once."""
        hidden, self._hidden = self._hidden, None
        assert hidden is not None
        return hidden


class _MlpAtEnds(nn.Module):
    """The last layer's MLP, which works token by token: where its output is not read, it gives zeros.

    Args:
        inner: The MLP.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.ends: Tensor | None = None

    @classmethod
    def of(cls, model: Any) -> _MlpAtEnds | None:
        """Put into a model with ordinary layers; None for others."""
        layers = getattr(model.get_decoder(), "layers", None)
        if layers is None or not isinstance(getattr(layers[-1], "mlp", None), nn.Module):
            return None
        layers[-1].mlp = made = cls(layers[-1].mlp)
        return made

    def forward(self, x: Tensor) -> Tensor:
        if self.ends is None:
            return self.inner(x)
        found = torch.zeros_like(x)
        if len(self.ends):
            rows = torch.arange(len(x), device=x.device)
            ends = self.ends.to(x.device)
            found[rows, ends] = self.inner(x[rows, ends])
        return found


class _TiedHead(nn.Module):
    """Embeddings as the LM head that they are tied to; they are looked up at every call, since they may move."""

    def __init__(self, embeddings: nn.Module) -> None:
        super().__init__()
        self.__dict__["_embeddings"] = embeddings  # no part of this module: it belongs to the model

    def forward(self, hidden: Tensor) -> Tensor:
        weight = self.__dict__["_embeddings"].weight
        return nn.functional.linear(hidden.to(weight.device), weight)


def _base_of(model: Any) -> nn.Module:
    """The model without its LM head."""
    base = model.base_model
    return base if base is not model else model.model


def _is_tied(config: Any) -> bool:
    text = config.get_text_config()
    with contextlib.suppress(AttributeError):
        return bool(text.tie_word_embeddings)
    return bool(getattr(config, "tie_word_embeddings", False))


def inputs_at(model: nn.Module, otherwise: torch.device) -> torch.device:
    """Where a model's inputs go: where accelerate brings its weights if it does, else to its first weights.

    Args:
        model: With its weights.
        otherwise: For weights that are nowhere until they are needed.
    """
    hook = getattr(model, "_hf_hook", None)
    place = getattr(hook, "execution_device", None)
    if place is not None:
        return torch.device(place if not isinstance(place, int) else f"cuda:{place}")
    first = next(model.parameters())
    return otherwise if first.is_meta else first.device
