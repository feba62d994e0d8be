"""`ulmpipe serve` as a command: its port, what it can't start with, its end, and a model of another kind behind it."""

import signal
import socket
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest
from commands import Cli, Ended, check_refused, start, wait_for
from learnable import Trained
from serving import ask_app, later, serving

from ulmpipe.config import ServeConfig
from ulmpipe.options import flag_name
from ulmpipe.tasks import serve as task
from ulmpipe.tasks.predict import Predictor, from_pretrained
from ulmpipe.tasks.serve import bind, make_server

SLOW = {"texts": ["dull plot " * 900] * 8, "explain": True}  # long enough to be caught in hand


# ---- a start that fails ---------------------------------------------------------------------------------------------


def test_taken_port_is_one_line(cli: Cli, trained: Trained):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        check_refused(cli("serve", trained.clf, "--port", str(port)), 1, f"can't listen on port {port} of 127.0.0.1: Address already in use; choose another --port, or --host")  # fmt: skip


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn"])
def test_missing_extra_is_one_line(cli: Cli, trained: Trained, monkeypatch: pytest.MonkeyPatch, missing: str):
    monkeypatch.setitem(sys.modules, missing, None)
    check_refused(cli("serve", trained.clf), 1, "serve needs the packages fastapi and uvicorn: pip install 'ulmpipe[serve]'")  # fmt: skip


def test_what_is_no_classifier_is_one_line(cli: Cli, trained: Trained):
    port = ("--port", "0")
    check_refused(
        cli("serve", trained.lm, *port), 1, "needs a classifier, and this is a language model: finetune makes"
    )
    check_refused(cli("serve", trained.folder / "nosuch", *port), 1, "does not exist, expected a model folder")
    check_refused(cli("serve", trained.store, *port), 1, "holds a token store, expected a model folder")


@pytest.mark.parametrize("host", ["", "no such host.example", "a" * 300, "256.1.1.1"])
def test_host_that_is_none_is_one_line(cli: Cli, trained: Trained, host: str):
    check_refused(cli("serve", trained.clf, "--host", host), 2, f"--host {host} is no address that can be found".replace("  ", " "))  # fmt: skip


def test_host_of_another_machine_is_one_line(cli: Cli, trained: Trained):
    check_refused(cli("serve", trained.clf, "--host", "192.0.2.1"), 1, "can't listen on port 8000 of 192.0.2.1: ")


def test_bad_options_are_named_together(cli: Cli, trained: Trained):
    ended = cli("serve", trained.clf, "--port", "70000", "--max-waiting", "0")
    check_refused(ended, 2, "--port is 70000, expected 0 to 65535; --max-waiting is 0, expected more than 0")
    check_refused(cli("serve", trained.clf, "--port", "0", "--precision", "fp16"), 2, "fp16 needs a GPU")
    check_refused(cli("serve", trained.clf, "--port", "0", "--device", "abacus"), 2, "--device abacus is unknown")


def test_help_lists_a_flag_for_every_field(cli: Cli):
    words = cli("serve", "--help").out.replace(",", " ").split()
    assert {flag_name(f) for f in fields(ServeConfig)} | {"--device", "--quantize", "--precision", "--tables"} <= set(words)  # fmt: skip


