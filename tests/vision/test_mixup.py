"""MixUp and label smoothing against loops and the lesson's formulas, and what MixUp leaves behind in a learner."""

from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from colours import BATCH, learner
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from train.toy import Raise, same, values_of

from ulmpipe.train import CancelFit, Checkpoint, DebugCallback, Learner, latest_checkpoint
from vision.mixup import MixUp, Reduction, draw_lam, mixup_batch, mixup_loss

pytestmark = pytest.mark.usefixtures("one_thread")


SMOOTHED = partial(F.cross_entropy, label_smoothing=0.1)


def drawn(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return draw_lam(n, 0.4), torch.randperm(n)


def examples(n: int, n_classes: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    pred = 3 * torch.randn(n, n_classes, generator=generator)
    return pred, torch.randint(n_classes, (n,), generator=generator)


# ---- functions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 3, 4, 4), (7, 3, 5, 5), (1, 3, 4, 4), (5, 6), (3,)])
def test_pictures_are_mixed_one_by_one(shape: tuple[int, ...]):
    (lam, perm), x = drawn(shape[0]), torch.randn(shape)
    ref = torch.stack([lam[i] * x[i] + (1 - lam[i]) * x[int(perm[i])] for i in range(len(x))])
    torch.testing.assert_close(mixup_batch(x, lam, perm), ref)


def test_mixing_keeps_the_number_format():
    lam, perm = drawn(4)
    assert mixup_batch(torch.randn(4, 3, dtype=torch.bfloat16), lam, perm).dtype == torch.bfloat16


@pytest.mark.parametrize("n", [8, 7, 1])
def test_losses_are_mixed_one_by_one(n: int):
    (lam, perm), (pred, target) = drawn(n), examples(n)
    ref = torch.tensor(0.0)
    for i in range(n):
        own, other = (F.cross_entropy(pred[i : i + 1], target[k : k + 1]) for k in (i, int(perm[i])))
        ref += (lam[i] * own + (1 - lam[i]) * other) / n
    torch.testing.assert_close(mixup_loss(F.cross_entropy, pred, target, lam, perm), ref)


def test_each_loss_has_its_own_share_and_not_the_mean_of_all():
    """The lesson multiplied losses (B,) with shares (B, 1, 1, 1): a mean over B * B pairs."""
    (lam, perm), (pred, target) = drawn(8), examples(8)
    own, other = (F.cross_entropy(pred, t, reduction="none") for t in (target, target[perm]))
    shares = lam[:, None, None, None]
    lesson = (shares * own + (1 - shares) * other).mean()
    torch.testing.assert_close(lesson, lam.mean() * own.mean() + (1 - lam.mean()) * other.mean())
    assert abs(mixup_loss(F.cross_entropy, pred, target, lam, perm) - lesson) > 0.01


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 5.0])
def test_shares_are_those_of_a_folded_beta(alpha: float, rng: np.random.Generator):
    torch.manual_seed(0)
    lam = draw_lam(50_000, alpha)
    ref = rng.beta(alpha, alpha, 50_000)
    ref = np.maximum(ref, 1 - ref)
    assert lam.dtype == torch.float32 and lam.min() >= 0.5 and lam.max() <= 1
    assert lam.mean().item() == pytest.approx(ref.mean(), abs=0.004)
    assert lam.std().item() == pytest.approx(ref.std(), abs=0.004)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@given(n=st.integers(1, 9), eps=st.floats(0, 1))
def test_smoothing_is_the_lessons(reduction: Reduction, n: int, eps: float):
    pred, target = examples(n)
    comp = F.cross_entropy(pred, target, label_smoothing=eps, reduction=reduction)
    ref = reference.lesson_label_smoothing(pred.double().numpy(), target.numpy(), eps, reduction)
    np.testing.assert_allclose(comp.numpy(), ref, rtol=1e-4, atol=1e-5)


def test_mixup_of_smoothed_losses_is_cross_entropy_with_soft_labels():
    (lam, perm), (pred, target), eps = drawn(8), examples(8), 0.1
    sure = F.one_hot(target, 5).float()
    soft = lam[:, None] * sure + (1 - lam[:, None]) * sure[perm]
    ref = F.cross_entropy(pred, (1 - eps) * soft + eps / 5)
    torch.testing.assert_close(mixup_loss(partial(F.cross_entropy, label_smoothing=eps), pred, target, lam, perm), ref)


# ---- in a learner ---------------------------------------------------------------------------------------------------


def reseed() -> DebugCallback:
    """Right before MixUp draws: what it draws is known then."""
    return DebugCallback("before_batch", lambda learn: torch.manual_seed(3))


def test_training_batches_are_mixed_and_their_losses():
    told: list[tuple[Tensor, ...]] = []
    plain: list[Tensor] = []
    look = DebugCallback(
        "after_loss", lambda learn: told.append((learn.inputs[0], learn.pred.detach(), learn.target, learn.loss))
    )
    keep = DebugCallback("before_batch", lambda learn: plain.append(learn.inputs[0]))
    learner(MixUp(), keep, reseed()).fit(1, max_steps=1, callbacks=[look])
    lam, perm = drawn(BATCH, seed=3)
    inputs, pred, target, loss = told[0]
    torch.testing.assert_close(inputs, mixup_batch(plain[0], lam, perm))
    torch.testing.assert_close(loss.detach(), mixup_loss(SMOOTHED, pred, target, lam, perm))
    assert torch.equal(told[1][0], plain[1])  # of the validation
    torch.testing.assert_close(told[1][3], SMOOTHED(told[1][1], told[1][2]))


