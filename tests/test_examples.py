"""Every public function and class shows an example in its docstring, and every example runs."""

import doctest
import importlib
from pathlib import Path

import pytest
import torch

NAMES: dict[str, tuple[str, ...]] = {
    "ma_agiqa_core": (
        "CallableScorer",
        "EnsembleScorer",
        "ScoreActor",
        "Scorer",
        "ScorerInfo",
        "learn",
        "load_scorer",
        "rank",
        "score_dataset",
    ),
    "ma_agiqa_core.checkpoint": ("convert_reference", "load_checkpoint", "save_checkpoint"),
    "ma_agiqa_core.generation": (
        "ModularQualityFilter",
        "QualityFilterCallback",
        "best_of_n",
        "calibrate",
        "edit_judge",
        "load_early_scorer",
        "pipeline_judge",
        "plan_pruning",
    ),
    "ma_agiqa_core.metrics": ("krcc", "plcc", "rmse", "srcc"),
    "ma_agiqa_core.model": ("MaAgiqa", "MaAgiqaConfig"),
    "ma_agiqa_core.model_files.shards_converted": ("convert_shards",),
    "ma_agiqa_core.preprocess": ("visual_pixels",),
    "ma_agiqa_core.report": ("write_report",),
    "ma_agiqa_core.scorers.judges.held_reader": ("FirstTokenReader",),
    "ma_agiqa_core.scorers.judges.mrope": ("positions",),
    "ma_agiqa_core.semantic": ("ChatModel", "MplugOwl2", "SemanticCache", "SemanticExtractor"),
}
RESULTS_AND_ERRORS = {  # shown by the example of what returns or raises them
    "BestOfN",
    "CalibrationReport",
    "EarlyScorer",
    "MaAgiqaError",
    "PictureError",
    "PruningPlan",
    "PruningStep",
    "RankedPicture",
    "Ranking",
    "UnsupportedPipelineError",
}
PUBLIC = [
    (f"{module}.{name}", getattr(importlib.import_module(module), name)) for module in NAMES for name in NAMES[module]
]


def test_no_public_name_is_left_out() -> None:
    for module in ("ma_agiqa_core", "ma_agiqa_core.generation", "ma_agiqa_core.semantic", "ma_agiqa_core.model"):
        callables = {name for name in importlib.import_module(module).__all__ if name[0] != "_" and not name.isupper()}
        assert callables - RESULTS_AND_ERRORS == set(NAMES[module])


@pytest.mark.parametrize(("name", "value"), PUBLIC, ids=[name for name, _ in PUBLIC])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_example_runs(name: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    module = importlib.import_module(str(getattr(value, "__module__", name.rpartition(".")[0])))
    tests = doctest.DocTestFinder(recurse=True).find(value, name, module=module, globs=dict(vars(module)))
    examples = [example for test in tests for example in test.examples]
    assert examples, f"{name} has no `Example:` with >>> in its docstring"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in tests:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
