"""A scorer computes as it was loaded, whatever the program around it has set in torch.

Two kinds of settings change scores, or make torch refuse to compute them:

- Of one thread: autocast, the default device (`torch.set_default_device`, `with torch.device(...)`), grad and inference
  mode. They are set aside in the thread that computes, and nobody else notices.
- Of the whole process: the default dtype, the precision of float32 products (TF32, bfloat16), and which kernels of
  attention are allowed. They are held at torch's own values while anybody computes here, counted under a lock, so that
  threads which compute at once do not restore each other's; the last one out restores what the program had.

A held default dtype is seen by the program's other threads too, and one of them may change it in the middle (loading a
model of transformers does). So our own code names its dtypes and devices, which no thread can change, and a function
that runs nothing but our own code leaves the default dtype alone; it is held where other libraries make tensors.

Seeds, threads and `torch.use_deterministic_algorithms` are left as they are: they do not change scores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import torch
from torch.backends import cuda, mkldnn

_AUTOCAST_KINDS = ("cpu", "cuda", "hpu", "mps", "mtia", "xla", "xpu", torch._C._get_privateuse1_backend_name())


@contextmanager
def as_loaded(*, float32_by_default: bool = True, learns: bool = False) -> Iterator[None]:
    """Around loading and scoring, as a `with` or as a decorator: the caller's settings of torch have no effect inside.

    Args:
        float32_by_default: Also hold the default dtype, which other libraries go by. False where only our own code
            runs: other threads of the program then keep theirs.
        learns: With gradients. Without them tensors made inside are still no inference tensors, so that weights
            loaded here can be trained later, even if the caller is in inference mode.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))  # which also turns gradients on
        stack.enter_context(torch.set_grad_enabled(learns))
        stack.enter_context(_without_autocast())
        if torch.empty(0).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(_PRODUCTS)
        stack.enter_context(_ATTENTION)
        if float32_by_default:
            stack.enter_context(_DEFAULT_DTYPE)
        yield


def autocasts() -> dict[str, torch.dtype]:
    """The types of devices for which this thread is inside `torch.autocast`, with the dtype it casts to."""
    return {
        kind: torch.get_autocast_dtype(kind)
        for kind in _AUTOCAST_KINDS
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    }


@contextmanager
def _without_autocast() -> Iterator[None]:
    kinds, caches = tuple(autocasts()), torch.is_autocast_cache_enabled()
    try:
        for kind in kinds:
            torch.set_autocast_enabled(kind, False)
        if kinds:  # an autocast of ours would leave what it cast to the caller's, and find weights of steps ago there
            torch.set_autocast_cache_enabled(False)
        yield
    finally:
        torch.set_autocast_cache_enabled(caches)
        for kind in kinds:
            torch.set_autocast_enabled(kind, True)


class _Held:
    """A setting of the whole process, at one value while anybody is inside.

    Args:
        get: Reads it.
        set: Changes it.
        wanted: The value.
    """

    def __init__(self, get: Callable[[], Any], set: Callable[[Any], None], wanted: Any) -> None:
        self._get, self._set, self._wanted = get, set, wanted
        self._before = wanted
        self._inside = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            if (now := self._get()) != self._wanted:  # with others inside: the program has changed it since
                self._before = now
                self._set(self._wanted)
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside:
                return
            before, self._before = self._before, self._wanted
            if self._get() == self._wanted != before:  # else the program has changed it in the meantime
                self._set(before)


_EXACT = "highest"


def _products() -> Any:
    """How exactly float32 is multiplied: one word, or by backend where the program has set each by itself."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # torch since 2.9
        return _of_backend(cuda.matmul).fp32_precision, _of_backend(mkldnn).matmul.fp32_precision


def _set_products(precision: Any) -> None:
    if isinstance(precision, str):
        torch.set_float32_matmul_precision(precision)
    else:
        _of_backend(cuda.matmul).fp32_precision, _of_backend(mkldnn).matmul.fp32_precision = precision


def _of_backend(module: Any) -> Any:
    """Its settings are made at run time: mypy does not know them."""
    return module


def _attention_kernels() -> tuple[bool, ...]:
    return cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled(), cuda.cudnn_sdp_enabled()


def _set_attention_kernels(allowed: tuple[bool, ...]) -> None:
    setters = cuda.enable_flash_sdp, cuda.enable_mem_efficient_sdp, cuda.enable_math_sdp, cuda.enable_cudnn_sdp
    for enable, is_allowed in zip(setters, allowed, strict=True):
        enable(is_allowed)


_DEFAULT_DTYPE = _Held(torch.get_default_dtype, torch.set_default_dtype, torch.float32)
_PRODUCTS = _Held(_products, _set_products, _EXACT)
_ATTENTION = _Held(_attention_kernels, _set_attention_kernels, (True,) * 4)