def test_validation_is_as_without_mixup():
    ref, comp = learner(), learner(MixUp())
    assert ref.validate() == comp.validate()


@pytest.mark.parametrize("batch_size", [1, 7])
def test_odd_batches_are_mixed(batch_size: int):
    learn = learner(MixUp(), batch_size=batch_size)
    learn.fit(1, max_steps=3)
    assert np.isfinite(learn.history[0]["train_loss"])


def n_hooks(learn: Learner) -> int:
    return sum(len(module._forward_hooks) for module in learn.model.modules())


class Broken(Exception):
    pass


@pytest.mark.parametrize("layer", [None, "stages.0"])
@pytest.mark.parametrize("event", ["before_batch", "after_pred", "after_loss", "before_backward", "before_step"])
@pytest.mark.parametrize("exception", [Broken(), CancelFit()])
def test_loss_function_comes_back_whatever_is_raised(layer: str | None, event: str, exception: Exception):
    learn = learner(MixUp(layer=layer))
    ref = learn.loss_fn
    late = Raise(event, exception, at_step=1)
    late.order = 100
    if isinstance(exception, CancelFit):
        learn.fit(1, callbacks=[late])
    else:
        with pytest.raises(Broken):
            learn.fit(1, callbacks=[late])
    assert learn.loss_fn is ref and n_hooks(learn) == 0


@pytest.mark.parametrize("layer", [None, "stages.0"])
def test_loss_function_comes_back_when_the_model_fails(layer: str | None):
    learn = learner(MixUp(layer=layer))
    ref = learn.loss_fn

    def fail(*_: object) -> None:
        raise Broken

    broken = learn.model.get_submodule("stages.1").register_forward_pre_hook(fail)
    with pytest.raises(Broken):
        learn.fit(1)
    broken.remove()
    assert learn.loss_fn is ref and n_hooks(learn) == 0
    learn.fit(1)
    assert learn.loss_fn is ref


@pytest.mark.parametrize("layer", [None, "stages.0"])
def test_loss_function_comes_back_after_fit_and_lr_find(layer: str | None):
    """fastai's PR 3454: `lr_find` ended in the middle of a batch, and the loss function was mixed ever after."""
    learn = learner(MixUp(layer=layer))
    ref = learn.loss_fn
    learn.lr_find(n_steps=20, lr_max=1e4)
    assert learn.loss_fn is ref and n_hooks(learn) == 0
    learn.fit(1)
    assert learn.loss_fn is ref and n_hooks(learn) == 0


def test_a_hidden_layer_is_mixed_as_by_hand():
    learn = learner(MixUp(layer="stages.0"), reseed())
    model = deepcopy(learn.model).train()
    told: list[tuple[Tensor, Tensor]] = []
    look = DebugCallback("after_pred", lambda learn: told.append((learn.inputs[0], learn.pred.detach())))
    learn.fit(1, max_steps=1, callbacks=[look])
    lam, perm = drawn(BATCH, seed=3)
    x, comp = told[0]
    hidden = mixup_batch(model.stages[0](model.stem(x)), lam, perm)
    torch.testing.assert_close(comp, model.head(model.flatten(model.pool(model.stages[1](hidden)))))
    assert n_hooks(learn) == 0


def test_unknown_layer_is_named():
    with pytest.raises(ValueError, match=r"no layer 'stages\.7', expected one of stem, stem\.0, "):
        learner(MixUp(layer="stages.7")).fit(1)


def test_alpha_of_none_is_refused():
    with pytest.raises(ValueError, match="alpha is 0"):
        MixUp(0)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("n_before", [2, 4, 7])
def test_resumed_fit_mixes_and_cuts_the_same(tmp_path: Path, n_before: int):
    """4 steps an epoch; pictures of the second are larger."""

    def make() -> Learner:
        return learner(mixup=0.4, size=48, first_size=32)

    ref = make()
    ref.fit_one_cycle(2, 1e-2)
    killed = make()
    with pytest.raises(Killed):
        saved = Checkpoint(tmp_path, every_steps=1)
        killed.fit_one_cycle(2, 1e-2, callbacks=[saved, Raise("before_batch", Killed(), at_step=n_before)])
    comp = make()
    torch.manual_seed(99)
    comp.fit_one_cycle(2, 1e-2, resume=latest_checkpoint(tmp_path))
    assert same(values_of(ref.model), values_of(comp.model))
    assert comp.history[-1]["train_loss"] == ref.history[-1]["train_loss"]


def test_a_loss_that_cannot_be_had_of_each_sample_is_refused():
    learn = learner(MixUp(0.4), loss_fn=nn.CrossEntropyLoss())
    with pytest.raises(
        ValueError, match=r"MixUp needs a loss of each sample: give loss_fn\(pred, target, reduction=\)"
    ):
        learn.fit(1)
