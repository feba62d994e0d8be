import pytest

from ulmpipe.train import EVENTS, Callback, CancelBatch, CancelEpoch, CancelFit, CancelStep, DebugCallback

from .toy import Raise, regressor, same, values_of


class Recorder(Callback):
    def __init__(self):
        self.events: list[str] = []
        for event in EVENTS:
            setattr(self, event, lambda learn, event=event: self.events.append(event))


def test_unknown_hook_fails_when_the_class_is_made():
    with pytest.raises(TypeError, match="after_bacth"):
        type("Typo", (Callback,), {"after_bacth": lambda self, learn: None})


def test_base_class_documents_every_event():
    for event in EVENTS:
        assert getattr(Callback, event).__doc__


def test_events_come_in_the_order_of_the_docstring():
    recorder = Recorder()
    regressor(n_batches=1).fit(1, callbacks=[recorder])
    train = "before_batch after_pred after_loss before_backward after_backward before_step after_step after_batch cleanup_batch"
    valid = "before_batch after_pred after_loss after_batch cleanup_batch"
    ref_events = (
        f"before_fit before_epoch {train} before_validate {valid} {valid} after_validate "
        "after_epoch cleanup_epoch after_fit cleanup_fit"
    )
    assert recorder.events == ref_events.split()


def test_lower_order_runs_first_and_equals_as_given():
    told = []
    cbs = [DebugCallback("before_fit", lambda learn, n=n: told.append(n)) for n in range(4)]
    cbs[3].order = -7
    regressor().fit(1, callbacks=cbs)
    assert told == [3, 0, 1, 2]


def test_cleanup_runs_in_every_callback_after_an_exception():
    recorder = Recorder()
    failing = DebugCallback("cleanup_batch", lambda learn: 1 / 0)
    failing.order = -50
    with pytest.raises(ZeroDivisionError):
        regressor().fit(1, callbacks=[failing, Raise("after_loss", KeyError("stop")), recorder])
    assert recorder.events[-3:] == ["cleanup_batch", "cleanup_epoch", "cleanup_fit"]


@pytest.mark.parametrize(
    "exception, n_batches, n_epochs", [(CancelBatch(), 8, 2), (CancelEpoch(), 0, 0), (CancelFit(), 0, 0)]
)
def test_cancel_leaves_out_the_rest_of_its_level(exception, n_batches, n_epochs):
    recorder = Recorder()
    learn = regressor(valid=False)
    learn.fit(2, callbacks=[Raise("after_backward", exception), recorder])  # step stays 0: it is raised every time
    assert learn.step == 0
    assert recorder.events.count("cleanup_batch") == max(n_batches, 2 if isinstance(exception, CancelEpoch) else 1)
    assert recorder.events.count("after_batch") == 0
    assert recorder.events.count("after_epoch") == n_epochs
    assert recorder.events.count("after_fit") == (0 if isinstance(exception, CancelFit) else 1)
    assert recorder.events[-1] == "cleanup_fit"


def test_cancel_step_leaves_the_weights_alone():
    learn = regressor(n_batches=1)
    before = values_of(learn.model)
    learn.fit(1, callbacks=[Raise("before_step", CancelStep())])
    assert same(before, values_of(learn.model)) and learn.step == 1
    assert all(param.grad is None for param in learn.model.parameters())


def test_cancel_batch_after_backward_accumulates_gradients():
    learn = regressor(n_batches=2)
    norms = []
    look = DebugCallback("before_step", lambda learn: norms.append(learn.model[0].weight.grad.clone()))
    learn.fit(1, callbacks=[Raise("after_backward", CancelBatch()), look])
    assert norms == []  # cancelled each time
    assert learn.model[0].weight.grad is not None


def test_debug_callback_knows_its_events(monkeypatch):
    with pytest.raises(ValueError, match="before_fitt"):
        DebugCallback("before_fitt")
    stopped = []
    monkeypatch.setattr("builtins.breakpoint", lambda: stopped.append(1))
    regressor().fit(1, callbacks=[DebugCallback("after_fit")])
    assert stopped == [1]
