"""When a run in segments stops, who goes on, and what its log says."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from ma_agiqa_core import CallableScorer
from ma_agiqa_core.comfyui.run_log import run_log
from ma_agiqa_core.comfyui.segmented_best_of_n import (
    Chosen,
    Outcome,
    Stage,
    candidate_latents,
    choose,
    outcomes,
    stages_of,
)
from ma_agiqa_core.generation.pruning.rule import PruningStep


def test_stops_from_a_text():
    assert stages_of("0.4:4, 0.7:2", n=8, keep=1, steps=20) == [Stage(8, 0.4, 4), Stage(14, 0.7, 2)]
    assert stages_of(" .7 : 2;\n0.4:4 ,", n=8, keep=2, steps=20) == [Stage(8, 0.4, 4), Stage(14, 0.7, 2)]
    assert stages_of("", n=8, keep=8, steps=20) == []
    assert stages_of(" ,\n", n=1, keep=1, steps=1) == []


def test_a_stop_falls_after_a_step_and_never_after_the_last():
    assert [stage.step for stage in stages_of("0.01:3, 0.99:2", n=4, keep=1, steps=6)] == [1, 5]


def test_a_stop_at_which_nobody_goes_is_left_out():
    assert stages_of("0.2:4, 0.5:2, 0.7:2", n=4, keep=1, steps=10) == [Stage(5, 0.5, 2)]


def test_of_stops_at_one_step_the_last_counts():
    assert stages_of("0.40:3, 0.41:2", n=4, keep=1, steps=10) == [Stage(4, 0.41, 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.4", r"in the form 0\.4:4, got '0\.4' in '0\.4'\. Write fractions of the steps"),
        ("0.4:4 0.7:2", r"got '0\.4:4 0\.7:2'"),
        ("half:4", r"got 'half:4'"),
        ("0.4:4.5", r"got '0\.4:4\.5'"),
        ("0,4:4", r"got '0' in '0,4:4'"),
        ("-0.4:4", r"got '-0\.4:4'"),
        ("40:4", r"fractions between 0 and 1 in prune_at, got 40 in '40:4'"),
        ("1.0:4", r"fractions between 0 and 1 in prune_at, got 1\.0"),
        ("0:4", r"fractions between 0 and 1 in prune_at, got 0 in"),
        ("0.4:0", r"whole numbers of at least 1 to keep, got 0 at 0\.4 in '0\.4:0'"),
        ("0.4:4, 0.40:2", r"each fraction once in prune_at, got 0\.4 twice"),
        ("0.4:9", r"at most 8 candidates at 0\.4 in prune_at, got 9: there are no more"),
        ("0.4:2, 0.7:4", r"at most 2 candidates at 0\.7 in prune_at, got 4: there are no more"),
        ("0.4:4, 0.7:1", r"leave at least the 2 candidates that are to be kept, got 1\. Raise"),
    ],
)
def test_a_malformed_text_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        stages_of(text, n=8, keep=2, steps=20)


def test_more_to_keep_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"at most the 4 candidates there are, got 5\. Start more"):
        stages_of("", n=4, keep=5, steps=20)


@pytest.mark.parametrize("steps", [0, 1])
def test_too_few_steps_to_prune_between_are_refused(steps):
    with pytest.raises(ValueError, match=f"at least 2 steps to prune between, got {steps}"):
        stages_of("0.4:2", n=4, keep=1, steps=steps)


class Recorded:
    """Candidates whose pictures are grey: at each stop, and at the end."""

    def __init__(self, greys: dict[int | None, Sequence[float]]) -> None:
        self.greys = greys
        self.asked: list[tuple[list[int], int | None]] = []
        self.leaders: list[int] = []

    def previews(self, rows: Sequence[int], step: int) -> Any:
        return self._show(rows, step)

    def pictures(self, rows: Sequence[int]) -> Any:
        return self._show(rows, None)

    def leads(self, row: int) -> None:
        self.leaders.append(row)

    def _show(self, rows: Sequence[int], step: int | None) -> torch.Tensor:
        self.asked.append((list(rows), step))
        return torch.stack([torch.full((3, 4, 4), self.greys[step][row]) for row in rows])


def grey_scorer(**info):
    return CallableScorer(lambda images, prompts: [float(image.mean()) for image in images], name="grey", **info)


def test_the_best_go_on_and_the_best_finished_one_wins():
    candidates = Recorded(
        {2: [0.1, 0.5, 0.4, 0.5, 0.0], 5: [9, 0.2, 9, 0.3, 9], None: [9, 0.75, 9, 0.25, 9]}  # 9: never asked for
    )
    stages = [Stage(2, 0.2, 2), Stage(5, 0.5, 2)]

    chosen = choose(candidates, grey_scorer(), prompt=None, n=5, keep=1, stages=stages)

    assert candidates.asked == [([0, 1, 2, 3, 4], 2), ([1, 3], 5), ([1, 3], None)]
    assert candidates.leaders == [1, 3]  # of equal ones the earlier
    assert (chosen.rows, chosen.scores) == ((1,), (0.75,))
    assert chosen.finished == {1: 0.75, 3: 0.25}
    assert [(step.step, step.fraction, step.kept, step.dropped) for step in chosen.history] == [
        (1, 0.2, (1, 3), (0, 2, 4)),
        (4, 0.5, (1, 3), ()),
    ]
    assert chosen.history[0].scores == pytest.approx({0: 0.1, 1: 0.5, 2: 0.4, 3: 0.5, 4: 0.0})


def test_of_equal_ones_the_earlier_wins():
    chosen = choose(Recorded({None: [0.5, 0.7, 0.7]}), grey_scorer(), prompt=None, n=3, keep=2, stages=[])

    assert chosen.rows == (1, 2)


def test_the_scorer_is_given_the_prompt():
    seen = []

    def read(images, prompts):
        seen.append(prompts)
        return [0.0] * len(images)

    scorer = CallableScorer(read, name="reader", needs_prompt=True)

    choose(Recorded({None: [0.5, 0.5]}), scorer, prompt="a cat", n=2, keep=1, stages=[])

    assert seen == [["a cat", "a cat"]]


@pytest.mark.parametrize("prompt", [None, "", " "])
def test_a_missing_prompt_is_told_before_anything_is_sampled(prompt):
    candidates = Recorded({})

    with pytest.raises(ValueError, match="a prompt for grey, which compares pictures with their text, got none"):
        choose(candidates, grey_scorer(needs_prompt=True), prompt=prompt, n=2, keep=1, stages=[])
    assert candidates.asked == []


class Undecided:
    """A scorer that checks nothing."""

    info = grey_scorer().info

    def score(self, images, prompts=None, batch_size=None, on_error="raise"):
        return torch.tensor([0.5, float("nan")])


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="finite scores from 'grey', got nan for the preview of candidate 1"):
        choose(Recorded({3: [0.5, 0.5]}), Undecided(), prompt=None, n=2, keep=1, stages=[Stage(3, 0.5, 1)])


def test_the_log():
    candidates = Recorded({2: [0.1, 0.5, 0.4], None: [9, 0.75, 0.875]})
    chosen = choose(candidates, grey_scorer(), prompt=None, n=3, keep=1, stages=[Stage(2, 0.4, 2)])

    text = run_log(chosen, heading="three greys", steps=5, n=3, calls=24, calls_of_one=10.0, replay="do it again")

    assert text.splitlines() == [
        "three greys",
        "after 2 of 5 steps (0.4): 2 of 3 kept",
        "  kept:    1 (0.5), 2 (0.4)",
        "  dropped: 0 (0.1)",
        "finished: 2 (0.875), 1 (0.75)",
        "best: 2 (0.875)",
        "model calls: 24, without pruning 30: 20% saved",
        "do it again",
    ]


def test_one_latent_for_all_candidates():
    latent: dict[str, Any] = {
        "samples": torch.rand(1, 4, 8, 8),
        "noise_mask": torch.ones(1, 1, 64, 64),
        "batch_index": [5],
    }

    made = candidate_latents(latent, 3)

    assert torch.equal(made["samples"], latent["samples"].repeat(3, 1, 1, 1))
    assert made["batch_index"] == [5, 6, 7]
    assert made["noise_mask"].shape == (1, 1, 64, 64)
    assert candidate_latents({"samples": latent["samples"]}, 3)["batch_index"] == [0, 1, 2]
    assert latent["batch_index"] == [5]


def test_a_latent_for_each_candidate_is_taken_as_it_is():
    latent: dict[str, Any] = {
        "samples": torch.rand(3, 4, 8, 8),
        "batch_index": [4, 0, 9],
        "noise_mask": torch.rand(3, 1, 8, 8),
    }

    made = candidate_latents(latent, 3)

    assert torch.equal(made["samples"], latent["samples"])
    assert torch.equal(made["noise_mask"], latent["noise_mask"])
    assert made["batch_index"] == [4, 0, 9]
    assert candidate_latents({"samples": latent["samples"]}, 3)["batch_index"] == [0, 1, 2]


@pytest.mark.parametrize("count", [2, 5])
def test_another_number_of_latents_is_refused(count):
    with pytest.raises(ValueError, match=f"one latent, or one for each of 4 candidates, got {count}. Set the batch"):
        candidate_latents({"samples": torch.zeros(count, 4, 8, 8)}, 4)


def test_a_picture_with_a_place_for_time_is_a_picture():
    assert candidate_latents({"samples": torch.zeros(1, 16, 1, 8, 8)}, 2)["samples"].shape == (2, 16, 1, 8, 8)


def test_videos_are_candidates_and_sound_is_refused():
    assert candidate_latents({"samples": torch.zeros(1, 16, 5, 8, 8)}, 2)["samples"].shape == (2, 16, 5, 8, 8)
    with pytest.raises(ValueError, match=r"latents of pictures or videos, got \(1, 64, 100\), which are sound"):
        candidate_latents({"samples": torch.zeros(1, 64, 100)}, 2)


def test_outcomes_of_all_candidates():
    steps = (
        PruningStep(3, 0.4, {0: 0.3, 1: 0.9, 2: 0.5, 3: 0.4}, kept=(1, 2), dropped=(0, 3)),
        PruningStep(6, 0.7, {1: 0.2, 2: 0.6}, kept=(2,), dropped=(1,)),
    )
    found = outcomes(Chosen((2,), (0.1,), {2: 0.1}, steps))
    assert found == [Outcome(2, 0.1), Outcome(1, 0.2, 7), Outcome(3, 0.4, 4), Outcome(0, 0.3, 4)]
