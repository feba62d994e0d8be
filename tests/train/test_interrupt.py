import os
import signal
import threading

import pytest

from ulmpipe.train import Checkpoint, DebugCallback, Interrupted, StopSignal, latest_checkpoint

from .toy import Raise, regressor, same, values_of


def send(signum: int, *, at_step: int, training: bool = True) -> DebugCallback:
    def hook(learn):
        if learn.step == at_step and learn.training is training:
            os.kill(os.getpid(), signum)

    return DebugCallback("after_pred", hook)


@pytest.mark.parametrize("signum, exit_code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("at_step, training", [(2, True), (4, False), (7, True), (8, False)])
def test_a_signal_stops_at_the_next_batch_and_the_fit_can_go_on(tmp_path, signum, exit_code, at_step, training):
    ref, comp = regressor(), regressor()
    ref.fit_one_cycle(2, 0.01)
    before = signal.getsignal(signum)
    checkpoint = Checkpoint(tmp_path)
    with pytest.raises(Interrupted) as caught:
        comp.fit_one_cycle(
            2, 0.01, callbacks=[checkpoint, StopSignal(checkpoint), send(signum, at_step=at_step, training=training)]
        )
    assert caught.value.exit_code == exit_code and caught.value.signum == signum
    assert comp.step == at_step + training  # not one step more
    assert signal.getsignal(signum) == before
    comp = regressor()
    comp.fit_one_cycle(2, 0.01, resume=latest_checkpoint(tmp_path))
    assert same(values_of(ref.model), values_of(comp.model))
    assert [row["valid_loss"] for row in comp.history] == [row["valid_loss"] for row in ref.history]


def test_interrupted_is_no_exception():
    assert not issubclass(Interrupted, Exception)


def test_a_second_ctrl_c_is_immediate():
    stop = StopSignal()
    with pytest.raises(KeyboardInterrupt):
        regressor().fit(1, callbacks=[stop, send(signal.SIGINT, at_step=1), send(signal.SIGINT, at_step=1)])


def test_a_signal_after_the_last_batch_is_not_lost():
    learn = regressor()
    with pytest.raises(Interrupted):
        learn.fit(
            1,
            callbacks=[StopSignal(), DebugCallback("after_epoch", lambda learn: os.kill(os.getpid(), signal.SIGTERM))],
        )
    assert learn.step == 4


def test_handlers_are_given_back_after_an_error():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyError):
        regressor().fit(1, callbacks=[StopSignal(), Raise("after_loss", KeyError())])
    assert signal.getsignal(signal.SIGINT) == before


def test_another_thread_trains_without_handlers():
    learn = regressor()
    thread = threading.Thread(target=lambda: learn.fit(1, callbacks=[StopSignal()]))
    thread.start()
    thread.join()
    assert learn.step == 4
