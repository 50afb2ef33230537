"""Ray Data: an actor for each worker, placed by Ray on any machine of its cluster; rows come back to this process.

What is done is asked of the parts (an anti-join on the key) and not of Ray Data's own checkpoints, so that a run can go
on with another engine. The writer takes each key once, so that what Ray does again after an actor died counts once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

from ...errors import MaAgiqaError, MissingPackageError
from ..parts import import_pyarrow
from ..run import EngineRun, Results, Source
from ..sources.finding import find_shards
from ..sources.objects import is_ray
from ..sources.shard import MOST_IN_SHARD, Shard, pictures_in
from ..sources.tables import columns_of, key_of_content, row_of
from .answers import SHARD, answer, read_answers, refusal, shards_as_column, unpickled
from .work import Worker

CORES_OF_A_WORKER = 4
ROWS_AT_ONCE = 64
_BLOCKS_OF_A_WORKER = 4


def import_ray() -> Any:
    """The module ray with ray.data, or an ImportError that says how to get it."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingPackageError('Expected ray, got none. Run: pip install "ma-agiqa[ray]"') from error
    return ray


def run_on_ray(source: Source, run: EngineRun) -> Results:
    """Scores a source, or a `ray.data.Dataset`, on the Ray cluster that is there, or on one started here.

    Raises:
        ImportError: Ray is missing.
        ValueError: The judges cannot be loaded.
    """
    ray = import_ray()
    pa = import_pyarrow()
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        ray.data.DataContext.get_current().enable_progress_bars = False
    workers, resources = _workers(ray, run, cores_left=1 if is_ray(source) else 0)
    actor: type[_Actor] = _RowActor
    size: int | None = ROWS_AT_ONCE
    if is_ray(source):
        dataset = source.select_columns(columns_of(source.schema().names, run.columns, "the data set").names)
    else:
        blocks = _blocks(list(find_shards(source, run.columns)), workers)
        tables = [pa.table({SHARD: pa.array(shards_as_column(block), pa.binary())}) for block in blocks]
        dataset, actor, size = ray.data.from_arrow(tables), _ShardActor, None
    return _results(ray, dataset, actor, size, ray.put(run), workers, resources)


def _results(
    ray: Any, dataset: Any, actor: type, size: int | None, told: Any, workers: int, resources: dict[str, float]
) -> Results:
    """Holds what the actors were told: one that is restarted asks for it again."""
    scored = dataset.map_batches(
        actor,
        batch_size=size,
        batch_format="pyarrow",
        fn_constructor_args=([told], workers),
        compute=ray.data.ActorPoolStrategy(size=workers),
        **resources,
    )
    yield from read_answers(scored.iter_batches(batch_size=None, batch_format="pyarrow"))
    del told


def _blocks(shards: list[Shard], workers: int) -> list[list[Shard]]:
    """What an actor does at a time, and loses when it dies: small shards together, large ones alone."""
    most = min(MOST_IN_SHARD, sum(map(pictures_in, shards)) // (_BLOCKS_OF_A_WORKER * workers))
    blocks: list[list[Shard]] = []
    count = most
    for shard in shards:
        if count >= most:
            blocks.append([])
            count = 0
        blocks[-1].append(shard)
        count += pictures_in(shard)
    return blocks


def _workers(ray: Any, run: EngineRun, cores_left: int) -> tuple[int, dict[str, float]]:
    """How many, and what each of them gets: one graphics card where there are any, else a group of cores.

    The tasks that read a `ray.data.Dataset` need a core, too: where the actors hold them all, nothing is ever read.
    """
    there = ray.cluster_resources()
    cards, cores = int(there.get("GPU", 0)), max(0.5, there.get("CPU", 1) - cores_left)
    gpus = run.gpus if run.gpus is not None else float(min(1, cards))
    if gpus:
        return run.workers or max(1, int(cards / gpus)), {"num_gpus": gpus}
    workers = run.workers or max(1, int(cores // CORES_OF_A_WORKER))
    share = min(float(CORES_OF_A_WORKER), cores / workers)
    return workers, {"num_cpus": float(int(share)) if share >= 1 else share}


class _Actor:
    """Loads the judges; why it cannot is told at the first batch, since Ray would try again for ever."""

    def __init__(self, told: list[Any], workers: int) -> None:
        import ray

        self._run: EngineRun = ray.get(told[0])
        self._worker: Worker | None = None
        self._refusal: Any = None
        try:
            self._worker = Worker(self._run, _on_this_machine(ray, workers))
        except (MaAgiqaError, OSError) as error:
            self._refusal = refusal(error)

    def _answers(self, batch: Any) -> Iterator[Any]:
        raise NotImplementedError

    def __call__(self, batch: Any) -> Iterator[Any]:
        """One answer for each group of pictures."""
        if self._refusal is not None:
            yield self._refusal
            return
        try:
            yield from self._answers(batch)
        except (MaAgiqaError, OSError) as error:
            yield refusal(error)


class _ShardActor(_Actor):
    def _answers(self, batch: Any) -> Iterator[Any]:
        assert self._worker is not None
        yield answer([], self._worker.facts)
        for rows in self._worker.score_shards(unpickled(batch[SHARD].to_pylist())):
            yield answer(rows, self._worker.facts)


class _RowActor(_Actor):
    def _answers(self, batch: Any) -> Iterator[Any]:
        worker = self._worker
        assert worker is not None
        columns = columns_of(batch.column_names, self._run.columns, "the data set")
        found = (row_of(values, columns, key_of_content(values), None) for values in batch.to_pylist())
        yield answer([], worker.facts)
        for rows in worker.score(row for row in found if row.key not in worker.done):
            yield answer(rows, worker.facts)


def _on_this_machine(ray: Any, workers: int) -> int:
    """About how many workers share the cores of a machine."""
    machines = max(1, sum(node.get("Alive", False) for node in ray.nodes()))
    return max(1, min(os.cpu_count() or 1, -(-workers // machines)))
