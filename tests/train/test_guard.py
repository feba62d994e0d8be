import pytest
import torch

from ulmpipe.errors import UlmpipeError
from ulmpipe.train import DebugCallback

from .toy import regressor, same, values_of


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_before_the_step(bad):
    learn = regressor()
    kept = {}

    def spoil(learn):
        if learn.step == 2 and learn.training:
            kept.update(values_of(learn.model))
            learn.loss_grad = learn.loss_grad * bad

    with pytest.raises(UlmpipeError, match=r"step 2 .*lower --lr.*fp32"):
        learn.fit(1, callbacks=[DebugCallback("after_loss", spoil)])
    assert same(kept, values_of(learn.model))


def test_validation_may_have_any_loss():
    learn = regressor()
    learn.loss_fn = lambda pred, target: pred.sum() * (1 if learn.training else torch.nan)
    learn.fit(1)
    assert learn.history[0]["valid_loss"] != learn.history[0]["valid_loss"]
