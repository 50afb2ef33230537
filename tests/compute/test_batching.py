"""Batches: as large as fits, found out once, and never visible in the results."""

import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from ma_agiqa_core.compute.batching import is_out_of_memory, run_in_batches


class Doubling:
    """Doubles numbers; runs out of memory above `fits` of them, and keeps the sizes of the batches it was given."""

    def __init__(self, fits: int = 10**9) -> None:
        self.fits, self.sizes = fits, list[int]()

    def __call__(self, batch: Sequence[int]) -> torch.Tensor:
        self.sizes.append(len(batch))
        if len(batch) > self.fits:
            raise RuntimeError(f"CUDA out of memory. Tried to allocate {len(batch)} GiB.")
        return 2 * torch.tensor(batch)


def doubled(count: int) -> list[int]:
    return [2 * i for i in range(count)]


def test_on_a_processor_batches_stay_small_and_rows_in_order() -> None:
    run = Doubling()
    assert run_in_batches(range(10), run, device="cpu", what=object()).tolist() == doubled(10)
    assert run.sizes == [4, 4, 2]


def test_mappings_of_tensors() -> None:
    def run(batch: Sequence[int]) -> dict[str, torch.Tensor]:
        return {"same": torch.tensor(batch), "pairs": torch.tensor([[i, -i] for i in batch])}

    result = run_in_batches(range(6), run, device=torch.device("cpu"), what=object())
    assert result["same"].tolist() == [0, 1, 2, 3, 4, 5]
    assert result["pairs"].tolist() == [[i, -i] for i in range(6)]


def test_on_cuda_full_batches_double_up_to_a_limit() -> None:
    run, what = Doubling(), object()
    assert run_in_batches(range(300), run, device="cuda", what=what).tolist() == doubled(300)
    assert run.sizes == [8, 16, 32, 64, 64, 64, 52]
    run_in_batches(range(100), run, device="cuda", what=what)
    assert run.sizes[7:] == [64, 36]


def test_running_out_of_memory_halves_the_batch_once_and_for_all() -> None:
    run, what = Doubling(fits=20), object()
    assert run_in_batches(range(100), run, device="cuda", what=what).tolist() == doubled(100)
    assert run.sizes == [8, 16, 32, 16, 16, 16, 16, 12]
    run.sizes.clear()
    run_in_batches(range(40), run, device="cuda", what=what)
    assert run.sizes == [16, 16, 8]
    run.sizes.clear()
    run_in_batches(range(10), run, device="cuda", what=object())  # other work has its own memory
    run_in_batches(range(10), run, device="cuda:1", what=what)  # and so has another device
    assert run.sizes == [8, 2, 8, 2]


def test_batch_size_is_an_upper_limit_and_teaches_nothing() -> None:
    run, what = Doubling(), object()
    assert run_in_batches(range(7), run, device="cuda", what=what, batch_size=3).tolist() == doubled(7)
    assert run.sizes == [3, 3, 1]
    run_in_batches(range(9), run, device="cuda", what=what, batch_size=100)
    assert run.sizes[3:] == [8, 1]


def test_out_of_memory_with_a_single_item_is_raised_and_not_remembered() -> None:
    run, what = Doubling(fits=0), object()
    with pytest.raises(RuntimeError, match="allocate 1 GiB"):
        run_in_batches(range(8), run, device="cpu", what=what)
    assert run.sizes == [4, 2, 1]
    run.fits = 4
    run_in_batches(range(8), run, device="cpu", what=what)
    assert run.sizes[3:] == [4, 4]


def test_the_failed_batch_is_freed_before_the_next_attempt() -> None:
    class Activations:
        pass

    alive: list[weakref.ref[Activations]] = []

    def run(batch: Sequence[int]) -> torch.Tensor:
        assert all(reference() is None for reference in alive)
        activations = Activations()
        alive.append(weakref.ref(activations))
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return torch.tensor(batch)

    assert run_in_batches([5, 6], run, device="cpu", what=object()).tolist() == [5, 6]
    assert len(alive) == 3


def test_other_errors_are_raised_at_once() -> None:
    calls = []

    def run(batch: Sequence[int]) -> torch.Tensor:
        calls.append(len(batch))
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        run_in_batches(range(8), run, device="cpu", what=object())
    assert calls == [4]


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="at least one item, got none"):
        run_in_batches([], Doubling(), device="cpu", what=object())
    with pytest.raises(ValueError, match=r"Expected 2 rows for 2 items, got \[5\]"):
        run_in_batches([1, 2], lambda batch: torch.zeros(5), device="cpu", what=object())


def test_threads_share_what_they_learn() -> None:
    what, start = object(), threading.Barrier(8)
    runs = [Doubling(fits=3) for _ in range(8)]

    def work(run: Doubling) -> list[int]:
        start.wait()
        return run_in_batches(range(50), run, device="cuda", what=what).tolist()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, runs)) == [doubled(50)] * 8
    last = Doubling(fits=3)
    run_in_batches(range(5), last, device="cuda", what=what)
    assert last.sizes == [2, 2, 1]


def too_large_for_torch() -> object:
    return torch.empty(2**62, dtype=torch.uint8)


def too_large_for_numpy() -> object:
    return np.empty(2**60, dtype=np.uint8)


@pytest.mark.parametrize("allocate", [too_large_for_torch, too_large_for_numpy])
def test_real_allocations_that_fail_are_recognised(allocate: Callable[[], object]) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate()
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        MemoryError(),
    ],
)
def test_every_allocators_words_are_known(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: device-side assert triggered"), ValueError("too dark")])
def test_other_errors_are_not_about_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)
