"""A process that only tokenizes does not load torch and scipy, and can still do so; a damaged cache of kernels is made again."""

import os
import subprocess
import sys
from pathlib import Path


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment)


def test_tokens_only():
    code = """
import sys
from ulmpipe.lean import for_tokens_only, import_numba, import_spacy
for_tokens_only()
import_numba()
nlp = import_spacy().blank("en")
print(sorted({"torch", "scipy", "spacy.cli"} & set(sys.modules)), [t.text for t in nlp("it's")])
import scipy
from spacy.cli.info import info
print(info.__module__)"""
    done = run(code)
    assert done.stdout.splitlines() == ["[] ['it', \"'s\"]", "spacy.cli.info"], done.stderr


def test_process_that_predicts_has_torch_and_a_spacy_without_it():
    code = """
import sys
from ulmpipe.lean import prepare_to_predict
prepare_to_predict(with_spacy=True)
import gc, torch, thinc.compat
print(thinc.compat.has_torch, torch.ones(2).sum().item(), gc.isenabled(), sys.modules["torch"] is torch)"""
    assert run(code).stdout.strip() == "False 2.0 True True"


def test_other_processes_are_left_alone():
    code = """
import sys
from ulmpipe.lean import import_numba
import_numba()
import scipy.linalg
print("scipy" in sys.modules, sys.modules.get("torch", "absent"))"""
    assert run(code).stdout.strip() == "True absent"


def test_damaged_cache_is_made_again(tmp_path: Path):
    code = """
from ulmpipe.text.table import Memo
memo = Memo(16)
memo.add_all([b"a"], [[7]])
print(memo.ids(0))"""
    first = run(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert first.stdout.strip() == "[7]"
    indexes = sorted(tmp_path.rglob("*.nbi"))
    kernels = sorted(tmp_path.rglob("*.nbc"))
    assert len(indexes) >= 2 and len(kernels) >= 2
    for path in (*indexes[::2], *kernels):
        path.write_bytes(path.read_bytes()[:20])
    spoiled = run("from ulmpipe.lean import import_numba; import_numba()" + code, NUMBA_CACHE_DIR=str(tmp_path))
    assert spoiled.stdout.strip() == "[7]", spoiled.stderr
    assert "compiling kernels" in spoiled.stderr
    again = run("from ulmpipe.lean import import_numba; import_numba()" + code, NUMBA_CACHE_DIR=str(tmp_path))
    assert again.stdout.strip() == "[7]" and again.stderr == ""
