"""Ray and Daft do what this machine's loop does, and each goes on where another stopped."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from brightness_judge import judge
from project_paths import SUPPORT
from scale_fixtures import check_exactly_once, picture_bytes, rows_of, shade_of, write_pictures

from ma_agiqa_core import MaAgiqaError, ScoreActor, score_dataset

long = pytest.mark.long  # starting an engine takes longer than most of the suite


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    found = pytest.importorskip("ray", reason="ray is not installed")
    pytest.importorskip("ray.data", reason="ray.data is not installed")
    workers_path = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    found.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": workers_path}},
    )
    found.data.DataContext.get_current().enable_progress_bars = False
    yield found
    found.shutdown()


@pytest.fixture(scope="module")
def daft() -> Any:
    return pytest.importorskip("daft", reason="daft is not installed")


def by_key(out: Path) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in rows_of(out)}


@long
def test_every_engine_goes_on_where_another_stopped(tmp_path, ray, daft):
    """Scores are equal to the last bit, and rows that one engine could not score are scored by the next."""
    write_pictures(tmp_path / "in", 30)
    (tmp_path / "in" / "00030.bmp").write_bytes(b"broken")
    counts = []
    for number, engine in enumerate(("ray", "daft", "local", "ray")):
        done = score_dataset(tmp_path / "in", judge(), out=tmp_path / "out", engine=engine, workers=1)
        counts.append((done.scored, done.failed, done.already))
        write_pictures(tmp_path / "in", 10, first=30 + 10 * number)
        (tmp_path / "in" / f"{40 + 10 * number:05}.bmp").write_bytes(b"broken")
    assert counts == [(30, 1, 0), (10, 1, 30), (10, 1, 40), (10, 1, 50)]
    for engine in ("ray", "daft", "local"):
        score_dataset(tmp_path / "in", judge(), out=tmp_path / engine, engine=engine, workers=1)
    assert by_key(tmp_path / "ray") == by_key(tmp_path / "local") == by_key(tmp_path / "daft")
    for engine in ("ray", "daft"):
        with pytest.raises(MaAgiqaError, match=r"Expected the judges that the parts were made with, brightness@1"):
            score_dataset(tmp_path / "in", judge(revision="9"), out=tmp_path / "ray", engine=engine, workers=1)


@long
def test_a_ray_data_set(tmp_path, ray):
    table = pyarrow.table({"bytes": [picture_bytes(n) for n in range(20)], "id": list(range(20)), "other": [0] * 20})
    made = ray.data.from_arrow(table)
    score_dataset(made, judge(), id="id", out=tmp_path / "out", workers=1)
    assert {int(key): round(row["brightness"] * 255) for key, row in by_key(tmp_path / "out").items()} == {
        number: shade_of(number) for number in range(20)
    }
    assert score_dataset(made, judge(), id="id", out=tmp_path / "out", workers=1).already == 20
    assert score_dataset(made, judge(), id="id", out=tmp_path / "out", engine="local").scored == 0
    scored = made.map_batches(ScoreActor, fn_constructor_kwargs={"model": judge()}, concurrency=1).take_all()
    assert {row["id"]: round(row["brightness"] * 255) for row in scored} == {n: shade_of(n) for n in range(20)}


@long
def test_a_daft_data_frame(tmp_path, daft):
    frame = daft.from_pydict(
        {"image": [picture_bytes(n) for n in range(20)], "id": list(range(20)), "prompt": ["a" * n for n in range(20)]}
    )
    score_dataset(frame, [judge(), judge("prompted")], id="id", out=tmp_path / "out", workers=1)
    rows = by_key(tmp_path / "out")
    assert {int(key): round(row["brightness"] * 255) for key, row in rows.items()} == {
        n: shade_of(n) for n in range(20)
    }
    assert rows["7"]["prompted"] == 7
    assert rows["0"]["error"] == "prompted: no prompt for this picture"
    again = score_dataset(frame, [judge(), judge("prompted")], id="id", out=tmp_path / "out", workers=1)
    assert (again.already, again.failed) == (19, 1)


@long
def test_pictures_without_a_name_are_called_by_their_content(tmp_path, ray, daft):
    pictures = [picture_bytes(n) for n in range(3)]
    for engine, made in {
        "ray": ray.data.from_arrow(pyarrow.table({"bytes": pictures})),
        "daft": daft.from_pydict({"bytes": pictures}),
    }.items():
        score_dataset(made, judge(), out=tmp_path / engine, workers=1)
    assert set(by_key(tmp_path / "ray")) == set(by_key(tmp_path / "daft"))
    assert all(key.startswith("sha256:") for key in by_key(tmp_path / "ray"))


@long
def test_ray_replaces_an_actor_that_dies_and_each_row_counts_once(tmp_path, ray):
    """A worker is killed while it works; see also benchmarks/faults.py."""
    import signal
    import threading
    import time

    write_pictures(tmp_path / "in", 1500)
    killed: list[int] = []

    def kill_one() -> None:
        import psutil

        deadline = time.monotonic() + 60
        while not killed and time.monotonic() < deadline:
            for process in psutil.process_iter(["cmdline"]):
                name = " ".join(process.info["cmdline"] or [])
                if name.startswith("ray::MapWorker") and "map_batches" not in name and process.cpu_times().user > 0:
                    if not any((tmp_path / "out").glob("part-*")):
                        continue
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
                    return
            threading.Event().wait(0.05)

    killer = threading.Thread(target=kill_one)
    killer.start()
    score_dataset(tmp_path / "in", judge(seconds=0.002), out=tmp_path / "out", engine="ray", workers=1, save_every=0.1)
    killer.join()
    assert killed
    check_exactly_once(tmp_path / "out", 1500)


def test_what_a_ray_actor_does_at_a_time():
    """Small shards together, a tar alone; every worker has several, and each picture is in one of them."""
    from ma_agiqa_core.scale.engines.on_ray import _blocks
    from ma_agiqa_core.scale.sources.shard import PathShard, Shard, in_shards
    from ma_agiqa_core.scale.sources.tars import TarShard

    names = [f"{number}.png" for number in range(1000)]
    shards: list[Shard] = [PathShard(tuple(chunk)) for chunk in in_shards(names)]
    for workers in (1, 4):
        blocks = _blocks(list(shards), workers)
        assert [row.picture for block in blocks for shard in block for row in shard.rows()] == names
        assert 4 * workers - 1 <= len(blocks) <= 6 * workers
    assert _blocks([TarShard(f"{number}.tar") for number in range(3)], 8) == [
        [TarShard(f"{number}.tar")] for number in range(3)
    ]
    assert _blocks([], 2) == []


def test_the_line_to_install_what_is_missing(tmp_path, monkeypatch):
    import sys

    write_pictures(tmp_path / "in", 1)
    for name in ("ray", "daft"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MaAgiqaError, match=rf'pip install "ma-agiqa\[{name}\]"'):
            score_dataset(tmp_path / "in", judge(), out=tmp_path / "out", engine=name)
