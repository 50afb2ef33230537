"""Apple's graphics processor as far as its refusals go, on any machine: tensors that say "mps", computed on the CPU.

What it refuses is what torch 2.5 refuses there (AdaptivePooling.mm, native_functions.yaml), in its words; newer ones
refuse less. What is on the CPU is free: `tensor.cpu().double()` is how one computes in float64. For inference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

_WITHOUT_KERNEL = """
_adaptive_avg_pool3d _addmm_activation _aminmax _conv_depthwise2d _cummax_helper _cummin_helper _int_mm
_linalg_det _linalg_eigh _linalg_eigvals _linalg_slogdet _linalg_solve_ex _linalg_svd _logcumsumexp
_masked_softmax _native_multi_head_attention _pdist_forward _scaled_mm _standard_gamma
_transformer_encoder_layer_fwd _unique _upsample_bicubic2d_aa _upsample_bilinear2d_aa adaptive_max_pool3d angle
avg_pool3d binomial cauchy_ channel_shuffle cholesky_inverse col2im conv_depthwise3d embedding_renorm_ erfc
erfc_ fractional_max_pool2d gcd geometric_ geqrf grid_sampler_3d hardshrink heaviside i0 igamma igammac im2col
index_reduce isneginf isposinf lcm linalg_cholesky_ex linalg_eig linalg_householder_product linalg_ldl_factor_ex
linalg_lu linalg_lu_factor_ex linalg_lu_solve linalg_matrix_exp linalg_qr log_normal_ lu_unpack
max_pool3d_with_indices max_unpool2d multi_margin_loss nonzero_static ormqr poisson put_ rrelu_with_noise
scatter_reduce segment_reduce sinc take tril_indices triu_indices unique_dim upsample_bicubic2d
upsample_trilinear3d
"""
NO_KERNEL = frozenset(_WITHOUT_KERNEL.split())
"""Of the operators that networks are made of, those without a kernel for it in torch 2.5."""
MAY_MIX = {"_to_copy", "copy_", "index", "index_put", "index_put_", "_index_put_impl_"}  # with tensors on the CPU
NOT_ON_DEVICE = (torch.float64, torch.complex128)
MOST_BYTES = 2**32


class MpsTensor(Tensor):
    """Says that it is on "mps"; `held`, on the CPU, has the values. C++ sees it on "meta", which every torch has."""

    held: Tensor
    device = property(lambda self: torch.device("mps", 0))
    is_meta = property(lambda self: False)
    is_mps = property(lambda self: True)

    @staticmethod
    def __new__(cls, held: Tensor) -> MpsTensor:
        if held.dtype in NOT_ON_DEVICE:
            kind = str(held.dtype).removeprefix("torch.")
            raise TypeError(
                f"Cannot convert a MPS Tensor to {kind} dtype as the MPS framework doesn't support {kind}. "
                "Please use float32 instead."
            )
        if held.nbytes > MOST_BYTES:
            raise RuntimeError(f"total bytes of NDArray > 2**32: {tuple(held.shape)}")
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device("meta"),
        )
        made.held = held
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"MpsTensor({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _computed(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Gives "mps" a meaning where Python asks for it, which torch has not on this machine."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.tolist, Tensor.numpy) and isinstance(args[0], MpsTensor):
            if func is Tensor.numpy:
                raise TypeError("can't convert mps:0 device type tensor to numpy. Use Tensor.cpu() first.")
            return args[0].held.tolist()
        if func is Tensor.to and _wants_mps(values := [*args[1:], *kwargs.values()]):
            like = [value.dtype for value in values if isinstance(value, Tensor)]
            dtypes = [*(value for value in values if isinstance(value, torch.dtype)), *like, args[0].dtype]
            is_there = isinstance(args[0], MpsTensor) and args[0].dtype == dtypes[0]
            return args[0] if is_there else _moved(args[0], dtypes[0])
        if func is Tensor.new_tensor and isinstance(args[0], MpsTensor):
            return _moved(args[0].held.new_tensor(*args[1:], **kwargs))
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], MpsTensor):
            places = args[1] if isinstance(args[1], tuple) else (args[1],)
            places = tuple(torch.as_tensor(place) if isinstance(place, list) else place for place in places)
            return func(args[0], places, *args[2:])  # C++ would put lists on "meta", where they are lost
        if func is torch.where and isinstance(args[0], MpsTensor):  # C++ would put numbers on "meta" as well
            return func(*(MpsTensor(torch.tensor(part)) if isinstance(part, int | float) else part for part in args))
        if func is F.scaled_dot_product_attention and isinstance(args[0], MpsTensor):
            return _attention(*args, **kwargs)  # C++ would look at the device
        if func is torch.quantile and isinstance(args[0], MpsTensor):  # whose ranks are float64 elsewhere
            return MpsTensor(torch.quantile(*tree_map(_held, args), **tree_map(_held, kwargs)))
        if _wants_mps([kwargs.get("device")]):
            made = func(*tree_map(_held, args), **{**tree_map(_held, kwargs), "device": torch.device("cpu")})
            return tree_map(lambda x: MpsTensor(x) if isinstance(x, Tensor) else x, made)
        return func(*args, **kwargs)


@contextmanager
def mps_rules() -> Iterator[None]:
    """The machine has an "mps" inside this `with`, in this thread; `torch.inference_mode` is `torch.no_grad` there."""
    with (
        mock.patch("torch._has_compatible_shallow_copy_type", _may_share_data),
        mock.patch("torch.backends.mps.is_available", return_value=True),
        mock.patch("torch.backends.mps.is_built", return_value=True),
        mock.patch("torch.mps.recommended_max_memory", return_value=8 * 2**30),
        mock.patch("torch.mps.driver_allocated_memory", return_value=0),
        mock.patch("torch.mps.empty_cache", return_value=None),
        mock.patch("torch.inference_mode", lambda mode=True: torch.no_grad() if mode else torch.enable_grad()),
        _Functions(),
    ):
        yield


_shares_data = torch._has_compatible_shallow_copy_type


def _may_share_data(old: Tensor, new: Tensor) -> bool:
    """Whether `old.data = new` does what `Module.to` wants of it."""
    is_on_device = isinstance(old, MpsTensor) or isinstance(new, MpsTensor)
    return old is new if is_on_device else _shares_data(old, new)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        key, value = (states.repeat_interleave(query.shape[-3] // states.shape[-3], -3) for states in (key, value))
    logits = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = MpsTensor(torch.ones(logits.shape[-2:], dtype=torch.bool).tril())
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        logits = logits.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        logits = logits + attn_mask
    assert not dropout_p
    return logits.softmax(-1) @ value


def _moved(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return MpsTensor(_held(tensor).detach().to(dtype or tensor.dtype, copy=True))


def _computed(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    leaves = tree_leaves((args, kwargs))
    name = func.overloadpacket.__name__
    _refuse(name, args, leaves)
    asked = kwargs.get("device")
    to_cpu = asked is not None and torch.device(asked).type == "cpu"
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if name == "copy_" and not isinstance(args[0], MpsTensor):  # from the device
        return func(args[0], args[1].held, *args[2:], **kwargs)
    result = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    if to_cpu:
        return result
    known = {id(leaf.held): leaf for leaf in leaves if isinstance(leaf, MpsTensor)}  # in place: the same tensor again
    return tree_map(
        lambda x: (known[id(x)] if id(x) in known else MpsTensor(x)) if isinstance(x, Tensor) else x, result
    )


def _refuse(name: str, args: Sequence[Any], leaves: Sequence[Any]) -> None:
    if name in NO_KERNEL:
        raise NotImplementedError(f"The operator 'aten::{name}' is not currently implemented for the MPS device.")
    if name in ("_adaptive_avg_pool2d", "adaptive_max_pool2d"):
        sides = zip(args[0].shape[-2:], args[1], strict=True)
        if any(max(side, out) % min(side, out) for side, out in sides):
            raise RuntimeError("Adaptive pool MPS: input sizes must be divisible by output sizes.")
    strangers = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, MpsTensor)]
    if any(leaf.is_meta or (leaf.ndim and name not in MAY_MIX) for leaf in strangers):
        raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got mps and another.")


def _held(value: Any) -> Any:
    return value.held if isinstance(value, MpsTensor) else value


def _wants_mps(values: Sequence[Any]) -> bool:
    return any(_device(value) == "mps" for value in values)


def _device(value: Any) -> str | None:
    if isinstance(value, Tensor):
        return value.device.type
    try:
        return torch.device(value).type if isinstance(value, str | torch.device) else None
    except RuntimeError:
        return None
