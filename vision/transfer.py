"""Transfer: take the body of a trained network, put a new head on it, and say which parameters learn how fast.

    network -> cut_body (all before the pooling) -> + concat pooling head, sized by a batch sent through -> bn_splitter

What the lesson found: a frozen body whose batch norms are frozen too does not transfer. So groups are split into what may
be frozen and what always trains.
"""

from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ulmpipe.durable import write_bytes
from ulmpipe.errors import StoreError

POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


class ConcatPool(nn.Module):
    """Average and maximum over the picture, side by side: (B, F, H, W) -> (B, 2 * F)."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, F, H, W) float."""
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)


def cut_body(model: nn.Sequential) -> nn.Sequential:
    """Return the layers before the first adaptive pooling, the same modules under the same names.

    Raises ValueError for a network without one.
    """
    # named_children would leave out the second place of a module that has two: the lesson's one ReLU for all layers
    layers = [(name, layer) for name, layer in model.named_modules(remove_duplicate=False) if name and "." not in name]
    body = nn.Sequential()
    for name, layer in layers:
        if isinstance(layer, POOLS):
            return body
        body.add_module(name, layer)
    raise ValueError(f"the network has no adaptive pooling to cut at, only {', '.join(name for name, _ in layers)}")


def n_features(body: nn.Module, *, c_in: int = 3, size: int = 64) -> int:
    """Return how many channels a body gives, by sending two blank pictures through; nothing in it changes."""
    were_training = [module for module in body.modules() if module.training]
    body.eval()
    try:
        with torch.no_grad():
            param = next(body.parameters())
            return body(torch.zeros(2, c_in, size, size, device=param.device, dtype=param.dtype)).shape[1]
    finally:
        for module in were_training:  # one by one: some may be in evaluation mode to stay frozen
            module.training = True


def concat_pool_head(n_in: int, c_out: int, *, hidden: int = 512, dropout: float = 0.25) -> nn.Sequential:
    """Make the head of fastai: both poolings, then two linear layers between batch norms and dropouts."""
    head = nn.Sequential(
        ConcatPool(),
        nn.BatchNorm1d(2 * n_in),
        nn.Dropout(dropout / 2),
        nn.Linear(2 * n_in, hidden, bias=False),
        nn.ReLU(inplace=True),
        nn.BatchNorm1d(hidden),
        nn.Dropout(dropout),
        nn.Linear(hidden, c_out),
    )
    for module in head:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    nn.init.zeros_(head[-1].bias)  # pyright: ignore[reportArgumentType]
    return head


def adapt(model: nn.Sequential, c_out: int, *, dropout: float = 0.25) -> nn.Sequential:
    """Return a network of a trained body, `body`, and a fresh head for `c_out` classes, `head`. The body is not copied."""
    body = cut_body(model)
    network = nn.Sequential()
    network.add_module("body", body)
    network.add_module("head", concat_pool_head(n_features(body), c_out, dropout=dropout))
    return network


# ---- what is trained, and how fast ----------------------------------------------------------------------------------


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a batch norm, of any kind."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def bn_splitter(body: nn.Module, head: nn.Module) -> list[list[nn.Parameter]]:
    """Return two groups: what a frozen body keeps as it is, and what trains from the beginning.

    The second holds the head and every batch norm of the body: its scales must follow the new pictures, since their
    means and deviations are those of each batch (the lesson's part on Pets).
    """
    norms = {param for module in body.modules() if is_norm(module) for param in module.parameters(recurse=False)}
    frozen = [param for param in body.parameters() if param not in norms]
    return [frozen, [*(param for param in body.parameters() if param in norms), *head.parameters()]]


# ---- weights --------------------------------------------------------------------------------------------------------


def save_weights(model: nn.Module, path: Any) -> None:
    """Write parameters and buffers as safetensors."""
    write_bytes(path, save({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}))


def load_weights(model: nn.Module, path: Any) -> None:
    """Load parameters and buffers by name.

    Raises `StoreError` that names what is missing or has another shape, or says that the file is damaged.
    """
    try:
        weights: Mapping[str, Tensor] = load_file(path)
    except SafetensorError as err:
        raise StoreError(f"{path} is damaged: {err}. Make it again, or restore it from a copy") from err
    own = model.state_dict()
    missing = [name for name in own if name not in weights]
    other = [name for name in own if name in weights and weights[name].shape != own[name].shape]
    if missing or other:
        told = [f"lacks {', '.join(missing[:3])}"] * bool(missing)
        told += [f"has {name} of {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}" for name in other[:3]]
        raise StoreError(f"{path} {' and '.join(told)}: it belongs to another network")
    model.load_state_dict({name: weights[name] for name in own})
