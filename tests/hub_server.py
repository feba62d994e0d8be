"""A Hugging Face hub on this machine, of the few addresses that huggingface_hub asks for when models go up and come down.

It keeps what is uploaded, gives it back, and writes down what it was asked. Large files go the way of git LFS, as on the real one.
"""

import base64
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN = "hf_" + "x" * 34


class Hub(ThreadingHTTPServer):
    """What it holds: files of repositories, which of them are private, and all that was asked of it, as `GET /path`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def environment(self, home: Path, **others: str) -> dict[str, str]:
        """The variables with which huggingface_hub of a new process finds it, and nothing of this user's."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_TELEMETRY": "1", **others}  # fmt: skip

    def revision(self, name: str) -> str:
        """A commit's number, of what is in a repository."""
        files = self.repositories[name]
        return sha1(json.dumps({path: sha256(data).hexdigest() for path, data in files.items()}).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, value: Any, status: int = 200, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, header in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), header)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.answer({"error": code}, status, X_Error_Code=code, X_Error_Message=code)

    def handle_one(self) -> None:
        hub, body = self.server, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        hub.asked.append(f"{self.command} {path}")
        may = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.command in ("POST", "PUT") and not may and not path.startswith("/lfs/"):
            return self.refuse(401, "Unauthorized")
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            if name not in hub.repositories:
                hub.repositories[name], hub.private[name] = {}, asked.get("visibility") == "private"
            return self.answer({"url": f"{hub.url}/{name}", "name": name})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/lfs/(\w+)", path):
            assert sha256(body).hexdigest() == found[1]
            hub.blobs[found[1]] = body
            return self.answer({})
        if found := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
            objects = [{**one, "actions": {"upload": {"href": f"{hub.url}/lfs/{one['oid']}"}}} for one in json.loads(body)["objects"]]  # fmt: skip
            return self.answer({"transfer": "basic", "objects": objects})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(\w+)/([\w.-]+)", path):
            return self.model(found[1], found[2], body)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/\w+/(.+)", path):
            files = hub.repositories.get(found[1], {})
            if found[2] not in files:
                return self.refuse(404, "EntryNotFound")
            data = files[found[2]]
            return self.answer(data, ETag=f'"{sha256(data).hexdigest()}"', X_Repo_Commit=hub.revision(found[1]))
        return self.refuse(404, "nothing here")

    def model(self, name: str, what: str, body: bytes) -> None:
        hub = self.server
        if name not in hub.repositories:
            return self.refuse(404, "RepoNotFound")
        files = hub.repositories[name]
        if what == "preupload":
            modes = [{"path": one["path"], "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular", "shouldIgnore": False} for one in json.loads(body)["files"]]  # fmt: skip
            return self.answer({"files": modes})
        if what == "commit":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                if line["key"] == "lfsFile":
                    files[line["value"]["path"]] = hub.blobs[line["value"]["oid"]]
            number = hub.revision(name)
            return self.answer({"success": True, "commitOid": number, "commitUrl": f"{hub.url}/{name}/commit/{number}"})
        if what == "revision":
            siblings = [{"rfilename": path} for path in files]
            return self.answer({"id": name, "modelId": name, "sha": hub.revision(name), "private": hub.private[name], "siblings": siblings, "tags": [], "downloads": 0, "likes": 0})  # fmt: skip
        if what == "tree":
            rows = [{"type": "file", "path": path, "size": len(data), "oid": sha1(data).hexdigest()} for path, data in files.items()]  # fmt: skip
            return self.answer(rows)
        return self.refuse(404, "nothing here")

    do_GET = do_HEAD = do_POST = do_PUT = handle_one


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers while the block runs."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


def own_environment() -> dict[str, str]:
    """This process's variables without what tells huggingface_hub anything."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
