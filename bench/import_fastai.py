"""The goal of this script is to prove that an imported model answers as it did in fastai: real files, equal logits.

    PEER_PYTHON=... python bench/import_fastai.py        -> bench/results/import_fastai.json

fastai builds, trains and saves a small language model (bench/peers_import.py, in its own Python); `ulmpipe import-fastai`
imports each of its files; the logits of both on the same ids, in evaluation mode, must differ by less than 1e-5.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

import json
import os
import pickle
import subprocess
import tempfile
from typing import Any

import numpy as np
import torch

from bench import record
from ulmpipe.tasks.model_folder import Pretrained

AT_MOST = 1e-5
FILES = ("with_opt", "plain", "state_dict", "encoder")


def import_file(folder: Path, name: str) -> dict[str, Any]:
    """Run the command on one file; what it printed."""
    words = ["import-fastai", f"{name}.pth", "vocab.pkl", "-o", name, "--json"]
    env = {**os.environ, "PYTHONPATH": str(record.ROOT)}
    done = subprocess.run([sys.executable, "-m", "ulmpipe", *words], stdout=subprocess.PIPE, check=True, cwd=folder, env=env)  # fmt: skip
    return json.loads(done.stdout)


def largest_difference(folder: Path, name: str) -> float:
    """Between fastai's logits and those of the imported model."""
    model = Pretrained.from_pretrained(folder / name).model
    with np.load(folder / "expected.npz") as file:
        ids, expected = torch.from_numpy(file["ids"]), file["encoder_logits" if name == "encoder" else "logits"]
    with torch.no_grad():
        found = model(ids).logits.numpy()
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max())


def main() -> None:
    """Build, import, compare, write down."""
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        done = subprocess.run(
            [os.environ["PEER_PYTHON"], "bench/peers_import.py", path],
            stdout=subprocess.PIPE,
            check=True,
            cwd=record.ROOT,
        )
        built = json.loads(done.stdout)
        words = pickle.loads((folder / "vocab.pkl").read_bytes())  # noqa: S301  (written above)
        files: dict[str, Any] = {}
        for name in FILES:
            found = import_file(folder, name)
            assert (found["rules"], found["has_decoder"], found["added"]) == ("fastai2", name != "encoder", []), found
            assert [found["emb_size"], found["hidden_size"], found["n_layers"]] == [built[k] for k in ("emb_sz", "n_hid", "n_layers")]  # fmt: skip
            itos = Pretrained.from_pretrained(folder / name).vocab.itos
            assert all(a == b for a, b in zip(itos, words, strict=True) if b != "xxfake")
            files[name] = {"largest_difference": largest_difference(folder, name), "n_unreachable": found["n_unreachable"]}  # fmt: skip
            assert files[name]["largest_difference"] < AT_MOST, files
    record.write("import_fastai", {"peer": built, "at_most": AT_MOST, "files": files})
    print(json.dumps(files))


if __name__ == "__main__":
    main()
