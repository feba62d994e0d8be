"""On a cluster of real processes texts become the same bytes as on this machine alone, whoever dies; misfits are named."""

import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clusters import Cluster
from commands import Cli, check_refused
from learnable import contents

from ulmpipe.config import PretrainConfig, TokenizeConfig
from ulmpipe.durable import DONE_PREFIX, STAGING_PREFIX
from ulmpipe.errors import ConfigError, UlmpipeError
from ulmpipe.options import make_config
from ulmpipe.tasks import units
from ulmpipe.tasks.tokenize import tokenize_plan
from ulmpipe.text import cluster as under_test
from ulmpipe.text.cluster import (
    Asked,
    asked_for,
    connected,
    digests_on_cluster,
    land,
    misfit,
    run_on_cluster,
    sees,
    tokenize_afar,
)
from ulmpipe.text.pieces import Columns
from ulmpipe.text.rules import PRESETS, Rules
from ulmpipe.text.shards import Job, UnitRecord
from ulmpipe.text.source import Plan, file_digest, join_plans, plan_files, plan_folder
from ulmpipe.text.tokenizer import TokenizerRecipe

NOTHING_ASKED = Asked(under_test.versions())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers of one thread."""
    found = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        for _ in range(2):
            found.start_worker()
        yield found
    finally:
        found.end()


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("scheduler"))
    try:
        yield found
    finally:
        found.end()


@pytest.fixture
def lonely(scheduler: Cluster) -> Iterator[Cluster]:
    """A scheduler without a worker: those of a test end with it."""
    env = dict(scheduler.env)
    yield scheduler
    scheduler.env = env
    scheduler.end_workers()


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler of a test's own, to be killed."""
    (tmp_path / "doomed").mkdir()
    found = Cluster(tmp_path / "doomed")
    try:
        yield found
    finally:
        found.end()


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Cluster]:
    """One that gives a call up when it has killed one worker; three more of them, by default, would take as long again."""
    (tmp_path / "strict").mkdir()
    found = Cluster(tmp_path / "strict", allowed_failures=0)
    try:
        yield found
    finally:
        found.end()


@pytest.fixture
def plan(reviews: Path) -> Plan:
    """Eleven documents in six work units or so."""
    return plan_folder(reviews, unit_bytes=60)


def on(cluster: Cluster, **options: Any) -> TokenizeConfig:
    return TokenizeConfig(workers=1, backend="dask", scheduler=cluster.address, **options)


def reference(plan: Plan, tmp_path: Path, **given: Any) -> dict[str, bytes]:
    tokenize_plan(plan, tmp_path / "ref", TokenizeConfig(workers=1), **given)
    return contents(tmp_path / "ref")


def spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, bytes]]]:
    """How the files of each unit came: the folder that they were in, or themselves."""
    came: list[tuple[str, dict[str, bytes]]] = []

    def spy(stage: Path, record: UnitRecord, folder: str, files: dict[str, bytes]) -> None:
        came.append((folder, files))
        land(stage, record, folder, files)

    monkeypatch.setattr(under_test, "land", spy)
    return came


# ---- the same bytes -------------------------------------------------------------------------------------------------


def test_workers_that_see_the_staging_folder_write_into_it(
    cluster: Cluster, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    came = spied(monkeypatch)
    tokenize_plan(plan, tmp_path / "out", on(cluster))
    assert contents(tmp_path / "out") == reference(plan, tmp_path)
    assert len(came) == len(plan.units) > 3 and all(folder and not files for folder, files in came)
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir()]


