"""What dropping rows touches and what it gives back; test_exactness.py compares the pictures."""

import threading
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ma_agiqa_core.generation.pipelines.family import Family
from ma_agiqa_core.generation.pruning.row_surgery import RowSurgery

FAMILY = Family(
    "toy",
    ("ToyPipeline",),
    denoisers=("unet",),
    batch_arguments=frozenset({"text", "guidance", "extra.ids", "control"}),
    row_lists=frozenset({"shapes"}),
    blended=("mask", "noise"),
)


class Denoiser(torch.nn.Module):
    """Keeps what it is called with."""

    def forward(self, sample: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        self.saw = {"sample": sample, **kwargs}
        return sample


class ToyPipeline:
    """A loop with one row per picture in everything that a real one has."""

    def __init__(self) -> None:
        self.unet = Denoiser()
        self.scheduler = SimpleNamespace(state=None)

    def __call__(
        self, on_step_end: Any, rows: int = 4, generator: Any = None, noise: Any = None, **arguments: Any
    ) -> Any:
        latents = rows_of(rows)
        mask = torch.cat([rows_of(rows)] * 2)
        for _ in range(3):
            self.unet(latents, **arguments)
            assert len(mask) == 2 * len(latents)
            latents = on_step_end({"latents": latents})["latents"]
        return latents


def rows_of(count: int) -> torch.Tensor:
    """(count, 2), row i holds i."""
    return torch.arange(count).float()[:, None].expand(-1, 2).clone()


def numbers(rows: torch.Tensor) -> list[int]:
    return [int(value) for value in rows.flatten(1)[:, 0]]


@pytest.fixture
def pipe() -> ToyPipeline:
    return ToyPipeline()


@pytest.fixture
def run(pipe: ToyPipeline) -> Any:
    """Calls the pipe with these survivors after each step."""

    def run(*survivors: list[int], look: Any = None, **arguments: Any) -> RowSurgery:
        surgery = RowSurgery(pipe, FAMILY)
        steps = iter(survivors)

        def on_step_end(tensors: dict[str, Any]) -> dict[str, Any]:
            surgery.end_step(tensors["latents"])
            keep = next(steps, None)
            if keep is not None:
                tensors = surgery.keep(keep, tensors)
            if look is not None:
                look()
            return tensors

        surgery.install()
        try:
            assert numbers(pipe(on_step_end, **arguments)) == surgery.rows
        finally:
            surgery.remove()
        return surgery

    return run


def test_rows_keep_their_first_numbers(run, pipe):
    surgery = run([0, 2, 3], [3])

    assert surgery.rows == [3]
    assert surgery.evaluations == 4 + 3 + 1


def test_arguments_from_the_beginning_are_cut_at_every_later_call(run, pipe):
    run(
        [0, 2, 3],
        [2, 3],
        text=rows_of(4),
        guidance=torch.ones(1),
        extra={"ids": rows_of(4), "scale": 0.5},
        shapes=[[row] for row in range(4)],
        control=[rows_of(4), rows_of(4)],
    )

    saw = pipe.unet.saw
    assert numbers(saw["text"]) == [2, 3]
    assert saw["guidance"].shape == (1,)
    assert numbers(saw["extra"]["ids"]) == [2, 3]
    assert saw["extra"]["scale"] == 0.5
    assert saw["shapes"] == [[2], [3]]
    assert [numbers(control) for control in saw["control"]] == [[2, 3], [2, 3]]


def test_arguments_that_are_not_in_the_table_stay_whatever_their_length(run, pipe):
    run([1], img_ids=rows_of(4))

    assert numbers(pipe.unet.saw["img_ids"]) == [0, 1, 2, 3]


def test_scheduler_history_is_known_by_its_whole_shape(run, pipe):
    history = rows_of(4)
    pipe.scheduler = SimpleNamespace(
        sigmas=torch.arange(4.0),  # as many entries as rows
        alphas=torch.ones(4, 3),
        sample=history,
        model_outputs=[None, history],
        ets=deque([history], maxlen=4),
        config={"sample": history},
        _internal_dict={"sample": history},
    )

    run([1, 2])

    state = pipe.scheduler
    assert len(state.sigmas) == 4
    assert len(state.alphas) == 4
    assert numbers(state.sample) == numbers(state.model_outputs[1]) == numbers(state.ets[0]) == [1, 2]
    assert state.model_outputs[0] is None
    assert state.ets.maxlen == 4
    assert numbers(state.config["sample"]) == [1, 2]
    assert len(state._internal_dict["sample"]) == 4
    assert len(history) == 4  # the scheduler's tensor is another one now; whoever holds this one is not affected


def test_the_callers_generators_and_tensors_come_back(run):
    generators = [torch.Generator().manual_seed(row) for row in range(4)]
    before, noise = list(generators), rows_of(4)
    seen = []

    run([0, 2, 3], [3], look=lambda: seen.append((list(generators), numbers(noise))), generator=generators, noise=noise)

    assert seen[0] == ([before[0], before[2], before[3]], [0, 2, 3])
    assert seen[-1] == ([before[3]], [3])
    assert generators == before
    assert numbers(noise) == [0, 1, 2, 3]


def test_everything_comes_back_whatever_was_raised(run, pipe):
    generators = [torch.Generator() for _ in range(4)]
    before, noise = list(generators), rows_of(4)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([0], look=interrupt, generator=generators, noise=noise)

    assert generators == before
    assert numbers(noise) == [0, 1, 2, 3]
    assert not pipe.unet._forward_pre_hooks


def test_one_tensor_under_two_names_is_cut_once(pipe):
    class Aliased(ToyPipeline):
        def __call__(self, on_step_end: Any, *args: Any, **kwargs: Any) -> Any:
            mask = noise = rows_of(4)
            latents = rows_of(4)
            self.unet(latents)
            on_step_end({"latents": latents})
            return mask, noise

    pipe = Aliased()
    surgery = RowSurgery(pipe, FAMILY)
    seen = []

    def on_step_end(tensors):
        surgery.keep([1, 3], tensors)
        seen.append(1)

    surgery.install()
    mask, noise = pipe(on_step_end)

    assert mask is noise
    assert numbers(mask) == [1, 3]
    surgery.remove()
    assert numbers(mask) == [0, 1, 2, 3]


def test_both_halves_of_guidance(pipe):
    surgery = RowSurgery(pipe, FAMILY)
    surgery.install()
    pipe.unet(torch.cat([rows_of(3)] * 2))

    returned = surgery.keep(
        [0, 2], {"latents": rows_of(3), "prompt_embeds": torch.cat([rows_of(3), 10 + rows_of(3)]), "absent": None}
    )

    assert numbers(returned["prompt_embeds"]) == [0, 2, 10, 12]
    assert returned["absent"] is None
    pipe.unet(torch.cat([rows_of(3)[[0, 2]]] * 2), text=torch.cat([rows_of(3), 10 + rows_of(3)]))
    assert numbers(pipe.unet.saw["text"]) == [0, 2, 10, 12]
    assert surgery.evaluations == 6 + 4
    surgery.remove()


@pytest.mark.parametrize("rows", [2, 3, 4])
def test_a_batch_that_grows_back_is_an_error(pipe, rows):
    """Two rows of which one stays: two rows in the next call are not guidance, they are the batch of before."""
    surgery = RowSurgery(pipe, FAMILY)
    surgery.install()
    pipe.unet(rows_of(rows))
    surgery.keep([0], {"latents": rows_of(rows)})

    with pytest.raises(RuntimeError, match=f"Expected 1 rows, got {rows} in Denoiser"):
        pipe.unet(rows_of(rows))
    with pytest.raises(RuntimeError, match=f"Expected 1 rows, got {rows} in latents"):
        surgery.end_step(rows_of(rows))
    surgery.remove()


def test_guidance_that_was_switched_off_may_stay_off(pipe):
    surgery = RowSurgery(pipe, FAMILY)
    surgery.install()
    pipe.unet(torch.cat([rows_of(4)] * 2))
    surgery.keep([1, 2], {"latents": rows_of(4)})

    pipe.unet(rows_of(2), text=rows_of(4))

    assert numbers(pipe.unet.saw["text"]) == [1, 2]
    surgery.remove()


def test_an_argument_of_unknown_length_is_an_error(run):
    with pytest.raises(RuntimeError, match=r"Expected text of the denoiser to have 2 rows \(or 4 .*got 3"):
        run([1, 2], text=rows_of(3))


@pytest.mark.parametrize("keep", [[], [2, 1], [1, 1], [4], [-1]])
def test_survivors_must_be_rows(run, keep):
    with pytest.raises(ValueError, match="Expected ascending rows out of"):
        run(keep)


def test_rows_that_are_gone_do_not_come_back(run):
    with pytest.raises(ValueError, match=r"out of \[0, 1\] to keep, got \[2\]"):
        run([0, 1], [2])


def test_a_returned_tensor_of_unknown_length_changes_nothing(pipe):
    history = rows_of(4)
    pipe.scheduler.sample = history
    surgery = RowSurgery(pipe, FAMILY)

    with pytest.raises(RuntimeError, match="Expected prompt_embeds to have 4 or 8 rows at the step's end, got 3"):
        surgery.keep([0], {"latents": rows_of(4), "prompt_embeds": rows_of(3)})

    assert surgery.rows == [0, 1, 2, 3]
    assert pipe.scheduler.sample is history


def test_calls_from_other_threads_are_left_alone(pipe):
    surgery = RowSurgery(pipe, FAMILY)
    surgery.install()
    pipe.unet(rows_of(4))
    surgery.keep([0], {"latents": rows_of(4)})

    thread = threading.Thread(target=pipe.unet, args=(rows_of(5),), kwargs={"text": rows_of(4)})
    thread.start()
    thread.join()

    assert len(pipe.unet.saw["text"]) == 4
    assert surgery.evaluations == 4
    surgery.remove()


def test_removing_twice_does_no_harm(pipe):
    surgery = RowSurgery(pipe, FAMILY)
    surgery.install()
    surgery.remove()
    surgery.remove()

    assert not pipe.unet._forward_pre_hooks
