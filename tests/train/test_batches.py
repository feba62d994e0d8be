import threading
import time

import pytest
import torch

from ulmpipe.train import FixedBatches
from ulmpipe.train.batches import ahead, on_device

from .toy import regression


def test_fixed_batches_start_where_asked():
    dl = regression(4)
    assert len(dl) == 4
    assert list(dl.batches(3, start=2)) == dl.fixed[2:]
    assert list(dl.batches(0)) == list(dl.batches(1)) == dl.fixed


def test_fixed_batches_may_be_empty():
    assert len(FixedBatches([])) == 0 and list(FixedBatches([]).batches(0)) == []


def n_threads() -> int:
    return threading.active_count()


@pytest.mark.parametrize("n", [0, 1, 2, 3, 50])
def test_ahead_gives_the_same_items(n: int):
    assert list(ahead(iter(range(n)), 2)) == list(range(n))


def test_ahead_makes_no_more_than_it_was_told_to():
    made = []
    items = ahead((made.append(n) or n for n in range(100)), 3)
    assert next(items) == 0
    time.sleep(0.2)
    assert len(made) <= 1 + 3 + 1  # the one taken, three that wait, one in hand
    items.close()


def test_ahead_raises_where_the_items_are_used():
    def items():
        yield 1
        raise ValueError("broken")

    comp = ahead(items(), 2)
    assert next(comp) == 1
    with pytest.raises(ValueError, match="broken"):
        next(comp)


def test_ahead_leaves_no_thread_behind():
    before = n_threads()
    items = ahead(iter(range(1000)), 2)
    next(items)
    assert n_threads() == before + 1
    items.close()
    assert n_threads() == before


def test_on_a_cpu_batches_are_passed_on():
    batches = [(torch.ones(2), torch.zeros(2)), (torch.ones(1), torch.zeros(1))]
    assert list(on_device(batches, torch.device("cpu"))) == batches


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu_batches_arrive_whole():
    batches = [(torch.full((1000, 1000), n), torch.tensor([n])) for n in range(50)]
    for n, (x, y) in enumerate(on_device(batches, torch.device("cuda"))):
        assert x.is_cuda and (x == n).all() and y.item() == n
