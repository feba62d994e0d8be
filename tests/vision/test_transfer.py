"""A trained body under a new head: what is carried over, what trains, and files of weights that do not fit."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from colours import learner, tiny
from safetensors.torch import save_file
from torch import Tensor, nn
from train.toy import same, values_of

from ulmpipe.errors import StoreError
from vision.transfer import (
    ConcatPool,
    adapt,
    bn_splitter,
    concat_pool_head,
    cut_body,
    is_norm,
    load_weights,
    n_features,
    save_weights,
)

pytestmark = pytest.mark.usefixtures("one_thread")

# ---- body and head --------------------------------------------------------------------------------------------------


def test_body_is_all_before_the_pooling_under_the_same_names():
    model = tiny()
    body = cut_body(model)
    assert [name for name, _ in body.named_children()] == ["stem", "stages"]
    assert body.stem is model.stem and body.stages is model.stages
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(body.eval()(x), model.stages(model.stem(x)))


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)])
def test_body_ends_at_the_first_pooling_of_either_kind(pool: nn.Module):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), pool, nn.Flatten(), nn.Linear(4, 2))
    assert list(cut_body(model)) == list(model)[:2]


def test_body_keeps_both_places_of_one_module():
    """The lesson has one ReLU for all layers."""
    relu = nn.ReLU()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu, nn.AdaptiveAvgPool2d(1))
    assert list(cut_body(model)) == list(model)[:4]


def test_network_without_pooling_is_refused():
    with pytest.raises(ValueError, match="no adaptive pooling to cut at, only 0, 1"):
        cut_body(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)))


def test_counting_features_changes_nothing():
    body = cut_body(tiny(expansion=2)).train()
    body.get_submodule("stem").eval()  # a part that is frozen
    before, flags = values_of(body), [module.training for module in body.modules()]
    assert n_features(body) == 32
    assert same(values_of(body), before) and [module.training for module in body.modules()] == flags
    assert n_features(body.eval()) == 32 and not body.training


def test_flags_come_back_when_the_body_fails():
    body = cut_body(tiny()).train()
    with pytest.raises(RuntimeError):
        n_features(body, c_in=5)
    assert body.training


def test_concat_pool_puts_mean_and_maximum_side_by_side():
    x = torch.randn(2, 3, 4, 5)
    comp = ConcatPool()(x)
    torch.testing.assert_close(comp[:, :3], x.mean((2, 3)))
    torch.testing.assert_close(comp[:, 3:], x.flatten(2).max(2).values)


def test_head_has_the_layers_of_fastai():
    head = concat_pool_head(16, 5, hidden=8, dropout=0.5)
    assert head(torch.randn(3, 16, 2, 2)).shape == (3, 5)
    linears = [tuple(layer.weight.shape) for layer in head if isinstance(layer, nn.Linear)]
    assert linears == [(8, 32), (5, 8)] and [layer.p for layer in head if isinstance(layer, nn.Dropout)] == [0.25, 0.5]


def test_adapted_network_has_the_body_and_a_fresh_head():
    model = tiny()
    network = adapt(model, 7)
    assert network.get_submodule("body.stages") is model.stages
    assert network.eval()(torch.randn(2, 3, 40, 40)).shape == (2, 7)
    assert [name for name, _ in network.named_children()] == ["body", "head"]


# ---- what is trained ------------------------------------------------------------------------------------------------


def adapted() -> nn.Sequential:
    torch.manual_seed(1)
    return adapt(tiny(), 2)


def parts(network: nn.Sequential) -> tuple[nn.Sequential, nn.Module]:
    body, head = network.get_submodule("body"), network.get_submodule("head")
    assert isinstance(body, nn.Sequential)
    return body, head


def test_every_parameter_is_in_one_group_and_norms_in_the_second():
    network = adapted()
    frozen, trained = bn_splitter(*parts(network))
    assert Counter(map(id, [*frozen, *trained])) == Counter(id(param) for param in network.parameters())
    assert all(param.dim() == 4 for param in frozen)  # convolutions and nothing else
    norms = [param for module in network.modules() if is_norm(module) for param in module.parameters()]
    assert len(norms) > 4 and {id(param) for param in norms} <= {id(param) for param in trained}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def test_frozen_body_trains_its_norms_and_the_head_only():
    network = adapted()
    learn = learner(model=network, groups=bn_splitter(*parts(network)))
    learn.freeze_to(-1)
    before = values_of(network)
    learn.fit(1, lr=1e-2)
    convs = {f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    assert changed(before, values_of(network)) == before.keys() - convs
    learn.unfreeze()
    before = values_of(network)
    learn.fit(1, lr=[1e-3, 1e-2])
    assert changed(before, values_of(network)) == before.keys()


def test_frozen_after_training_stays_where_it_is():
    """The lesson's Adam moved frozen parameters by their momentum."""
    network = adapted()
    learn = learner(model=network, groups=bn_splitter(*parts(network)))
    learn.fit(1, lr=1e-2)
    learn.freeze_to(-1)
    before = [param.clone() for param in learn.groups[0]]
    learn.fit(1, lr=1e-2)
    assert all(torch.equal(a, b) for a, b in zip(before, learn.groups[0], strict=True))


# ---- weights --------------------------------------------------------------------------------------------------------


def test_weights_come_back_bit_for_bit(tmp_path: Path):
    learn = learner()
    learn.fit(1)  # statistics of norms are no longer those of a new network
    save_weights(learn.model, tmp_path / "w.safetensors")
    other = tiny(seed=5)
    load_weights(other, tmp_path / "w.safetensors")
    assert same(values_of(other), values_of(learn.model))


def test_weights_of_another_network_are_told_apart(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    save_weights(tiny(), path)
    with pytest.raises(StoreError, match=r"w\.safetensors has head\.weight of \(2, 16\), expected \(3, 16\)"):
        load_weights(tiny(3), path)
    with pytest.raises(StoreError, match=r"lacks body\.stem\.0\.0\.weight, .*: it belongs to another network"):
        load_weights(adapted(), path)
    before = tiny(seed=5)
    save_file({**tiny().state_dict(), "head.bias": torch.zeros(4)}, path)
    with pytest.raises(StoreError, match=r"head\.bias of \(4,\)"):
        load_weights(before, path)
    assert same(values_of(before), values_of(tiny(seed=5)))  # not half loaded


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04\x95",
        b"\xff" * 64,
        (1 << 40).to_bytes(8, "little") + b"{}",
        b"\x02\0\0\0\0\0\0\0{}trailing",
        b"\x08\0\0\0\0\0\0\0{\"a\":[]}",
    ],
    ids=["empty", "pickle", "no length", "header too long", "data that nothing names", "header of another form"],
)  # fmt: skip
def test_hostile_file_of_weights_is_said_in_a_line(tmp_path: Path, data: bytes):
    (tmp_path / "w.safetensors").write_bytes(data)
    with pytest.raises(StoreError, match=r"w\.safetensors is damaged"):
        load_weights(tiny(), tmp_path / "w.safetensors")


def test_damaged_file_of_weights_is_said_in_a_line(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    save_weights(tiny(), path)
    data = path.read_bytes()
    for cut in (7, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(StoreError):
            load_weights(tiny(), path)
    for at in range(0, 400, 9):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        with pytest.raises(StoreError):
            load_weights(tiny(), path)
