"""Checkpoints: all that a fit needs to go on as if it had never stopped, in a folder, without any pickle.

    FOLDER/checkpoint-<step>/
      model.safetensors       parameters and buffers
      optimizer.safetensors   "{parameter number}.{name}", for instance "3.exp_avg"
      rng.safetensors         generators of torch, CPU and CUDA
      carried.safetensors     the hidden state of a model that carries one
      state.json              position, history, hyperparameters, callback states, what the caller adds
      manifest.json           sizes and digests of the others; written last

A checkpoint is made in a staging folder and renamed, so it is there whole or not at all; the one before it is removed
after that. Fits that follow one another may share a folder: the first checkpoint of the next removes the last of the
one before. A finished model is not saved here: that is `save_pretrained`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .. import console, durable
from ..errors import StoreError
from . import parallel
from .callback import Callback
from .metrics import finite_row
from .progress import MetricsLog

if TYPE_CHECKING:
    from .learner import Learner

KIND, FORMAT_VERSION = "checkpoint", 1
MODEL, OPTIMIZER, RNG, CARRIED = (f"{name}.safetensors" for name in ("model", "optimizer", "rng", "carried"))
STATE = "state.json"
_NAME = re.compile(r"checkpoint-(\d+)(\.old)?")


def save_checkpoint(
    learn: Learner, folder: Path, *, extra: dict | None = None, position: tuple[int, int] | None = None, keep: int = 1
) -> Path:
    """Write `folder/checkpoint-<step>` and remove all but the newest `keep`, and those of more steps; return its path.

    `position` is `(epoch, next batch)` where the fit is to go on, by default where it stands. `extra` is kept in
    `state.json` for the caller.
    """
    path = folder / f"checkpoint-{learn.step}"
    state = _state(learn, position or (learn.epoch, learn.next_batch), extra or {})
    generators, carried = _generators(learn), _carried(learn)  # of all processes, which must all come here
    if parallel.is_first():
        _write(learn, path, state, generators, carried, keep)
    parallel.barrier()  # none ends, and has torchrun end the others, before the checkpoint is there
    return path


def _write(
    learn: Learner,
    path: Path,
    state: dict[str, Any],
    generators: dict[str, Tensor],
    carried: dict[str, Tensor],
    keep: int,
) -> None:
    folder, aside = path.parent, path.with_name(f"{path.name}.old")
    with durable.staging(folder) as stage:
        save_file(_copies(learn.model.state_dict()), stage / MODEL)
        save_file(_optimizer_tensors(learn), stage / OPTIMIZER)
        save_file(generators, stage / RNG)
        if hasattr(learn.model, "carried_state"):
            save_file(carried, stage / CARRIED)
        durable.write_json(stage / STATE, state)
        _write_manifest(stage)
        if path.exists():  # of the same step: never missing under both names
            _remove(aside)
            os.replace(path, aside)
        os.replace(stage, path)
        durable.fsync_folder(folder)
    _remove(aside)
    older = [other for other in _candidates(folder) if other != path]
    of_another_fit = [other for other in older if _step(other) > _step(path)]
    for other in of_another_fit + older[len(of_another_fit) + keep - 1 :]:
        _remove(other)


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor in memory of its own, a copy of the model while it is written.

    safetensors takes no two tensors that share memory, as tied weights do; its `save_model`, which does, takes no parts of one
    block, as all weights of an LSTM are on a GPU.
    """
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint in `folder` whose digests are right, None without one; log each damaged one."""
    for path in _candidates(folder):
        try:
            _verify(path)
            return path
        except (StoreError, OSError) as err:
            console.log(f"skipped a damaged checkpoint: {err}")
    return None


def load_checkpoint(learn: Learner, path: Path) -> dict[str, Any]:
    """Put `learn`, inside a fit, where the checkpoint was written; return its `state.json`.

    Raises `StoreError` when the checkpoint is damaged, or was written with another model, optimiser or callbacks.
    """
    _verify(path)
    state = durable.read_json(path / STATE)
    try:
        learn.model.load_state_dict(load_file(path / MODEL, device=str(learn.device)))
        _load_optimizer(learn, load_file(path / OPTIMIZER), state["param_groups"])
        if hasattr(learn.model, "load_carried_state"):
            carried = load_file(path / CARRIED) if (path / CARRIED).exists() else {}
            if any(t.shape[1] % parallel.part()[1] for t in carried.values()):
                raise ValueError(f"{parallel.part()[1]} processes can't share its streams equally")
            mine = {name: parallel.my_rows(t, dim=1).to(learn.device) for name, t in carried.items()}
            learn.model.load_carried_state(mine)
        generators = load_file(path / RNG)
    except (RuntimeError, ValueError, KeyError, SafetensorError) as err:
        raise StoreError(
            f"{path} does not fit this training ({err}): resume with the options it was begun with"
        ) from err
    _load_callbacks(learn, path, state["callbacks"])
    learn.epoch, learn.next_batch, learn.step = state["epoch"], state["next_batch"], state["step"]
    learn.history = [{name: float("nan") if v is None else v for name, v in row.items()} for row in state["history"]]
    if state["n_steps"] != learn.n_steps:
        console.log(
            f"{path.name} was written in a fit of {state['n_steps']} steps, this one has {learn.n_steps}: schedules change"
        )
    _load_rng(learn, generators)
    return state


class Checkpoint(Callback):
    """Save at the end of every epoch, and every `every_steps` steps when it is given.

    A fit that `max_steps` ends inside an epoch is saved before the validation, so that it can be taken further.
    """

    order = MetricsLog.order + 100  # after all that counts or writes: what is saved is complete

    def __init__(self, folder: Path, *, every_steps: int | None = None, extra: dict | None = None, keep: int = 1):
        self.folder, self.every_steps, self.extra, self.keep = folder, every_steps, extra, keep
        self.saved: tuple[int, int] | None = None

    def before_fit(self, learn: Learner) -> None:
        """Remove what a run that was killed while it saved has left."""
        self.saved = None
        if not parallel.is_first():
            return
        for stage in self.folder.glob(f"{durable.STAGING_PREFIX}*"):
            shutil.rmtree(stage, ignore_errors=True)

    def after_batch(self, learn: Learner) -> None:
        """Save when it is due."""
        due = self.every_steps is not None and learn.step % self.every_steps == 0
        if learn.training and (due or (learn.step >= learn.max_steps and learn.next_batch < len(learn.train_dl))):
            self.save(learn)

    def after_epoch(self, learn: Learner) -> None:
        """Save with the next epoch as the position."""
        if learn.next_batch >= len(learn.train_dl):
            self.save(learn, position=(learn.epoch + 1, 0))

    def save(self, learn: Learner, position: tuple[int, int] | None = None) -> None:
        """Save now, unless nothing was trained since the last time."""
        position = position or (learn.epoch, learn.next_batch)
        if position != self.saved:
            save_checkpoint(learn, self.folder, extra=self.extra, position=position, keep=self.keep)
            self.saved = position


def _candidates(folder: Path) -> list[Path]:
    """Return all folders named as checkpoints, newest first."""
    named = [path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
    return sorted(named, key=lambda path: (-_step(path), path.suffix == ".old"))


def _step(path: Path) -> int:
    return int(path.name.removeprefix("checkpoint-").removesuffix(".old"))


def _remove(path: Path) -> None:
    (path / durable.MANIFEST).unlink(missing_ok=True)  # half removed, it is no checkpoint any more
    shutil.rmtree(path, ignore_errors=True)


def _optimizer_tensors(learn: Learner) -> dict[str, Tensor]:
    per_param = learn.opt.state_dict()["state"]
    flat = {f"{n}.{name}": v for n, values in per_param.items() for name, v in values.items() if isinstance(v, Tensor)}
    return {name: t.contiguous() for name, t in flat.items()}


def _generators(learn: Learner) -> dict[str, Tensor]:
    """States of the generators; those of another process than the first have its rank in their names: `cpu.1`."""
    states = {"cpu": torch.get_rng_state()}
    if learn.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(learn.device)
    return {
        f"{name}.{rank}" if rank else name: one
        for name, state in states.items()
        for rank, one in enumerate(parallel.gathered(state))
    }


def _carried(learn: Learner) -> dict[str, Tensor]:
    """The hidden state of all rows of the batch, (1, B, H) each, whatever the number of processes."""
    if not hasattr(learn.model, "carried_state"):
        return {}
    return {name: torch.cat(parallel.gathered(state), dim=1) for name, state in learn.model.carried_state().items()}


def _state(learn: Learner, position: tuple[int, int], extra: dict) -> dict[str, Any]:
    groups = learn.opt.state_dict()["param_groups"]
    return {
        "format_version": FORMAT_VERSION,
        "epoch": position[0],
        "next_batch": position[1],
        "step": learn.step,
        "n_steps": learn.n_steps,
        "history": [finite_row(row) for row in learn.history],
        "param_groups": [{**group, "params": len(group["params"])} for group in groups],
        "callbacks": {name: state for name, cb in _named(learn).items() if (state := cb.state_dict())},
        "extra": extra,
    }


def _write_manifest(stage: Path) -> None:
    files = {}
    for path in sorted(stage.iterdir()):
        durable.fsync_file(path)
        files[path.name] = durable.describe_file(path)
    durable.write_json(stage / durable.MANIFEST, {"kind": KIND, "format_version": FORMAT_VERSION, "files": files})


def _verify(path: Path) -> None:
    """Raise `StoreError` unless all that the manifest names is there, bit for bit."""
    manifest = durable.read_manifest(path, KIND, FORMAT_VERSION)
    durable.check_files(path, manifest, digests=True)


def _load_optimizer(learn: Learner, flat: dict[str, Tensor], saved_groups: list[dict[str, Any]]) -> None:
    per_param: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        number, name = key.split(".", 1)
        per_param.setdefault(int(number), {})[name] = value
    groups = learn.opt.state_dict()["param_groups"]
    if [len(group["params"]) for group in groups] != [saved["params"] for saved in saved_groups]:
        raise ValueError("the parameters are grouped in another way")
    restored = [
        {name: tuple(v) if isinstance(v, list) else v for name, v in saved.items()} | {"params": group["params"]}
        for saved, group in zip(saved_groups, groups, strict=True)
    ]
    learn.opt.load_state_dict({"state": per_param, "param_groups": restored})
    for param, state in learn.opt.state.items():  # fused Adam reads memory as it lies: channels last must be so again
        for name, value in state.items():
            if value.shape == param.shape:  # not the count of steps
                state[name] = torch.empty_like(param, dtype=value.dtype).copy_(value)


def _load_callbacks(learn: Learner, path: Path, states: dict[str, Any]) -> None:
    named = _named(learn)
    if missing := sorted(states.keys() - named.keys()):
        raise StoreError(f"{path} was written with {', '.join(missing)}: resume with the options it was begun with")
    for name, state in states.items():
        named[name].load_state_dict(state)


def _named(learn: Learner) -> dict[str, Callback]:
    """Return the callbacks by their class, the second of a class as `Name.2`."""
    named: dict[str, Callback] = {}
    for cb in learn.active:
        name = type(cb).__name__
        n_same = sum(type(other) is type(cb) for other in named.values())
        named[f"{name}.{n_same + 1}" if n_same else name] = cb
    return named


def _load_rng(learn: Learner, rng: dict[str, Tensor]) -> None:
    suffix = f".{parallel.part()[0]}" if not parallel.is_first() else ""
    if f"cpu{suffix}" in rng:  # not there where a process more goes on: it keeps its own
        torch.set_rng_state(rng[f"cpu{suffix}"])
    if learn.device.type == "cuda" and f"cuda{suffix}" in rng:
        torch.cuda.set_rng_state(rng[f"cuda{suffix}"], learn.device)
