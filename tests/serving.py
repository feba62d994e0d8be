"""A server in a process of its own, and a client: as the tests of `ulmpipe serve` use it."""

import asyncio
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
from commands import start


class Served:
    """A server that answers, and a client of it."""

    def __init__(self, process: subprocess.Popen[str], url: str):
        self.process, self.url = process, url
        self.client = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def ask(self, **body: Any) -> httpx.Response:
        return self.client.post("/predict", json=body)

    def rss_mb(self) -> float:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096 / 1e6

    def in_hand(self) -> int:
        """Requests that are read, wait or are predicted."""
        return self.client.get("/healthz").json()["waiting"]


@contextmanager
def serving(*args: str | Path) -> Iterator[Served]:
    """Run `ulmpipe serve` on a free port; it is ended, and must end as it should, unless the test has ended it."""
    with start("serve", *args, "--port", "0") as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.fullmatch(r"listening on (http://\S+), Ctrl-C ends it\n", line)
        if not found:
            process.kill()
        assert found, line + process.stderr.read()
        served = Served(process, found[1])
        try:
            with served.client:
                yield served
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 143


def later(call: Any) -> Any:
    """Call in a thread; the function that is returned waits for the result."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except httpx.HTTPError as err:
            results.append(err)

    thread = Thread(target=run)
    thread.start()

    def result() -> Any:
        thread.join(60)
        return results[0]

    return result


def ask_app(app: Any, path: str = "/predict", **options: Any) -> httpx.Response:
    """Ask an app in this process, without a server."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request("POST", path, **options)

    return asyncio.run(ask())
