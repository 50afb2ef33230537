"""The fuzz harnesses for a moment, with a fixed seed; docs/security.md says for how long they ran."""

import importlib.util

import fuzz_targets
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

EXAMPLES = {"pictures": 120, "checkpoints": 12, "prune_at": 120}
OTHERS = 40


@pytest.mark.parametrize("name", fuzz_targets.TARGETS)
def test_a_short_run(name):
    if name == "picks" and importlib.util.find_spec("ma_agiqa_core.picks") is None:
        pytest.skip("picks.json is not read in this version")
    target = fuzz_targets.TARGETS[name]
    check = given(target.inputs)(fuzz_targets.quietly(target.check))
    run = settings(
        max_examples=EXAMPLES.get(name, OTHERS),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )(seed(1)(check))
    run()


def test_the_seeds_are_whole_pictures_of_most_formats():
    from ma_agiqa_core.pictures.reading import read_picture_bytes

    assert len(fuzz_targets.seeds()) > 60
    assert sum(read_picture_bytes(content).mode == "RGB" for content in fuzz_targets.seeds()) > 60


def test_a_harness_sees_a_finding(monkeypatch):
    from ma_agiqa_core.generation.pruning import schedule

    monkeypatch.setattr(schedule.PruneSchedule, "parse", lambda text: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fuzz_targets.check_prune_at("0.5:2")
