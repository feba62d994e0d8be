"""The server as clients meet it: a process of its own, and a client over HTTP."""

import asyncio
import json
import random
import socket
import string
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import httpx
import pytest
from learnable import Trained, make_docs
from serving import Served, ask_app, later, serving

from ulmpipe.server import app as module
from ulmpipe.server.app import ADDRESSES, About, make_app, only_hosts
from ulmpipe.server.messages import Limits
from ulmpipe.tasks.predict import Predictor, from_pretrained

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [text for text, _ in make_docs(6, seed=21)] + [
    "",
    " \n\t",
    "été 日本 😀",
    "\x00",
    "<img onerror=alert(1)> xxbos",
]
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def predictor(trained: Trained) -> Predictor:
    return from_pretrained(trained.clf, device="cpu")


def as_json(prediction: Any) -> dict[str, Any]:
    """As `predict --json` prints it."""
    return json.loads(json.dumps({k: v for k, v in asdict(prediction).items() if v is not None}))


def check_same(comp: dict[str, Any], ref: dict[str, Any]) -> None:
    assert comp.keys() == ref.keys()
    for name in ("label", "labels", "text"):
        assert comp[name] == ref[name]
    assert comp["probability"] == pytest.approx(ref["probability"], abs=1e-5)
    assert comp["probabilities"] == pytest.approx(ref["probabilities"], abs=1e-5)
    if "words" in ref:
        assert [word for word, _ in comp["words"]] == [word for word, _ in ref["words"]]
        assert [score for _, score in comp["words"]] == pytest.approx([score for _, score in ref["words"]], abs=1e-4)


def check_refused(answered: httpx.Response, status: int, reason: str) -> None:
    """A JSON object that holds one sentence."""
    assert answered.status_code == status and answered.headers["content-type"] == "application/json"
    assert list(answered.json()) == ["error"] and answered.json()["error"].startswith(reason), answered.text
    assert "\n" not in answered.json()["error"] and len(answered.text) < 300 and "Traceback" not in answered.text


# ---- what is answered -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("explain", [False, True])
def test_a_text_has_the_prediction_of_the_model(served: Served, predictor: Predictor, explain: bool):
    for text in TEXTS:
        answered = served.ask(text=text, explain=explain)
        assert answered.status_code == 200 and answered.headers["content-type"] == "application/json"
        check_same(answered.json(), as_json(predictor.predict([text], explain=explain)[0]))


@pytest.mark.parametrize("explain", [False, True])
def test_texts_have_their_predictions_in_order(served: Served, predictor: Predictor, explain: bool):
    texts = TEXTS[:8]
    found = served.ask(texts=texts, explain=explain).json()
    assert list(found) == ["predictions"] and len(found["predictions"]) == 8
    for comp, ref in zip(found["predictions"], predictor.predict(texts, explain=explain), strict=True):
        check_same(comp, as_json(ref))
    (alone,) = served.ask(texts=texts[:1]).json()["predictions"]
    assert alone == served.ask(text=texts[0]).json()


def test_it_says_that_it_is_there(served: Served):
    found = served.client.get("/healthz").json()
    assert (found["status"], found["model"], found["labels"]) == ("ok", "clf", ["neg", "pos"])
    assert (found["multi_label"], found["explain"], found["waiting"]) == (False, True, 0)


def test_schema_names_what_there_is_and_every_refusal(served: Served):
    found = served.client.get("/openapi.json").json()
    assert set(found["paths"]) == {"/predict", "/healthz"} and found["info"]["title"] == "ulmpipe: clf"
    post = found["paths"]["/predict"]["post"]
    assert post["requestBody"]["content"]["application/json"]["schema"]["oneOf"][1]["properties"]["texts"]["maxItems"] == 8  # fmt: skip
    assert set(post["responses"]) == {"200", *map(str, module.REFUSALS)}


def test_page_is_there_with_its_policy(served: Served):
    answered = served.client.get("/")
    assert answered.headers["content-type"] == "text/html; charset=utf-8" and "<h1>clf</h1>" in answered.text
    assert answered.headers["content-security-policy"].startswith("default-src 'none'; ")
    assert answered.headers["x-content-type-options"] == "nosniff" and "server" not in answered.headers
    assert served.client.head("/").status_code == 200


# ---- what is refused ------------------------------------------------------------------------------------------------

