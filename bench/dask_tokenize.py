"""The goal of this script is to measure what `tokenize --backend dask` does with one worker and with two, and what limits more.

    ULMPIPE_DATA=../shared/data python bench/dask_tokenize.py      -> bench/results/dask.json

The first pass on the reviews of IMDB's train and unsup splits, on a cluster of this machine's own processes: the seconds from
the first call to the last record, workers started afresh and their kernels compiled. Once into a staging folder that
the workers see, once with the files sent back as bytes through the scheduler. Then how fast this process takes such
bytes when nothing has to be tokenized, and what it does alone: the second pass. First it asserts that the store is that of one machine.
"""

import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

import pyarrow.parquet as pq

from bench import record
from bench.corpora import data_folder
from ulmpipe.config import TokenizeConfig
from ulmpipe.console import set_quiet
from ulmpipe.tasks.tokenize import tokenize_plan
from ulmpipe.tasks.units import number_units
from ulmpipe.text import cluster
from ulmpipe.text.cluster import connected, land, run_on_cluster, tokenize_on_cluster
from ulmpipe.text.done import keep
from ulmpipe.text.pieces import Columns
from ulmpipe.text.shards import Job, UnitRecord, merge_counts
from ulmpipe.text.source import Plan, plan_files
from ulmpipe.text.tokenizer import TokenizerRecipe
from ulmpipe.text.vocab import VOCAB_FILE, Vocab, build_itos

REPEATS = 3
SENT_TIMES = 8  # that each unit's files are sent, where that alone is measured


@contextmanager
def workers(n: int) -> Iterator[str]:
    """The address of a fresh cluster of `n` processes of one thread."""
    from distributed import LocalCluster

    options: Any = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with LocalCluster(n_workers=n, **options) as local:
        yield str(local.scheduler_address)  # pyright: ignore[reportAttributeAccessIssue]


def write_source(folder: Path) -> Path:
    """The reviews as JSON lines: what a worker can reach any part of."""
    path = folder / "reviews.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for split in ("train", "unsup"):
            texts = pq.read_table(data_folder() / "imdb" / f"{split}.parquet", columns=["text"])["text"].to_pylist()
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    return path


def measure_pass(plan: Plan, job: Job, address: str) -> tuple[float, float, list[UnitRecord]]:
    """Seconds of the first pass on a cluster, those of all its workers' processors, and the records."""
    Path(job.stage).mkdir()
    with connected(address, cluster.asked_for(plan.units)) as client:
        begin_s, begin_cpu_s = time.monotonic(), cpu_seconds(client)
        records = list(tokenize_on_cluster(list(enumerate(plan.units)), job, address))
        wall_s, cpu_s = time.monotonic() - begin_s, cpu_seconds(client) - begin_cpu_s
    return wall_s, cpu_s, sorted(records, key=lambda found: found.index)


def cpu_seconds(client: Any) -> float:
    """What the processors of all workers have done so far."""
    return sum(client.run(time.process_time).values())


def send(number: int, folder: str, names: list[str]) -> dict[str, bytes]:
    """What a worker does that has nothing to tokenize: it sends files."""
    return {name: (Path(folder) / name).read_bytes() for name in names}


def measure_client(records: list[UnitRecord], stage: Path, folder: Path, address: str) -> tuple[float, float]:
    """Seconds in which this process takes the files of all units, on average: received, written, flushed, compared, kept.

    By the clock, and of its processor, the scheduler's share included, which runs in it here.
    """
    again = [unit for unit in records for _ in range(SENT_TIMES)]
    calls = [(number, str(stage), list(unit.files)) for number, unit in enumerate(again)]
    by_files = {tuple(unit.files): unit for unit in records}
    (folder / "stage").mkdir(parents=True)
    (folder / "done").mkdir()
    with connected(address, cluster.asked_for([])) as client:
        begin_s, begin_cpu_s = time.monotonic(), time.process_time()
        for files in run_on_cluster(client, send, calls):
            unit = by_files[tuple(files)]
            land(folder / "stage", unit, "", files)
            keep(folder / "done", folder / "stage", unit)
        return (time.monotonic() - begin_s) / SENT_TIMES, (time.process_time() - begin_cpu_s) / SENT_TIMES


