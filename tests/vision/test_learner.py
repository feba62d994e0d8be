"""`cnn_learner`: that it learns, what it is made of, and mixed precision with batch norms (the lesson's part 10c)."""

from functools import partial

import pytest
import torch
from colours import N_TRAIN, N_VALID, SIDE, learner, tiny, two_colours
from torch import Tensor, nn
from torch.nn import functional as F
from train.conftest import scaler_alone as scaler_alone
from train.toy import same, values_of

from ulmpipe.errors import ConfigError
from ulmpipe.train import DebugCallback, Learner, MixedPrecision, check_precision, probabilities
from vision.augment import Augment
from vision.data import Stats, channel_stats
from vision.learner import MOMS, cnn_learner
from vision.mixup import MixUp
from vision.transfer import adapt, bn_splitter
from vision.xresnet import XResNet

pytestmark = pytest.mark.usefixtures("one_thread")


def test_two_colours_are_learned():
    learn = learner(mixup=0.2)
    learn.fit_one_cycle(3, 2e-2, moms=MOMS)
    assert learn.history[-1]["accuracy"] >= 0.9
    preds, targets = learn.predict(two_colours().batches(batch_size=8)[1])
    assert preds.shape == (N_VALID, 2) and torch.equal(targets, torch.arange(N_TRAIN, N_TRAIN + N_VALID) % 2)


def test_name_or_network():
    data = two_colours()
    learn = cnn_learner("xresnet18", data, precision="fp32", device="cpu", seed=4)
    assert isinstance(learn.model, XResNet) and learn.model.head.out_features == 2
    again = cnn_learner("xresnet18", data, precision="fp32", device="cpu", seed=4)
    assert same(values_of(learn.model), values_of(again.model))
    model = tiny()
    assert learner(model=model).model is model
    with pytest.raises(ValueError, match="no network 'xresnet19', expected one of xresnet18"):
        cnn_learner("xresnet19", data, precision="fp32", device="cpu")


def test_callbacks_are_those_that_were_asked_for():
    kinds = [type(cb) for cb in learner(mixup=0.4).callbacks]
    assert Augment in kinds and MixUp in kinds and MixedPrecision not in kinds
    assert MixUp not in [type(cb) for cb in learner().callbacks]


def test_loss_is_smoothed_cross_entropy_unless_it_is_given():
    pred, target = torch.randn(6, 2), torch.tensor([0, 1, 1, 0, 1, 0])
    ref = F.cross_entropy(pred, target, label_smoothing=0.1)
    assert torch.equal(learner().loss_fn(pred, target), ref)
    assert torch.equal(learner(smooth=0.0).loss_fn(pred, target), F.cross_entropy(pred, target))
    assert torch.equal(probabilities(pred, learner().loss_fn), pred.softmax(-1))
    own = partial(F.cross_entropy, weight=torch.tensor([1.0, 2.0]))
    learn = learner(loss_fn=own, mixup=0.4)
    assert learn.loss_fn is own
    learn.fit(1, max_steps=1)
    assert learn.loss_fn is own


def test_pictures_are_normalised_by_those_that_are_trained_on():
    data, learn = two_colours(), learner(size=SIDE)
    ref = channel_stats(data.pictures, data.train)
    augment = next(cb for cb in learn.callbacks if isinstance(cb, Augment))
    assert augment.mean.tolist() == pytest.approx(ref.mean) and augment.std.tolist() == pytest.approx(ref.std)
    told: list[Tensor] = []
    learn.callbacks.append(DebugCallback("before_batch", lambda learn: told.append(learn.inputs[0])))
    learn.active = learn.callbacks
    learn.validate(data.batches(batch_size=N_TRAIN)[0])
    assert told[0].mean((0, 2, 3)).abs().max() < 1e-3 and (told[0].std((0, 2, 3)) - 1).abs().max() < 1e-3
    own = learner(stats=Stats((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)))
    assert next(cb for cb in own.callbacks if isinstance(cb, Augment)).mean.tolist() == [1, 2, 3]


def test_groups_have_their_own_rates():
    network = adapt(tiny(), 2)
    learn = learner(model=network, groups=bn_splitter(network.get_submodule("body"), network.get_submodule("head")))  # type: ignore[arg-type]
    learn.fit(1, lr=[1e-4, 1e-2], max_steps=1)
    assert [(group["lr"], group["weight_decay"]) for group in learn.opt.param_groups] == [(1e-4, 0.05), (1e-2, 0.05)]


def test_lr_find_leaves_weights_and_statistics_alone():
    learn = learner(mixup=0.4, size=48, first_size=32)
    before = values_of(learn.model)
    curve = learn.lr_find(n_steps=12)
    assert same(values_of(learn.model), before) and 1e-7 <= curve.suggestion <= 10
    assert next(cb for cb in learn.callbacks if isinstance(cb, Augment)).sizes == [48]


