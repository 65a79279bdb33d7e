"""Where the trials of a search run: on the cores of this machine, or on those of a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from bitc.compression.mix import Mix, Problem, Trial, Workbench, attempt
from bitc.compression.search import Mapper
from bitc.errors import UsageError

_bench: Workbench


def local(jobs: int = 0) -> Mapper:
    """Processes on this machine, `jobs` of them (0: one per core)."""

    def run(problem: Problem, wanted: Sequence[Mix]) -> Iterator[Trial]:
        if not wanted:
            return
        count = min(jobs or os.cpu_count() or 1, len(wanted))
        fresh = multiprocessing.get_context("spawn")  # the runtimes' threads do not survive a fork
        with ProcessPoolExecutor(count, fresh, _start, (problem,)) as pool:
            yield from pool.map(_attempt, wanted)

    return run


def _start(problem: Problem) -> None:
    global _bench
    _bench = Workbench(problem)


def _attempt(mix: Mix) -> Trial:
    return _bench.attempt(mix)


def cluster(address: str) -> Mapper:
    """The workers of a Dask scheduler, such as ``tcp://host:8786``; bitc must be installed there. Raises UsageError."""

    def run(problem: Problem, wanted: Sequence[Mix]) -> Iterator[Trial]:
        try:
            from distributed import Client

            make: Any = Client
        except ImportError as e:
            hint = "pip install 'bitc[cluster]'"
            raise UsageError("Dask's distributed is not installed", where="--scheduler", hint=hint) from e
        try:
            client: Any = make(address, timeout="5s")
        except (OSError, ValueError) as e:
            hint = "start one with `dask scheduler`, and workers with `dask worker`"
            raise UsageError(f"no Dask scheduler answers: {e}", where=f"--scheduler {address}", hint=hint) from e
        with client:
            shared = client.scatter(problem, broadcast=True)
            futures = [client.submit(attempt, shared, mix, pure=False) for mix in wanted]
            yield from (f.result() for f in futures)

    return run