def measure_alone(records: list[UnitRecord], stage: Path, out: Path) -> dict[str, float]:
    """Seconds of what this machine does alone: the vocabulary, and the second pass on two processes."""
    out.mkdir()
    begin_s = time.monotonic()
    recipe, config = TokenizerRecipe("en", "default"), TokenizeConfig()
    counts = merge_counts(stage, len(records), min_freq=config.min_freq)
    limits: Any = {"max_vocab": config.max_vocab, "min_freq": config.min_freq}
    Vocab(build_itos(counts, **limits, specials=recipe.resolved_rules.specials)).save(out / VOCAB_FILE)
    vocab_s = time.monotonic() - begin_s
    number_units(stage, out, len(records), [], Columns(), workers=2)
    return {"vocabulary": vocab_s, "second pass": time.monotonic() - begin_s - vocab_s}


def assert_same_store(plan: Plan, folder: Path) -> None:
    """The store of a cluster has the bytes of one made here."""
    with workers(2) as address:
        tokenize_plan(plan, folder / "dask", TokenizeConfig(backend="dask", scheduler=address))
    tokenize_plan(plan, folder / "here", TokenizeConfig(workers=2))
    for path in (folder / "here").iterdir():
        if path.is_file() and path.read_bytes() != (folder / "dask" / path.name).read_bytes():
            sys.exit(f"{path.name} differs: nothing is measured")


def measure(folder: Path) -> dict[str, Any]:
    """All of it, each `REPEATS` times."""
    plan = plan_files([write_source(folder)])
    assert_same_store(plan, folder)
    seen, mb, text_mb, sent_mb, stage = cluster.STAGE_TOKEN, plan.n_bytes / 1e6, 0.0, 0.0, folder
    seconds: dict[str, list[float]] = defaultdict(list)
    load: list[float] = []
    for repeat in range(REPEATS):
        for way in ("seen", "sent"):
            cluster.STAGE_TOKEN = seen if way == "seen" else "put elsewhere"  # the workers look for the first
            for n in (1, 2):
                stage = folder / f"{way}-{n}-{repeat}"
                job = Job(str(stage), TokenizerRecipe("en", "default"), Columns())
                with workers(n) as address:
                    load.append(round(os.getloadavg()[0], 1))
                    wall_s, cpu_s, records = measure_pass(plan, job, address)
                    seconds[f"{way}, {n}"].append(wall_s)
                    seconds[f"{way}, {n}, processors"].append(cpu_s)
                    text_mb = sum(unit.n_bytes for unit in records) / 1e6
                    sent_mb = sum(said["bytes"] for unit in records for said in unit.files.values()) / 1e6
                    if (way, n) == ("sent", 2):
                        wall_s, cpu_s = measure_client(records, stage, folder / f"client-{repeat}", address)
                        seconds["client"].append(wall_s)
                        seconds["client, processor"].append(cpu_s)
                        for name, value in measure_alone(records, stage, folder / f"alone-{repeat}").items():
                            seconds[name].append(value)
    return {
        "n_units": len(plan.units),
        "file_mb": round(mb, 2),
        "text_mb": round(text_mb, 2),
        "sent_mb": round(sent_mb, 2),
        "load_average": sorted(load),  # before each pass: what else was going on
        "seconds": {name: record.summary(found) for name, found in seconds.items()},
    }


def main() -> None:
    """Measure, and write down with the machine it was measured on."""
    record.where()
    set_quiet(True)
    with tempfile.TemporaryDirectory() as folder:
        record.write("dask", measure(Path(folder)))


if __name__ == "__main__":
    main()