def test_workers_that_see_no_staging_folder_send_the_files(
    cluster: Cluster, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The workers look for the token where the parent, here, does not put it: as if the folder were not shared."""
    came = spied(monkeypatch)
    monkeypatch.setattr(under_test, "STAGE_TOKEN", "put-elsewhere")
    tokenize_plan(plan, tmp_path / "out", on(cluster))
    assert contents(tmp_path / "out") == reference(plan, tmp_path)
    assert len(came) == len(plan.units) and all(not folder and len(files) == 2 for folder, files in came)


def test_a_source_by_a_relative_path_is_found(cluster: Cluster, reviews: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(reviews.parent)
    plan = plan_folder(Path("reviews"))
    tokenize_plan(plan, Path("out"), on(cluster))
    assert contents(Path("out")) == reference(plan, reviews.parent)


def test_files_are_digested_by_the_workers(
    cluster: Cluster, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a line"}\n' * 50)
    plan = join_plans(plan_folder(reviews, unit_bytes=60), plan_files([tmp_path / "a.jsonl"], unit_bytes=100))
    ref = [file_digest(path) for _, path in plan.paths]
    monkeypatch.setattr(under_test, "file_digest", lambda path: pytest.fail("by this process"))
    assert digests_on_cluster(plan, cluster.address) == ref and len(set(ref)) == 12


def test_an_empty_table_is_digested_here(cluster: Cluster, tmp_path: Path):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    plan = plan_files([tmp_path / "a.parquet"])
    assert not plan.units
    assert digests_on_cluster(plan, cluster.address) == [file_digest(str(tmp_path / "a.parquet"))]


def test_an_interrupted_run_says_nothing_else_and_goes_on(
    cluster: Cluster, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def keep(done: Path, stage: Path, record: UnitRecord) -> None:
        real_keep(done, stage, record)
        raise KeyboardInterrupt

    real_keep = units.keep
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), warnings.catch_warnings(record=True) as said:
        patch.setattr(units, "keep", keep)
        tokenize_plan(plan, tmp_path / "out", on(cluster))
    assert not said and list((tmp_path / "out").glob(f"{DONE_PREFIX}*"))
    tokenize_plan(plan, tmp_path / "out", on(cluster))
    assert contents(tmp_path / "out") == reference(plan, tmp_path)


def slow_rules() -> Rules:
    """A rule of a user's own, which no worker has a module of, that takes a while for each document."""

    def slowly(text: str) -> str:
        import time

        time.sleep(0.1)
        return text

    default = PRESETS["default"]
    return Rules(pre=(slowly, *default.pre), post=default.post, specials=default.specials)


def test_a_worker_that_is_killed_on_the_way_changes_nothing(
    cluster: Cluster, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ref, kept = reference(plan, tmp_path, custom_rules=slow_rules()), []

    def keep(done: Path, stage: Path, record: UnitRecord) -> None:
        real_keep(done, stage, record)
        kept.append(record.index)
        if len(kept) == 1:
            cluster.kill(cluster.workers[0])

    real_keep = units.keep
    monkeypatch.setattr(units, "keep", keep)
    try:
        tokenize_plan(plan, tmp_path / "out", on(cluster), custom_rules=slow_rules())
    finally:
        cluster.workers.pop(0)
        cluster.start_worker()
    assert contents(tmp_path / "out") == ref and sorted(kept) == list(range(len(plan.units)))


def test_threads_of_one_worker_take_turns(lonely: Cluster, plan: Plan, tmp_path: Path, capsys: Any):
    lonely.start_worker(n_threads=4)
    tokenize_plan(plan, tmp_path / "out", on(lonely))
    assert contents(tmp_path / "out") == reference(plan, tmp_path)
    assert (
        "has several threads, of which a work unit uses one: start workers with --nthreads 1" in capsys.readouterr().err
    )


# ---- clusters that fail ---------------------------------------------------------------------------------------------


def test_a_run_whose_scheduler_dies_goes_on_without_it(
    doomed: Cluster, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    doomed.start_worker()

    def keep(done: Path, stage: Path, record: UnitRecord) -> None:
        real_keep(done, stage, record)
        doomed.kill(doomed.scheduler)

    real_keep = units.keep
    with (
        monkeypatch.context() as patch,
        pytest.raises(UlmpipeError, match="scheduler is gone: run the same command again"),
    ):
        patch.setattr(units, "keep", keep)
        tokenize_plan(plan, tmp_path / "out", on(doomed))
    (done,) = (tmp_path / "out").glob(f"{DONE_PREFIX}*")
    n_done = len(list(done.glob("unit-*.counts.arrow")))
    assert n_done > 0 and not list((tmp_path / "out").glob(f"{STAGING_PREFIX}*"))
    tokenize_plan(plan, tmp_path / "out", TokenizeConfig(workers=1))
    assert contents(tmp_path / "out") == reference(plan, tmp_path)


def test_a_unit_that_kills_its_workers_ends_the_run_in_one_line(strict: Cluster, plan: Plan, tmp_path: Path):
    strict.start_worker()

    def deadly(text: str) -> str:
        import os

        os.kill(os.getpid(), signal.SIGKILL)
        return text

    rules = Rules(pre=(deadly,), post=())
    with pytest.raises(
        UlmpipeError, match=r"kills its workers \(1 so far\): run the same command without --backend dask"
    ):
        tokenize_plan(plan, tmp_path / "out", on(strict), custom_rules=rules)


def test_a_run_without_a_worker_waits_and_says_so(lonely: Cluster, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(under_test, "LOOK_S", 0.1)
    monkeypatch.setattr(under_test, "MAX_WAITING", 1)  # so that most calls are still to be made
    lines: list[str] = []

    def log(line: str) -> None:
        if not line.startswith("waiting for a worker"):  # as it begins, where none has come yet
            lines.append(line)
            lonely.start_worker()

    monkeypatch.setattr(under_test, "log", log)
    lonely.start_worker()
    with connected(lonely.address, NOTHING_ASKED) as client:
        results = run_on_cluster(client, pow, [(k, 2) for k in range(20)])
        found = [next(results)]
        lonely.kill(lonely.workers[0])
        time.sleep(1)  # what was under way has come by now, and the scheduler has seen that the worker is gone
        found += results
    assert sorted(found) == [k * k for k in range(20)]
    assert lines == ["no worker is left: waiting for new ones. What is done is kept if you stop here"]


def test_a_scheduler_without_workers_is_not_waited_for(lonely: Cluster, plan: Plan, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr(under_test, "WORKERS_S", 0.3)
    with pytest.raises(UlmpipeError, match=f"no worker has come to {lonely.address} within 0 s: start some"):
        tokenize_plan(plan, tmp_path / "out", on(lonely))


def test_no_cluster_is_one_line(cli: Cli, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(under_test, "CONNECT_S", 0.3)
    command = ("tokenize", reviews, "-o", tmp_path / "out", "--workers", "1", "--backend", "dask", "--scheduler")
    check_refused(cli(*command, "tcp://127.0.0.1:1"), 1, "no scheduler answers at tcp://127.0.0.1:1: start one")
    check_refused(cli(*command, "http://127.0.0.1:1"), 2, "is no address, expected such as tcp://host:8786")
    check_refused(cli(*command, "nonsense"), 2, "is no address, expected such as tcp://host:8786")
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    config = TokenizeConfig(workers=1, backend="dask", scheduler="tcp://127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"pip install 'ulmpipe\[dask\]'"):
        tokenize_plan(plan, tmp_path / "out", config)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"backend": "dask"}, "--backend dask needs --scheduler ADDRESS"),
        ({"scheduler": "tcp://a:1"}, "is for a cluster: add --backend dask"),
        ({"backend": "dask", "scheduler": "tcp://a:1", "unit_timeout": 9.0}, "--unit-timeout ends processes of this"),
        ({"backend": "slurm"}, "--backend is 'slurm', expected one of loky, dask"),
    ],
)
@pytest.mark.parametrize("kind", [TokenizeConfig, PretrainConfig])
def test_options_that_do_not_go_together(kind: type, options: dict[str, Any], reason: str):
    with pytest.raises(ConfigError, match=reason):
        make_config(kind, options)


# ---- misfits --------------------------------------------------------------------------------------------------------


def test_workers_of_another_version_are_refused_by_name(
    cluster: Cluster, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(under_test, "versions", lambda: ("ulmpipe 9", "spaCy 3"))
    with pytest.raises(
        UlmpipeError, match=r"worker tcp://127.*(and 1 more.*)?has ulmpipe 0.*, expected ulmpipe 9, spaCy 3"
    ):
        tokenize_plan(plan, tmp_path / "out", on(cluster))


def test_a_worker_without_ulmpipe_is_refused_by_name(lonely: Cluster, plan: Plan, tmp_path: Path):
    """Or, here, with a package of that name that holds nothing."""
    (tmp_path / "empty/ulmpipe").mkdir(parents=True)
    (tmp_path / "empty/ulmpipe/__init__.py").touch()
    lonely.env["PYTHONPATH"] = str(tmp_path / "empty")
    lonely.start_worker()
    with pytest.raises(UlmpipeError, match=r"the worker tcp://127\S+ .*No module named 'ulmpipe.text'"):
        tokenize_plan(plan, tmp_path / "out", on(lonely))


def test_a_worker_is_looked_at_anew_by_each_run(cluster: Cluster, reviews: Path, plan: Plan):
    times = (reviews / "pos/3.txt").stat().st_mtime_ns
    os.utime(reviews / "pos/3.txt")
    with pytest.raises(UlmpipeError, match="sees another file"), connected(cluster.address, asked_for(plan.units)):
        pass
    os.utime(reviews / "pos/3.txt", ns=(times, times))
    with connected(cluster.address, asked_for(plan.units)) as client:
        assert len(client.scheduler_info()["workers"]) == 2


@pytest.mark.parametrize(("spoil", "reason"), [(os.unlink, "does not see"), (os.utime, "sees another file at")])
def test_workers_that_do_not_see_the_source_are_refused(
    cluster: Cluster, reviews: Path, plan: Plan, tmp_path: Path, spoil: Callable[[Path], None], reason: str
):
    """It is spoiled after it was planned: the workers see something else than this process did."""
    spoil(reviews / "pos/3.txt")
    with pytest.raises(UlmpipeError, match=rf"worker tcp://127\S+ {reason} {reviews}/pos/3.txt: put the source where"):
        tokenize_plan(plan, tmp_path / "out", on(cluster), fingerprint="f")


def test_a_worker_that_comes_late_is_looked_at_too(plan: Plan, tmp_path: Path):
    job = Job(str(tmp_path), TokenizerRecipe("en", "default"), Columns())
    with pytest.raises(UlmpipeError, match="the worker on .* has ulmpipe .*, expected ulmpipe 9"):
        tokenize_afar(0, plan.units[0], job, Asked(("ulmpipe 9",)), "token")


def test_a_worker_without_room_is_named(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(under_test.tempfile, "mkdtemp", full)
    job = Job(str(tmp_path), TokenizerRecipe("en", "default"), Columns())
    with pytest.raises(UlmpipeError, match=r"the worker on \S+ can't write temporary files: free some .*No space"):
        tokenize_afar(0, plan.units[0], job, NOTHING_ASKED, "token")


def full(*args: Any, **options: Any) -> str:
    raise OSError(28, "No space left on device")


def test_files_are_asked_for_by_size_and_time_from_all_over_the_source(tmp_path: Path):
    for i in range(250):
        (tmp_path / f"{i:03}.txt").write_text(str(i))
    plan = plan_folder(tmp_path, unit_bytes=50)
    asked = asked_for(plan.units)
    paths = [path for path, _ in asked.files]
    assert paths == sorted(paths) and 100 <= len(paths) <= 130 and paths[-1] > f"{tmp_path}/240"
    assert all(stamp and len(stamp) == 2 for _, stamp in asked.files) and misfit(asked) is None


def test_only_the_same_folder_and_user_count_as_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert not sees(str(tmp_path), "t")
    (tmp_path / under_test.STAGE_TOKEN).write_text("t")
    assert sees(str(tmp_path), "t") and not sees(str(tmp_path), "other")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert not sees(str(tmp_path), "t")


def test_files_that_come_back_damaged_are_refused(tmp_path: Path):
    record = UnitRecord(0, files={"unit-00000.arrow": {"bytes": 3, "sha256": "0" * 64}})
    with pytest.raises(UlmpipeError, match="unit-00000.arrow came back from its worker damaged"):
        land(tmp_path, record, "", {"unit-00000.arrow": b"abc"})


# ---- calls ----------------------------------------------------------------------------------------------------------


def test_one_worker_makes_the_calls_and_not_this_process(lonely: Cluster):
    lonely.start_worker()
    with connected(lonely.address, NOTHING_ASKED) as client:
        assert set(run_on_cluster(client, os.getpid, [()] * 5)) == {lonely.workers[0].pid}


def test_every_result_comes_once_and_an_error_is_raised_here(cluster: Cluster):
    with connected(cluster.address, NOTHING_ASKED) as client:
        assert sorted(run_on_cluster(client, abs, [(-k,) for k in range(40)])) == list(range(40))
        with pytest.raises(ZeroDivisionError):
            list(run_on_cluster(client, divmod, [(1, k) for k in range(3, -1, -1)]))


def test_calls_are_held_back_while_results_are_not_taken(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(under_test, "MAX_WAITING", 2)
    n, most_ahead = 40, 0
    calls = [(str(tmp_path / str(k)), "w") for k in range(n)]

    def begin(path: str, mode: str) -> str:
        open(path, mode).close()
        return path

    with connected(cluster.address, NOTHING_ASKED) as client:
        taken: list[str] = []
        for path in run_on_cluster(client, begin, calls):
            time.sleep(0.03)
            most_ahead = max(most_ahead, len(list(tmp_path.iterdir())) - len(taken))
            taken.append(path)
    assert sorted(taken) == sorted(path for path, _ in calls)
    assert most_ahead <= 2 + 2 * under_test.AHEAD + 4  # waiting, handed out, and what joblib takes at a time