# Requests that can't be answered: how, with which headers, which body; then status and reason.
BAD: dict[str, tuple[str, dict[str, str], bytes, int, str]] = {
    "half a JSON": ("POST /predict", JSON, b'{"text"', 400, "the body is no JSON: "),
    "no UTF-8": ("POST /predict", JSON, b'{"text": "\xff"}', 400, "the body is no UTF-8 from byte 10 on"),
    "a lone surrogate": ("POST /predict", JSON, rb'{"text": "\udfff"}', 400, "the body holds half a surrogate pair"),
    "deep": ("POST /predict", JSON, b"[" * 90_000, 400, "the body is no JSON: recursion limit exceeded"),
    "a wrong type": ("POST /predict", JSON, b'{"texts": ["a", 1]}', 422, "texts[1] is a number, expected a string"),
    "an unknown field": ("POST /predict", JSON, b'{"texts": ["a"], "top": 1}', 422, "the field 'top' is unknown"),
    "an empty list": ("POST /predict", JSON, b'{"texts": []}', 422, "texts is empty, expected one text at least"),
    "too many texts": ("POST /predict", JSON, b'{"texts": [%s]}' % b",".join([b'""'] * 9), 413, "there are 9 texts"),
    "a long text": ("POST /predict", JSON, b'{"text": "%s"}' % (b"a" * 20_001), 413, "text has 20,001 characters"),
    "a long body": ("POST /predict", JSON, b"[" * 102_401, 413, "the body has more than 102,400 bytes"),
    "a form": ("POST /predict", {"content-type": "application/x-www-form-urlencoded"}, b"text=a", 415, "the content type is application/x-www-form-urlencoded, expected application/json"),
    "plain text, as a page elsewhere may send": ("POST /predict", {"content-type": "text/plain"}, b'{"text": "a"}', 415, "the content type is text/plain"),
    "no content type": ("POST /predict", {}, b'{"text": "a"}', 415, "the content type is not given"),
    "no such path": ("GET /nosuch", {}, b"", 404, f"there is no /nosuch, expected one of {ADDRESSES}"),
    "a slash too many": ("POST /predict/", JSON, b'{"text": "a"}', 404, "there is no /predict/"),
    "a path out of it": ("GET /../../etc/passwd", {}, b"", 404, "there is no /"),
    "pages of documentation": ("GET /docs", {}, b"", 404, "there is no /docs"),
    "wrong method": ("GET /predict", {}, b"", 405, "there is no GET /predict, expected one of POST /predict"),
    "asking to be allowed": ("OPTIONS /predict", {"origin": "http://evil.example", "access-control-request-method": "POST"}, b"", 405, "there is no OPTIONS /predict"),
    "posting to the page": ("POST /", JSON, b'{"text": "a"}', 405, "there is no POST /, expected"),
    "a long path": ("GET /" + "x" * 5000, {}, b"", 404, f"there is no /{'x' * 78}…, expected one of"),
    "another host": ("POST /predict", {**JSON, "host": "evil.example:8000"}, b'{"text": "a"}', 421, "the request is to host 'evil.example:8000', and this server answers to 127.0.0.1 and localhost only"),
    "the page for another host": ("GET /", {"host": "evil.example"}, b"", 421, "the request is to host 'evil.example'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_refused_with_one_sentence(served: Served, name: str):
    line, headers, body, status, reason = BAD[name]
    method, path = line.split()
    answered = served.client.request(method, path, headers=headers, content=body)
    check_refused(answered, status, reason)
    assert not [header for header in answered.headers if header.startswith("access-control")]
    assert served.in_hand() == 0 and served.ask(text="A superb film").json()["label"] == "pos"


def test_long_body_is_refused_before_it_is_read(served: Served):
    """Its length is enough where it is told; where it is not, what is more than the limit."""
    address = served.url.removeprefix("http://").split(":")
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"  # noqa: F541
    for rest in (
        "Content-Length: 9000000000\r\n\r\n",
        f"Transfer-Encoding: chunked\r\n\r\n{200_000:x}\r\n{'[' * 102_401}",
    ):
        with socket.create_connection((address[0], int(address[1])), 10) as connection:
            connection.sendall((head + rest).encode())
            assert connection.recv(9999).startswith(b"HTTP/1.1 413 ")
    assert served.in_hand() == 0


def test_client_that_leaves_in_the_middle_of_a_body_gives_its_place_back(served: Served):
    address = served.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), 10) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{")  # fmt: skip
        until(lambda: served.in_hand() == 1)
    until(lambda: served.in_hand() == 0)


def until(found: Any) -> None:
    end_s = time.monotonic() + 20
    while not found():
        assert time.monotonic() < end_s
        time.sleep(0.01)


# ---- many requests --------------------------------------------------------------------------------------------------


def test_200_requests_from_8_threads_are_all_right_and_take_no_memory(
    served: Served, predictor: Predictor, record_property: Any
):
    """Of texts with 400 words each that nobody has met before: 200 MB, where all were kept."""
    rng = random.Random(5)
    texts = [f"{text} {new_words(rng, 400)}" for text, _ in make_docs(200, seed=22)]
    refs = predictor.predict(texts)

    def ask(i: int) -> float:
        begin_s = time.perf_counter()
        answered = served.ask(text=texts[i])
        seconds = time.perf_counter() - begin_s
        check_same(answered.json(), as_json(refs[i]))
        return seconds

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(20)))
        before_mb = served.rss_mb()
        seconds = sorted(threads.map(ask, range(200)))
    record_property("median_ms", 1000 * seconds[100])
    record_property("p99_ms", 1000 * seconds[197])
    assert served.rss_mb() - before_mb < 30 and seconds[197] < 10