# ---- mixed precision ------------------------------------------------------------------------------------------------


@pytest.fixture
def cpu_bf16() -> None:
    """Skip where bf16 on this CPU could end the tests with an illegal instruction."""
    try:
        check_precision("bf16", "cpu")
    except ConfigError as err:
        pytest.skip(str(err))


def kinds_of(model: nn.Module) -> set[torch.dtype]:
    return {value.dtype for value in model.state_dict().values()}


KINDS = {torch.float32, torch.int64}  # int64: how many batches a norm has seen


def test_bf16_learns_and_all_that_is_kept_is_float32(cpu_bf16: None):
    told: list[set[torch.dtype]] = []
    norms: list[torch.dtype] = []

    def look(learn: Learner) -> None:
        grads = {param.grad.dtype for param in learn.model.parameters() if param.grad is not None}
        told.append(grads | {learn.pred.dtype, learn.loss.dtype})
        norms.append(learn.model.get_submodule("stem.0.1").running_mean.dtype)

    learn = learner(precision="bf16", mixup=0.2)
    learn.fit_one_cycle(3, 2e-2, moms=MOMS, callbacks=[DebugCallback("before_step", look)])
    assert learn.history[-1]["accuracy"] >= 0.9
    assert set().union(*told) == set(norms) == {torch.float32}
    assert kinds_of(learn.model) == KINDS
    assert learn.predict(two_colours().batches(batch_size=8)[1])[0].dtype == torch.float32


def test_model_of_fp16_is_float32_during_and_after_the_fit(scaler_alone: None):
    """The lesson's converted network stayed half once its callback was gone."""
    told: list[set[torch.dtype]] = []
    learn = learner(MixedPrecision("fp16"))
    learn.fit(1, callbacks=[DebugCallback("after_step", lambda learn: told.append(kinds_of(learn.model)))])
    assert told == 4 * [KINDS] and kinds_of(learn.model) == KINDS


def test_targets_and_pictures_are_not_halved(scaler_alone: None):
    """The lesson halved whatever was the input, ids of tokens too."""
    told: list[tuple[torch.dtype, torch.dtype]] = []
    look = DebugCallback("after_pred", lambda learn: told.append((learn.inputs[0].dtype, learn.target.dtype)))
    learner(MixedPrecision("fp16"), mixup=0.4).fit(1, callbacks=[look])
    assert set(told) == {(torch.float32, torch.int64)}


def test_overflow_leaves_weights_and_momentum_alone(scaler_alone: None):
    """The lesson's Adam stepped on gradients of zero, by its momentum."""
    told: list[dict[str, Tensor]] = []

    def state(learn: Learner) -> dict[str, Tensor]:
        params = {name: param.detach().clone() for name, param in learn.model.named_parameters()}
        return params | {str(n): one["exp_avg"].clone() for n, one in learn.opt.state_dict()["state"].items()}

    def overflow_once(learn: Learner) -> None:
        if learn.training and learn.step in (2, 3):
            told.append(state(learn))
        if learn.step == 2:
            learn.loss_grad = learn.loss_grad * 1e38

    mixed = MixedPrecision("fp16")
    learn = learner(mixed, mixup=0.4)
    learn.fit(1, lr=1e-2, callbacks=[DebugCallback("after_loss", overflow_once)])
    assert mixed.n_skipped == 1 and same(told[0], told[1]) and not same(told[1], state(learn))


def test_gradual_unfreezing_with_fp16_updates_the_model(scaler_alone: None):
    """The lesson's second fit took its masters for the model, and never updated it."""
    network = adapt(tiny(), 2)
    body, head = network.get_submodule("body"), network.get_submodule("head")
    learn = learner(MixedPrecision("fp16"), model=network, groups=bn_splitter(body, head))
    learn.freeze_to(-1)
    learn.fit(1, lr=1e-2)
    learn.unfreeze()
    before = values_of(network)
    learn.fit(1, lr=1e-2)
    assert not [name for name, value in values_of(network).items() if torch.equal(value, before[name])]
    assert kinds_of(network) == KINDS


def test_fp16_with_a_scale_computes_what_fp32_does(scaler_alone: None):
    ref = learner(mixup=0.4)
    ref.fit(1, lr=1e-3)
    comp = learner(MixedPrecision("fp16"), mixup=0.4)
    comp.fit(1, lr=1e-3)
    torch.testing.assert_close(values_of(comp.model), values_of(ref.model), rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_on_a_gpu_learns(precision: str):
    learn = learner(precision=precision, device="cuda", mixup=0.2)
    learn.fit_one_cycle(3, 2e-2, moms=MOMS)
    assert learn.history[-1]["accuracy"] >= 0.9 and kinds_of(learn.model) == KINDS
