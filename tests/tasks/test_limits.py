"""What a run needs is said before it begins, and refused where it is not there."""

from pathlib import Path

import pytest

from ulmpipe.errors import UlmpipeError
from ulmpipe.tasks import limits
from ulmpipe.tasks import tokenize as task
from ulmpipe.tasks.limits import AMPLE, WORKER_BYTES, affordable_workers, disk_needed, memory_free
from ulmpipe.tasks.tokenize import dry_run, tokenize
from ulmpipe.text.source import plan_files, plan_folder


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch, reviews: Path) -> dict[str, float]:
    """The disk that is free, in times of what is needed."""
    given = {"times": 10.0}
    monkeypatch.setattr(limits, "disk_free", lambda out: round(given["times"] * disk_needed(plan_folder(reviews))))
    return given


def test_a_disk_that_is_too_small_is_said_up_front(
    free: dict[str, float],
    reviews: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    free["times"] = 0.9
    with (
        monkeypatch.context() as patch,
        pytest.raises(UlmpipeError, match=r"of disk are needed for .*out, 0 MB are free: free some, choose another -o"),
    ):
        patch.setattr(task, "digest", lambda plan: pytest.fail("the texts are read before the disk is looked at"))
        tokenize(reviews, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()
    tokenize(reviews, tmp_path / "out", workers=1, force=True)
    free["times"] = 1.2
    tokenize(reviews, tmp_path / "more", workers=1)
    assert capsys.readouterr().err.count("warning: about") == 2
    free["times"] = 2.0
    tokenize(reviews, tmp_path / "ample", workers=1)
    assert "warning: about" not in capsys.readouterr().err


def test_what_is_compressed_needs_more(tmp_path: Path):
    import gzip

    (tmp_path / "a.txt").write_bytes(b"x" * 1000)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"x" * 10))
    plain, packed = (disk_needed(plan_files([tmp_path / name])) for name in ("a.txt", "b.txt.gz"))
    assert plain == 2000 and packed > 4 * (tmp_path / "b.txt.gz").stat().st_size


def test_the_estimate_holds_for_reviews(reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No run of many documents takes more than it said."""
    (tmp_path / "a.txt").write_text(
        "".join(f"This is review number {n}, and it was great fun to see.\n" for n in range(3000))
    )
    plan, peak = plan_files([tmp_path / "a.txt"]), []
    real = task.publish

    def publish(stage: Path, out: Path, manifest: dict) -> None:
        peak.append(sum(path.stat().st_size for path in out.rglob("*") if path.is_file()))
        real(stage, out, manifest)

    monkeypatch.setattr(task, "publish", publish)
    task.tokenize_plan(plan, tmp_path / "out", task.TokenizeConfig(workers=1))
    assert 0.3 * disk_needed(plan) < peak[0] < AMPLE * disk_needed(plan)


@pytest.mark.parametrize(("free", "wanted", "expected"), [(10 * WORKER_BYTES, 4, 4), (2.5 * WORKER_BYTES, 4, 2), (10, 4, 1), (None, 4, 4)])  # fmt: skip
def test_no_more_workers_than_memory_can_hold(
    monkeypatch: pytest.MonkeyPatch, free: float | None, wanted: int, expected: int
):
    monkeypatch.setattr(limits, "memory_free", lambda: free)
    assert affordable_workers(wanted) == expected


def test_memory_of_a_control_group_counts_its_pages_of_files_as_free(tmp_path: Path):
    for name, text in (
        ("max", "1000\n"),
        ("current", "900\n"),
        ("stat", "anon 300\nactive_file 200\ninactive_file 400\n"),
    ):
        (tmp_path / f"memory.{name}").write_text(text)
    assert limits._of_the_group(tmp_path) == 700
    (tmp_path / "memory.max").write_text("max\n")
    assert limits._of_the_group(tmp_path) is None and limits._of_the_group(tmp_path / "none") is None


def test_memory_of_this_machine_is_told():
    found = memory_free()
    assert found is None or 1 << 20 < found < 1 << 50


def test_a_dry_run_says_all_and_writes_nothing(reviews: Path, tmp_path: Path):
    said = dry_run(reviews, tmp_path / "out", workers=3)
    assert (said.n_files, said.n_units, said.workers, said.memory_bytes) == (11, 1, 1, WORKER_BYTES)
    assert (
        said.n_bytes == sum(path.stat().st_size for path in reviews.rglob("*.txt")) and said.disk_bytes > said.n_bytes
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("options", "reason"), [({"max_vocab": 3}, "--max-vocab is 3"), ({"tables": "nosuch/t.arrow"}, "its folder does not exist"), ({"vocab": "nosuch.json"}, "nosuch.json")])  # fmt: skip
def test_a_dry_run_says_which_options_a_run_refuses(reviews: Path, tmp_path: Path, options: dict, reason: str):
    with pytest.raises(UlmpipeError, match=reason):
        tokenize(reviews, tmp_path / "out", workers=1, **options)
    (note,) = dry_run(reviews, tmp_path / "out", workers=1, **options).notes
    assert note.startswith("a run would be refused: ") and reason in note


def test_a_dry_run_says_what_would_stand_in_the_way(reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tokenize(reviews, tmp_path / "out", workers=1)
    monkeypatch.setattr(limits, "disk_free", lambda out: 10)
    replaced, refused = dry_run(reviews, tmp_path / "out", workers=1).notes
    assert "out holds tokens already: they stay where texts and settings are the same" in replaced
    assert refused.startswith("a run would be refused: about 0 MB of disk are needed")
    assert len(dry_run(reviews, tmp_path / "out", workers=1, force=True).notes) == 1


def test_an_output_that_can_not_be_written_is_refused_first(
    reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Root may write anywhere, so that the system is asked in its place."""
    monkeypatch.setattr(task, "digest", lambda plan: pytest.fail("the texts are read before the output is looked at"))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UlmpipeError, match="out can't be written: .* is read-only here, choose another -o"):
        tokenize(reviews, tmp_path / "out", workers=1)
