"""How many pictures a scorer is given at a time, and how soon its results are out."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ma_agiqa_core.cli.scoring_run import ScoringRun, score_pictures
from ma_agiqa_core.compute import work_groups
from ma_agiqa_core.compute.work_groups import GROUP_SECONDS, LARGEST_GROUP, Pace, work_in_groups
from ma_agiqa_core.pictures.inputs import Picture
from ma_agiqa_core.scorers.outcomes import tolerant_outcomes
from ma_agiqa_core.scorers.scorer import ScorerInfo


class Probe:
    """Remembers how many pictures it was given at a time, and as how large a batch."""

    info = ScorerInfo("probe", "1", 0.0, 1.0, "nothing")

    def __init__(self) -> None:
        self.given: list[tuple[int, int | None]] = []

    def score(
        self, images: Any, prompts: Any = None, batch_size: int | None = None, on_error: str = "raise"
    ) -> torch.Tensor:
        self.given.append((len(images), batch_size))
        return torch.zeros(len(images))


@pytest.fixture
def pictures(tmp_path: Path, make_picture: Any) -> list[Path]:
    first = make_picture(tmp_path / "0.png", 100)
    for i in range(1, 200):
        (tmp_path / f"{i}.png").write_bytes(first.read_bytes())
    return sorted(tmp_path.glob("*.png"))


def test_a_fast_scorer_gets_large_groups_and_finds_its_own_batch(pictures: list[Path]) -> None:
    probe = Probe()
    written = [len(records) for records in score_pictures(ScoringRun(probe, "probe", None, None), pictures)]

    assert sum(written) == 200
    assert max(written) == LARGEST_GROUP == 64
    assert probe.given == [(count, None) for count in written]


def test_a_batch_size_that_was_asked_for_is_kept(pictures: list[Path]) -> None:
    probe = Probe()
    list(score_pictures(ScoringRun(probe, "probe", None, 60), pictures))

    assert probe.given == [(60, 60), (60, 60), (60, 60), (20, 60)]


def test_large_pictures_come_in_smaller_groups(pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_groups, "GROUP_PIXELS", 12 * 8 * 10)
    probe = Probe()
    list(score_pictures(ScoringRun(probe, "probe", None, None), pictures))

    assert max(count for count, _ in probe.given) == 10


def test_extraction_gets_large_groups_too(pictures: list[Path]) -> None:
    from ma_agiqa_core.cli.extraction_run import extract_pictures
    from ma_agiqa_core.semantic.extractor import SemanticVectors

    given: list[int] = []

    class Extractor:
        def vectors(self, group: Sequence[Any], batch_size: int | None, prompts: Any) -> SemanticVectors:
            assert batch_size is None
            given.append(len(group))
            return SemanticVectors({}, [None] * len(group))

    assert sum(map(len, extract_pictures(Extractor(), pictures))) == 200  # type: ignore[arg-type]
    assert max(given) == LARGEST_GROUP


@pytest.mark.parametrize("seconds_each", [0.001, 0.3, 5.0, 60.0])
def test_groups_take_no_longer_than_a_few_seconds(seconds_each: float) -> None:
    pace = Pace()
    sizes = []
    for _ in range(6):
        pace.learn(pace.size, pace.size * seconds_each)
        sizes.append(pace.size)

    best = max(1, min(LARGEST_GROUP, int(GROUP_SECONDS / seconds_each)))
    assert sizes[-1] == best
    assert max(sizes) <= best


def test_groups_of_many_workers_are_short_but_not_single_pictures() -> None:
    pace = Pace(seconds=1.0, least=16)
    sizes = []
    for seconds_each in (0.01, 0.01, 0.01, 0.04, 2.0, 2.0):
        pace.learn(pace.size, pace.size * seconds_each)
        sizes.append(pace.size)
    assert sizes == [16, 64, 64, 25, 16, 16]


def test_a_slow_start_does_not_make_groups_small_for_good() -> None:
    pace = Pace()
    pace.learn(pace.size, 80.0)  # a model was loaded
    assert pace.size == 1
    for _ in range(3):
        pace.learn(pace.size, pace.size * 0.01)
    assert pace.size == LARGEST_GROUP


def test_slow_pictures_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(work_groups.time, "monotonic", lambda: now)

    def slowly_decoded() -> Iterator[int]:
        nonlocal now
        for item in range(6):
            now += 0.6 * GROUP_SECONDS
            yield item

    groups = list(work_in_groups(slowly_decoded(), lambda group: group, pixels_of=lambda item: 1, size=100))

    assert groups == [[0, 1], [2, 3], [4, 5]]


def test_the_next_group_is_gathered_while_one_is_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(6):
            taken.append(item)
            yield item

    results = work_in_groups(items(), lambda group: list(group), pixels_of=lambda item: 1, size=2)

    assert next(results) == [0, 1]
    assert taken == [0, 1, 2, 3]
    assert [*results] == [[2, 3], [4, 5]]


def test_a_scorer_without_memory_is_asked_for_smaller_batches(pictures: list[Path]) -> None:
    class Small(Probe):
        def score(
            self, images: Any, prompts: Any = None, batch_size: int | None = None, on_error: str = "raise"
        ) -> Any:
            self.given.append((len(images), batch_size))
            if (batch_size or len(images)) > 3:
                raise MemoryError
            return torch.zeros(len(images))

    small = Small()
    assert tolerant_outcomes(small, [Picture(i, None, None, None) for i in range(20)], None, None) == [0.0] * 20
    assert small.given == [(20, None), (20, 10), (20, 5), (20, 2)]


def test_what_was_scored_when_ctrl_c_came_is_kept() -> None:
    def items() -> Iterator[int]:
        yield from range(4)
        scored.wait(60)
        raise KeyboardInterrupt

    def work(group: list[int]) -> list[int]:
        if group == [2, 3]:
            scored.set()
        return group

    def keep() -> None:
        for group in work_in_groups(items(), work, pixels_of=lambda item: 1, size=2):
            kept.append(group)

    scored = threading.Event()
    kept: list[list[int]] = []
    with pytest.raises(KeyboardInterrupt):
        keep()
    assert kept[:1] == [[0, 1]]
    assert kept in ([[0, 1]], [[0, 1], [2, 3]])
