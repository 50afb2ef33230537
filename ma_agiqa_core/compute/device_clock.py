"""A clock for work on devices that compute behind Python's back."""

import time

import torch


def device_clock() -> float:
    """Seconds, once everything that was asked of the GPU until now is done; only differences have a meaning."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()
    return time.perf_counter()