def test_options_reach_the_model_and_the_server(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    given: dict[str, Any] = {}
    monkeypatch.setattr(task, "serve", lambda model, **options: given.update(options, model=model))
    flags = "--host ::1 --port 9 --max-texts 1 --max-characters 2 --max-body-kb 3 --max-waiting 4 --device cpu --tables t --quantize --precision bf16"  # fmt: skip
    cli("serve", "m", *flags.split())
    assert given == {"model": "m", "host": "::1", "port": 9, "max_texts": 1, "max_characters": 2, "max_body_kb": 3, "max_waiting": 4, "device": "cpu", "tables": "t", "quantize": True, "precision": "bf16"}  # fmt: skip


def test_loopback_is_the_default_and_names_are_found():
    assert ServeConfig().host == "127.0.0.1"
    with bind("localhost", 0) as first:
        assert first.getsockname()[0] == "127.0.0.1"
        with pytest.raises(ConnectionRefusedError):  # it has the port, and does not listen
            socket.create_connection(first.getsockname(), 5)


# ---- its end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_ends_it_when_requests_in_hand_are_answered(trained: Trained, signum: signal.Signals, code: int):
    with serving(trained.clf, "--max-waiting", "9") as served:
        first, second = (later(lambda: served.ask(**SLOW)) for _ in range(2))
        wait_for(lambda: served.in_hand() == 2, served.process)
        served.process.send_signal(signum)
        assert first().status_code == second().status_code == 200
        out, err = served.process.communicate(timeout=60)
        ended = Ended(served.process.returncode, out, err)
    assert ended == (code, "", "" if signum == signal.SIGTERM else "\nulmpipe: interrupted\n")


def test_signal_while_it_loads_ends_it(trained: Trained):
    with start("serve", trained.clf, "--port", "0") as process:
        wait_for(lambda: "libtorch" in Path(f"/proc/{process.pid}/maps").read_text(), process)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (143, "") and "Traceback" not in err


def test_failure_is_told_in_full_on_stderr_and_to_the_client_in_a_sentence(trained: Trained):
    """In a process that was started as a shell starts one in the background, and ends with 130 all the same."""
    code = """
from ulmpipe.cli import main
from ulmpipe.tasks import predict
tokens = predict.Predictor._tokens
predict.Predictor._tokens = lambda self, texts: tokens(self, texts) if "bad" not in texts else 1 / 0
main()"""
    command = [sys.executable, "-c", code, "serve", trained.clf, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=ignore_interrupts) as process:
        assert process.stderr
        url = process.stderr.readline().split()[2].rstrip(",")
        answered = [httpx.post(f"{url}/predict", json={"text": text}, trust_env=False) for text in ("bad", "A superb film")]  # fmt: skip
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert [one.status_code for one in answered] == [500, 200] and process.returncode == 130
    assert answered[0].json() == {"error": "the prediction failed: the log of the server says why"}
    assert "Traceback" in told and "ZeroDivisionError" in told


def ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# ---- other models behind it -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predictor(trained: Trained) -> Predictor:
    return from_pretrained(trained.clf, device="cpu", quantize=True)


def test_int8_is_neither_explained_nor_joined(predictor: Predictor, monkeypatch: pytest.MonkeyPatch):
    made: dict[str, Any] = {}
    monkeypatch.setattr("ulmpipe.server.app.make_app", lambda predict, about, limits, **options: made.update(options, about=about))  # fmt: skip
    make_server(predictor, "m", ServeConfig(), own_host=None)
    assert made["about"].can_explain is False and made["joins"] is False


def test_limits_are_those_of_the_options(predictor: Predictor, monkeypatch: pytest.MonkeyPatch):
    made: list[Any] = []
    monkeypatch.setattr("ulmpipe.server.app.make_app", lambda predict, about, limits, **options: made.append(limits))
    make_server(predictor, "m", ServeConfig(max_texts=1, max_characters=2, max_body_kb=3, max_waiting=4), own_host=None)
    assert (made[0].max_texts, made[0].max_characters, made[0].max_body_bytes, made[0].max_waiting) == (1, 2, 3072, 4)


def test_int8_answers_what_it_says(predictor: Predictor):
    app = make_server(predictor, "m", ServeConfig(), own_host="127.0.0.1")
    (ref,) = predictor.predict(["A superb film"])
    comp = ask_app(app, json={"text": "A superb film"}).json()
    assert (comp["label"], comp["probabilities"]) == (ref.label, ref.probabilities)
    assert ask_app(app, json={"text": "a", "explain": True}).status_code == 422


@pytest.mark.parametrize(
    ("own_host", "status"), [("127.0.0.1", 421), ("own.example", 421), ("other.example", 200), (None, 200)]
)
def test_names_are_checked_where_it_is_for_this_machine_alone(predictor: Predictor, own_host: str | None, status: int):
    app = make_server(predictor, "m", ServeConfig(), own_host=own_host)
    assert ask_app(app, json={"text": "a"}, headers={"host": "other.example:80"}).status_code == status
