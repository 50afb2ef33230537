"""Which candidates survive, and when it is certain that one will not."""

import random

from ma_agiqa_core.generation.pruning.rule import is_out, kept_by_stage, kept_rows


def test_the_best_of_each_group_and_of_equal_ones_the_earlier():
    scores = {0: 1.0, 1: 2.0, 2: 2.0, 3: 0.0, 4: 9.0}

    assert kept_rows(scores, 2) == [1, 4]
    assert kept_rows(scores, 1, groups={0: "a", 1: "a", 2: "a", 3: "b", 4: "b"}) == [1, 4]
    assert kept_rows(scores, 9) == [0, 1, 2, 3, 4]


def test_below_the_least_score_only_the_best_of_a_group_stays():
    scores = {0: 1.0, 1: 2.0, 2: 3.0, 3: 0.0}

    assert kept_rows(scores, 3, min_score=2.0) == [1, 2]
    assert kept_rows(scores, 3, min_score=5.0) == [2]
    assert kept_rows(scores, 3, groups={0: "a", 1: "a", 2: "a", 3: "b"}, min_score=2.0) == [1, 2, 3]


def test_a_candidate_that_shone_earlier_is_not_out():
    """The better one at this stage was worse before: had it been dropped there, this one would win."""
    assert is_out([0.5, 0.5], [[0.5, 0.6]], 1)
    assert not is_out([0.5, 0.5], [[0.4, 0.6]], 1)
    assert not is_out([0.5, 0.5], [[0.9]], 1)
    assert not is_out([0.5], [[0.6]], 2)


def test_stopping_never_changes_who_is_kept():
    for seed in range(300):
        rng = random.Random(seed)
        count, stages = rng.randint(1, 7), rng.randint(1, 3)
        keep = sorted((rng.randint(1, count) for _ in range(stages)), reverse=True)
        min_score = rng.choice([None, 0.3, 0.8])
        groups = [rng.choice("ab") for _ in range(count)]
        scores = [[rng.randint(0, 4) / 4 for _ in range(stages)] for _ in range(count)]

        seen: list[list[float]] = []
        for candidate in range(count):
            own: list[float] = []
            rivals = [other for other, group in zip(seen, groups, strict=False) if group == groups[candidate]]
            for stage in range(stages):
                own.append(scores[candidate][stage])
                if is_out(own, rivals, keep[stage], min_score):
                    break
            seen.append(own)

        alive = list(range(count))
        for stage, number in enumerate(keep):
            known = {row: scores[row][stage] for row in alive}
            alive = kept_rows(known, number, groups=dict(enumerate(groups)), min_score=min_score)
        stopped = kept_by_stage(seen, keep, groups=groups, min_score=min_score)
        assert stopped[-1][1] == alive
        assert len(stopped) == stages
