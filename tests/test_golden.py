"""The released models score made-up pictures as they did when they were released.

After a model was released anew: `python -m benchmarks.golden --write`.
"""

import json

import golden_pictures
import pytest

from ma_agiqa_core import load_scorer
from ma_agiqa_core.model_files.digest import file_digest
from ma_agiqa_core.scorers.families import FAMILIES

KNOWN = json.loads(golden_pictures.TABLE.read_text("utf-8"))
ANEW = "If the model was released anew, run: python -m benchmarks.golden --write"


def test_the_pictures_are_those_of_the_table():
    assert golden_pictures.digest_of_pictures() == KNOWN["pictures"]


def test_every_released_model_is_in_the_table():
    assert {family.name for family in FAMILIES if family.carried is not None} == set(KNOWN["models"]), ANEW


@pytest.mark.parametrize("name", KNOWN["models"])
def test_scores_and_weights_are_those_of_the_release(name):
    known = KNOWN["models"][name]
    family = next(family for family in FAMILIES if family.name == name)
    assert family.carried is not None
    assert file_digest(family.carried()) == known["sha256"], ANEW
    scorer = load_scorer(name, device="cpu")
    assert scorer.info.revision == known["revision"], ANEW
    names, pictures = zip(*golden_pictures.golden_pictures(), strict=True)
    scores = dict(zip(names, scorer.score(list(pictures)).tolist(), strict=True))
    assert scores == pytest.approx(known["scores"], abs=golden_pictures.TOLERANCE)
    assert len(set(known["scores"].values())) > 10
