"""A dask cluster on this machine: a scheduler and workers, each a process of its own, ended by their numbers."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Cluster:
    """A scheduler, and the workers that are started for it."""

    def __init__(self, folder: Path, *, allowed_failures: int = 3):
        self.folder, self.workers = folder, list[subprocess.Popen[bytes]]()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        self.env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(allowed_failures),
        }
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        until = time.monotonic() + 30
        while True:
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    return
            assert self.scheduler.poll() is None and time.monotonic() < until
            time.sleep(0.05)

    def _start(self, kind: str, *options: str) -> subprocess.Popen[bytes]:
        log = open(self.folder / f"{kind}-{time.monotonic_ns()}.log", "wb")  # noqa: SIM115 (the process has it)
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options]
        with log:
            return subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=log, stderr=log)

    def start_worker(self, n_threads: int = 1) -> subprocess.Popen[bytes]:
        options = ("--nthreads", str(n_threads), "--no-nanny", "--no-dashboard", "--local-directory", str(self.folder))
        self.workers.append(self._start("worker", self.address, *options))
        return self.workers[-1]

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """End one with SIGKILL, and wait until it is gone."""
        process.send_signal(signal.SIGKILL)
        process.wait(30)

    def end_workers(self) -> None:
        for process in self.workers:
            if process.poll() is None:
                self.kill(process)
        self.workers.clear()

    def end(self) -> None:
        self.end_workers()
        if self.scheduler.poll() is None:
            self.kill(self.scheduler)
