"""`ulmpipe serve MODEL`: a classifier that stays loaded and answers over HTTP, with a page to try it.

    a port is taken -> model loaded, and asked once -> listens -> server/app.py under uvicorn -> until Ctrl-C or SIGTERM

What may be asked and how is server/'s; here it gets its model, its port and its end. It starts no second process, speaks no TLS and
knows no users: what is reached from outside wants a web server in front.
"""

import os
import socket
from dataclasses import asdict
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import ServeConfig
from ..console import log
from ..errors import ConfigError, UlmpipeError
from ..options import make_config
from ..text.rules import Rules
from .predict import Predictor, from_pretrained

BACKLOG = 128  # connections that the system accepts before we do
STOP_S = 30  # that requests in hand may take once the server is told to end


def serve(
    model: str | Path,
    *,
    device: str = "auto",
    tables: str | None = None,
    custom_rules: Rules | None = None,
    quantize: bool = False,
    precision: str = "fp32",
    **options: Any,
) -> None:
    """Answer requests for the labels of texts until the process is told to end; those in hand are answered first.

    `options` are the fields of `ServeConfig`, the others those of `Predictor`. Raises `UlmpipeError` where the extra is not
    installed, the port is taken, or the model is no classifier.
    """
    config = make_config(ServeConfig, options)
    uvicorn = _uvicorn()
    # Of each new shape of a batch oneDNN keeps what it has compiled, 1,024 of them by default: 170 MB after 800 requests of a
    # small model, and growing. With 32 it stayed at 40, and was no slower. An environment that says otherwise is left alone.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    with bind(config.host, config.port) as listener:
        predictor = from_pretrained(model, device=device, tables=tables, custom_rules=custom_rules, quantize=quantize, precision=precision, forget=True)  # fmt: skip
        predictor.predict(["Whatever is loaded at first use is loaded now."])
        host, port = listener.getsockname()[:2]
        app = make_server(predictor, Path(model).resolve().name, config, own_host=config.host if ip_address(host).is_loopback else None)  # fmt: skip
        listener.listen(BACKLOG)  # from here on a client is answered
        log(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}, Ctrl-C ends it")
        settings = uvicorn.Config(
            app, http="h11", ws="none", lifespan="off", server_header=False, backlog=BACKLOG,
            log_config=None, log_level="error", access_log=False, timeout_graceful_shutdown=STOP_S,
        )  # fmt: skip
        uvicorn.Server(settings).run(sockets=[listener])


def make_server(predictor: Predictor, name: str, config: ServeConfig, *, own_host: str | None) -> Any:
    """The app around a model. With `own_host` only requests to that name or to a loopback address are answered."""
    from ..server.app import About, Limits, make_app, only_hosts

    def predict(texts: list[str], explain: bool) -> list[dict[str, Any]]:
        found = predictor.predict(texts, explain=explain)
        return [{name: value for name, value in asdict(one).items() if value is not None} for one in found]

    exact = not predictor.quantize and predictor.precision == "fp32"  # else it matters with which others a text comes
    about = About(name, predictor.labels, predictor.pretrained.multi_label, not predictor.quantize, __version__)
    limits = Limits(config.max_texts, config.max_characters, 1024 * config.max_body_kb, config.max_waiting)
    app = make_app(predict, about, limits, joins=exact)
    return only_hosts(app, {"localhost", own_host.lower()}) if own_host else app


def bind(host: str, port: int) -> socket.socket:
    """A socket that has the port but does not listen yet. Raises `ConfigError` for a host that is none, `UlmpipeError` for a taken port."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE) if host else []
        family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    except (OSError, ValueError) as err:  # ValueError: an empty name, or one that can't be encoded
        raise ConfigError(f"--host {host} is no address that can be found: 127.0.0.1 is this machine alone, 0.0.0.0 every network") from err  # fmt: skip
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of a server that has just ended
        listener.bind(address)
    except OSError as err:
        listener.close()
        raise UlmpipeError(f"can't listen on port {port} of {host}: {err.strerror}; choose another --port, or --host") from err  # fmt: skip
    return listener


def _uvicorn() -> Any:
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError as err:
        raise UlmpipeError("serve needs the packages fastapi and uvicorn: pip install 'ulmpipe[serve]'") from err
    return uvicorn