def new_words(rng: random.Random, n: int) -> str:
    return " ".join("".join(rng.choices(string.ascii_lowercase, k=9)) for _ in range(n))


@pytest.fixture(scope="module")
def small(trained: Trained) -> Iterator[Served]:
    """A server with two places."""
    with serving(trained.clf, "--max-waiting", "2") as server:
        yield server


SLOW = {"texts": ["dull plot " * 900] * 16, "explain": True}  # half a second or more


def test_more_than_may_wait_is_told_to_come_again(small: Served):
    first, second = (later(lambda: small.ask(**SLOW)) for _ in range(2))
    until(lambda: small.in_hand() == 2)
    answered = small.ask(text="A superb film")
    check_refused(answered, 503, "2 requests are waiting: try again in a moment")
    assert answered.headers["retry-after"] == "1"
    assert small.client.get("/healthz").status_code == 200  # it still says that it is there
    assert first().status_code == second().status_code == 200
    assert small.in_hand() == 0 and small.ask(text="A superb film").json()["label"] == "pos"


def test_client_that_leaves_while_it_waits_is_not_computed_for(small: Served):
    begin_s = time.monotonic()
    assert small.ask(**SLOW).status_code == 200
    alone_s = time.monotonic() - begin_s
    first = later(lambda: small.ask(**SLOW))
    until(lambda: small.in_hand() == 1)
    with pytest.raises(httpx.TimeoutException):
        httpx.post(f"{small.url}/predict", json=SLOW, timeout=alone_s / 4, trust_env=False)
    assert first().status_code == 200
    begin_s = time.monotonic()
    until(lambda: small.in_hand() == 0)
    assert time.monotonic() - begin_s < alone_s / 2


# ---- an app of another model ----------------------------------------------------------------------------------------


ABOUT, LIMITS = About("m", ["a"], False, False, "0"), Limits(3, 10, 1000, 2)


def fail(texts: list[str], explain: bool) -> list[dict[str, Any]]:
    raise ZeroDivisionError("of a secret")


def test_failure_is_a_sentence_and_no_traceback():
    answered = ask_app(make_app(fail, ABOUT, LIMITS, joins=True), json={"text": "a"})
    check_refused(answered, 500, "the prediction failed: the log of the server says why")
    assert "secret" not in answered.text


def test_explanation_that_can_not_be_is_refused():
    answered = ask_app(make_app(fail, ABOUT, LIMITS, joins=True), json={"text": "a", "explain": True})
    check_refused(answered, 422, "explain needs gradients, which int8 weights don't have")


def test_slow_body_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "BODY_TIMEOUT_S", 0.05)

    async def slowly() -> Any:
        yield b"{"
        await asyncio.sleep(5)

    answered = ask_app(make_app(fail, ABOUT, LIMITS, joins=True), content=slowly(), headers=JSON)
    check_refused(answered, 408, "the body has not come within 0 s")
    assert answered.headers["connection"] == "close"


@pytest.mark.parametrize(
    "host", ["localhost:80", "127.0.0.1", "127.0.0.9:80", "[::1]:80", "own.example", "Own.Example:1"]
)
def test_own_hosts_are_answered(host: str):
    app = only_hosts(make_app(fail, ABOUT, LIMITS, joins=True), {"localhost", "own.example"})
    assert ask_app(app, "/nosuch", headers={"host": host}).status_code == 404


@pytest.mark.parametrize(
    "host", ["", "evil.example", "localhost.evil.example", "0.0.0.0", "10.0.0.1:80", "[::1", "a@b"]
)
def test_other_hosts_are_refused(host: str):
    app = only_hosts(make_app(fail, ABOUT, LIMITS, joins=True), {"localhost", "own.example"})
    check_refused(ask_app(app, "/nosuch", headers={"host": host}), 421, f"the request is to host {host!r}, and")
