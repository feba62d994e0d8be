"""Mixed precision: autocast around the forward pass, a gradient scaler for fp16, and whether a device can do it.

Weights, optimiser and loss stay float32. Order of what must not be mixed up: `RNNRegularizer` takes the scores out of
the model's tuple, then predictions go back to float32; gradients are unscaled, then `GradientClip` clips them.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..errors import ConfigError, UlmpipeError
from .callback import Callback, CancelStep

if TYPE_CHECKING:
    from .learner import Learner

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PROBE_TIMEOUT_S = 120

# Run in a child process: a processor that announces more than it can do ends it with SIGILL, and not us.
_PROBE = """
import resource, torch
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
torch.manual_seed(0)
lstm, decoder = torch.nn.LSTM(256, 512, batch_first=True), torch.nn.Linear(512, 4096)
for T in (1, 17, 32):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = decoder(lstm(torch.randn(16, T, 256))[0]).float().square().mean()
    loss.backward()
assert torch.isfinite(loss)
conv = torch.nn.Conv2d(16, 32, 3, stride=2).to(memory_format=torch.channels_last)
with torch.autocast("cpu", dtype=torch.bfloat16):
    loss = conv(torch.randn(4, 16, 25, 25).to(memory_format=torch.channels_last)).float().square().mean()
loss.backward()
assert torch.isfinite(loss)
"""


def check_precision(precision: str, device: torch.device | str) -> None:
    """Raise `ConfigError` when `precision` cannot be used on `device`.

    On a CPU fp16 is refused, and bf16 is allowed only after a few LSTM, matrix products and convolutions have survived in a child
    process (once a process, some seconds): they ended in an illegal instruction on a machine that announces AMX.
    """
    device = torch.device(device)
    if precision not in DTYPES:
        raise ConfigError(f"unknown precision {precision!r}, expected one of {', '.join(DTYPES)}")
    if device.type == "cpu" and precision == "fp16":
        raise ConfigError("precision fp16 needs a GPU: use --precision fp32, or bf16 where the processor can")
    if device.type == "cpu" and precision == "bf16" and (failure := _probe_cpu_bf16()):
        raise ConfigError(f"bf16 does not work on this processor ({failure}): use --precision fp32")
    if device.type == "cuda" and precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError("bf16 needs a GPU of compute capability 8.0 or higher: use --precision fp16")


def pick_precision(precision: str, device: torch.device) -> Precision:
    """Return what `auto` means on a device: bf16 where it has instructions for it, else fp16 on a GPU, fp32 on a CPU.

    Any other is checked, and returned as it is.
    """
    if precision != "auto":
        check_precision(precision, device)
        return precision  # pyright: ignore[reportReturnType]
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    capabilities = torch.cpu.get_capabilities()
    has_bf16 = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bf16" if has_bf16 and _probe_cpu_bf16() is None else "fp32"


@cache
def _probe_cpu_bf16() -> str | None:
    """Return how the probe failed, None when it survived."""
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, timeout=PROBE_TIMEOUT_S, text=True)
    except subprocess.TimeoutExpired:
        return f"a probe did not end within {PROBE_TIMEOUT_S} s"
    if done.returncode < 0:
        return f"a probe was ended by signal {-done.returncode}"
    return None if done.returncode == 0 else f"a probe failed: {done.stderr.strip().splitlines()[-1:]}"


class MixedPrecision(Callback):
    """Run the forward pass and the loss in `precision`; with fp16 scale the loss so that gradients do not vanish.

    Autocast is open from `before_batch` to `after_loss`, and closed in `cleanup_batch` whatever happens between. A step
    whose gradients overflow is left out and counted in `n_skipped`; the scale is halved then.
    """

    order = 50

    def __init__(self, precision: Precision, *, init_scale: float = 2.0**16):
        if precision not in DTYPES:
            raise ConfigError(f"unknown precision {precision!r}, expected one of {', '.join(DTYPES)}")
        self.precision, self.init_scale = precision, init_scale
        self.scaler: torch.amp.GradScaler | None = None
        self.scale, self.n_skipped = 1.0, 0
        self._autocast: torch.autocast | None = None

    def before_fit(self, learn: Learner) -> None:
        """Make a new scaler for fp16. Raises `ConfigError` for a precision that the device does not have."""
        self.scale, self.n_skipped = self.init_scale, 0
        check_precision(self.precision, learn.device)
        if self.precision == "fp16":
            self.scaler = torch.amp.GradScaler(learn.device.type, init_scale=self.init_scale)

    def before_batch(self, learn: Learner) -> None:
        """Open autocast."""
        if self.precision != "fp32":
            check_precision(self.precision, learn.device)
            self._autocast = torch.autocast(learn.device.type, dtype=DTYPES[self.precision])
            self._autocast.__enter__()

    def after_pred(self, learn: Learner) -> None:
        """Bring the prediction back to float32, so that the loss is computed in it."""
        if isinstance(learn.pred, Tensor):
            learn.pred = learn.pred.float()

    def after_loss(self, learn: Learner) -> None:
        """Close autocast: the backward pass runs in the types that the forward pass chose."""
        self._close()

    def cleanup_batch(self, learn: Learner) -> None:
        """Close autocast, should it still be open."""
        self._close()

    def _close(self) -> None:
        if self._autocast is not None:
            self._autocast.__exit__(None, None, None)
            self._autocast = None

    def before_backward(self, learn: Learner) -> None:
        """Scale the loss that is back-propagated."""
        if self.scaler:
            learn.loss_grad = self.scaler.scale(learn.loss_grad)

    def after_backward(self, learn: Learner) -> None:
        """Unscale the gradients; callbacks of a higher order see the true ones."""
        if self.scaler:
            self.scaler.unscale_(learn.opt)

    def before_step(self, learn: Learner) -> None:
        """Leave the step out when a gradient overflowed: the scaler has lowered its scale then."""
        if not self.scaler:
            return
        self.scaler.update()
        previous, self.scale = self.scale, self.scaler.get_scale()
        if self.scale >= previous:
            return
        self.n_skipped += 1
        if self.scale < 1:
            raise UlmpipeError(
                f"fp16 training overflows at step {learn.step} at any loss scale: lower --lr, or use --precision bf16 or fp32"
            )
        raise CancelStep

    def state_dict(self) -> dict[str, Any]:
        """Return the scaler's state and the number of skipped steps."""
        return {"n_skipped": self.n_skipped, "scaler": self.scaler.state_dict()} if self.scaler else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up scale and counts."""
        if self.scaler and state:
            self.scaler.load_state_dict(state["scaler"])
            self.n_skipped, self.scale = state["n_skipped"], state["scaler"]["scale"]
