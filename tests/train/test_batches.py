from ulmpipe.train import FixedBatches

from .toy import regression


def test_fixed_batches_start_where_asked():
    dl = regression(4)
    assert len(dl) == 4
    assert list(dl.batches(3, start=2)) == dl.fixed[2:]
    assert list(dl.batches(0)) == list(dl.batches(1)) == dl.fixed


def test_fixed_batches_may_be_empty():
    assert len(FixedBatches([])) == 0 and list(FixedBatches([]).batches(0)) == []
