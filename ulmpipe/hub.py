"""The Hugging Face hub as a place for model folders: some files go up to a repository, some files come down from one.

Below the tasks and `vision`, and all that touches the network for them. Knows names of files and nothing of what is in them: what
is said of a model on its page is written elsewhere (tasks/push.py). Imports `huggingface_hub` when it is asked.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .console import is_quiet
from .errors import ConfigError, StoreError, UlmpipeError

CARD_FILE = "README.md"  # what the hub shows as a model's page
LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")  # as the hub names them: apache-2.0, cc-by-sa-4.0
REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def is_hub_name(given: str) -> bool:
    """Whether this is `owner/name` of the hub: no such path is there, and no folder `owner` in which it might be misspelled."""
    return REPO_ID.fullmatch(given) is not None and not Path(given).exists() and not Path(given).parent.exists()


def download(name: str, files: Sequence[str]) -> Path:
    """Bring some files of a repository into the hub's cache on this machine; returns the folder they lie in.

    No other file of it is asked for. Raises `StoreError` that says what to put where when the hub does not give them.
    """
    hub = _import_hub()
    try:
        with _one_voice():
            folder = Path(hub.snapshot_download(name, allow_patterns=list(files)))
    except Exception as err:  # a dozen unrelated classes say "no network", "no such repository", "not allowed"
        raise StoreError(
            f"{name} is no folder here, and the hub did not give it ({_reason(err)}): name a model folder, or put one "
            f"({', '.join(files)}) at {name}/"
        ) from err
    if missing := [file for file in files if not (folder / file).exists()]:
        raise StoreError(f"{name} on the hub has no {', '.join(missing)}: it is no model of ulmpipe")
    return folder


def upload(name: str, files: Mapping[str, Path | bytes], *, private: bool, message: str, token: str | None = None) -> str:  # fmt: skip
    """Make the repository unless it is there, and write files into it, in one commit; returns the address of its page.

    `private` is heeded where it is made. Raises `UlmpipeError` where the hub refuses.
    """
    hub = _import_hub()
    operations = [hub.CommitOperationAdd(path, str(file) if isinstance(file, Path) else file) for path, file in files.items()]  # fmt: skip
    try:
        with _one_voice():
            api = hub.HfApi(token=token)
            page = api.create_repo(name, private=private, exist_ok=True)
            api.create_commit(name, operations, commit_message=message)
    except Exception as err:  # as above
        answered = getattr(err, "response", None) is not None or isinstance(err, hub.errors.LocalTokenNotFoundError)
        mend = "set HF_TOKEN to a token that may write there, or `hf auth login`" if answered else "see to the network"
        raise UlmpipeError(f"the hub did not take {name} ({_reason(err)}): {mend}") from err
    return str(page)


@contextmanager
def _one_voice() -> Iterator[None]:
    """Keep huggingface_hub's warnings to itself, and its bars where nobody watches: what matters is told by the caller."""
    from huggingface_hub import utils

    was = utils.logging.get_verbosity()
    hides_bars = (is_quiet() or not sys.stderr.isatty()) and not utils.are_progress_bars_disabled()
    utils.logging.set_verbosity_error()
    if hides_bars:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.logging.set_verbosity(was)
        if hides_bars:
            utils.enable_progress_bars()


def check_names(repo_id: str, license: str | None) -> None:
    """Raise `ConfigError` for what can't be the name of a repository, or of a license."""
    if not REPO_ID.fullmatch(repo_id):
        raise ConfigError(f"{repo_id!r} is no name of a repository on the hub: expected owner/name")
    if license is not None and not LICENSE.fullmatch(license):
        raise ConfigError(f"--license is {license!r}, expected a name of the hub's, such as apache-2.0 or cc-by-4.0")


def _reason(err: Exception) -> str:
    return (str(err).strip() or type(err).__name__).splitlines()[0].rstrip(".")


def _import_hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as err:
        raise UlmpipeError("models of the hub need huggingface_hub, which is not installed: pip install 'ulmpipe[hub]'") from err  # fmt: skip
    return huggingface_hub


# ---- the page of a model --------------------------------------------------------------------------------------------


def render_card(template: Path, **values: Any) -> str:
    """Fill in a template of a page; what stands in a config is put there by `quoted` and `code`, and is no markup."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(template.parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)  # fmt: skip
    environment.filters |= {"quoted": quoted, "code": code}
    return environment.get_template(template.name).render(**values)


def quoted(text: object) -> str:
    """A text as YAML, Python and JSON all write it, in quotes; what can't be printed becomes a space.

    >>> quoted('a "b"')
    '"a \\\\"b\\\\""'
    """
    return json.dumps("".join(c if c.isprintable() else " " for c in str(text)), ensure_ascii=False)


def code(text: object) -> str:
    """A text as it stands, for Markdown and in a cell of its tables: whatever is in it, it is no markup.

    >>> code("<b>|`x`")
    "`<b>\\\\|'x'`"
    """
    shown = "".join(c if c.isprintable() else " " for c in str(text)).replace("`", "'").replace("|", "\\|").strip()
    return f"`{shown[:200] or ' '}`"
