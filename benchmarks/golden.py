"""The scores of made-up pictures by every released model, and the checksums of their weights: tests/golden/scores.json.

python -m benchmarks.golden            compares; exit code 1 where they differ
python -m benchmarks.golden --write    writes the table anew, after a model was released
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))


def made() -> dict[str, object]:
    """What the table should say."""
    from golden_pictures import digest_of_pictures, golden_pictures

    from ma_agiqa_core import load_scorer
    from ma_agiqa_core.model_files.digest import file_digest
    from ma_agiqa_core.scorers.families import FAMILIES

    names, pictures = zip(*golden_pictures(), strict=True)
    models = {}
    for family in FAMILIES:
        if family.carried is None:  # others have weights of their own, which are not released here
            continue
        scorer = load_scorer(family.name, device="cpu")
        scores = scorer.score(list(pictures)).tolist()
        models[family.name] = {
            "revision": scorer.info.revision,
            "sha256": file_digest(family.carried()),
            "scores": {name: round(score, 5) for name, score in zip(names, scores, strict=True)},
        }
    return {"pictures": digest_of_pictures(), "models": models}


def main() -> int:
    from golden_pictures import TABLE, TOLERANCE

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    is_to_write = parser.parse_args().write
    found = made()
    if is_to_write:
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return 0
    known = json.loads(TABLE.read_text(encoding="utf-8"))
    worst = 0.0
    for name, model in found["models"].items():
        other = known["models"].get(name, {"scores": {}})
        worst = max([worst, *(abs(score - other["scores"].get(key, 1e9)) for key, score in model["scores"].items())])
        print(f"{name}: revision {other.get('revision')} in the table, {model['revision']} here")
    print(f"largest difference {worst:.2g}, allowed {TOLERANCE:g}")
    return int(worst > TOLERANCE or known["pictures"] != found["pictures"])


if __name__ == "__main__":
    sys.exit(main())
