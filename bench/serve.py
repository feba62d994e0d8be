"""The goal of this script is to measure `ulmpipe serve`: requests a second, and how long one takes.

    ULMPIPE_DATA=../shared/data python bench/serve.py           -> bench/results/serve.json

A classifier of size small with random weights, on the threads of $OMP_NUM_THREADS (1); the clients are threads of this process,
on the same machine. Two servers take turns: as it is, and one that predicts each request alone, which is what joining those that wait
is measured against. First both must say what the model says. Seconds are those of a client, HTTP and JSON included; processor
seconds are those of the server, and on a shared machine they alone say much.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx

from bench import record
from bench.predict import make_model, reviews
from ulmpipe.tasks.predict import from_pretrained

SIZE, REPEATS = "small", 3
SHORT, N_TEXTS = 140, 32  # characters of a short text, texts of a batch
THREADS = os.environ.get("OMP_NUM_THREADS", "1")
ALONE = "from ulmpipe.server import worker; worker.JOINED_TEXTS = 1; from ulmpipe.cli import main; main()"
SERVERS = {"joined": ["-m", "ulmpipe"], "alone": ["-c", ALONE]}

Body = dict[str, Any]


class Server:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]):
        assert process.stderr is not None
        found = re.search(r"http://\S+(?=,)", process.stderr.readline())
        assert found, "the server did not start"
        self.process, self.client = process, httpx.Client(base_url=found[0], timeout=120, trust_env=False)

    def ask(self, body: Body) -> Any:
        """The answer to a request, which must be one."""
        return self.client.post("/predict", json=body).raise_for_status().json()

    def rss_mb(self) -> float:
        """Memory of the process."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def cpu_s(self) -> float:
        """Seconds of a processor that the process has taken."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # in its own code, in the system's


@contextmanager
def running(words: Sequence[str], folder: str) -> Iterator[Server]:
    """Start a server, and end it."""
    command = [sys.executable, *words, "serve", folder, "--port", "0", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": THREADS}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=record.ROOT, env=environment) as process:
        try:
            yield Server(process)
        finally:
            process.terminate()


def measure(server: Server, bodies: Sequence[Body], clients: int) -> dict[str, float]:
    """All requests, by so many clients at a time."""

    def ask(body: Body) -> float:
        begin_s = time.perf_counter()
        server.ask(body)
        return 1000 * (time.perf_counter() - begin_s)

    begin_s, begin_cpu_s = time.perf_counter(), server.cpu_s()
    with ThreadPoolExecutor(clients) as threads:
        ms = sorted(threads.map(ask, bodies))
    seconds = time.perf_counter() - begin_s
    return {
        "cpu_ms": 1000 * (server.cpu_s() - begin_cpu_s) / len(bodies),
        "requests_per_s": len(bodies) / seconds,
        "median_ms": statistics.median(ms),
        "p99_ms": ms[min(len(ms) - 1, int(0.99 * len(ms)))],
    }


def check_equal_work(server: Server, folder: str, texts: list[str]) -> None:
    """What the server says is what the model says."""
    ref = [prediction.probabilities["pos"] for prediction in from_pretrained(folder, device="cpu").predict(texts)]
    comp = [found["probabilities"]["pos"] for found in server.ask({"texts": texts})["predictions"]]
    assert max(abs(a - b) for a, b in zip(ref, comp, strict=True)) < 1e-5


def main() -> None:
    """Measure every kind of request, both servers in turns."""
    texts, _ = reviews(200)
    short = [text[:SHORT] for text in texts]
    kinds: list[tuple[str, list[Body], int]] = [
        *(("a text of 140 characters", [{"text": text} for text in short], clients) for clients in (1, 8, 32)),
        *(("a review", [{"text": text} for text in texts[:60]], clients) for clients in (1, 8)),
        ("32 texts of 140 characters", [{"texts": short[i : i + N_TEXTS]} for i in range(0, 160, N_TEXTS)] * 4, 1),
        ("a text of 140 characters, explained", [{"text": text, "explain": True} for text in short[:60]], 1),
    ]
    with tempfile.TemporaryDirectory() as folder:
        make_model(SIZE, texts).save_pretrained(folder)
        with running(SERVERS["joined"], folder) as joined, running(SERVERS["alone"], folder) as alone:
            servers = {"joined": joined, "alone": alone}
            for server in servers.values():
                check_equal_work(server, folder, texts[:8])
            before_mb, rows = joined.rss_mb(), []
            for what, bodies, clients in kinds:
                found: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
                for repeat in range(1 + REPEATS):
                    for name, server in servers.items():
                        one = measure(server, bodies, clients)
                        found[name] += [one] if repeat else []  # the first round is for warming up
                told = {name: {key: record.summary([one[key] for one in own]) for key in own[0]} for name, own in found.items()}  # fmt: skip
                rows.append({"what": what, "clients": clients, "n_requests": len(bodies), **told})
                print(
                    what,
                    clients,
                    *(
                        f"{name} {own['requests_per_s']['median']:.1f} {own['cpu_ms']['median']:.1f}"
                        for name, own in told.items()
                    ),
                )
            rss_mb = {"before": round(before_mb, 1), "after": round(joined.rss_mb(), 1)}
    n_requests = 1 + sum((1 + REPEATS) * row["n_requests"] for row in rows)
    record.write("serve", {"size": SIZE, "threads": int(THREADS), "rows": rows, "rss_mb": rss_mb, "n_requests": n_requests})  # fmt: skip


if __name__ == "__main__":
    main()
