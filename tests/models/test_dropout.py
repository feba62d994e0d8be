"""Each dropout: mean 1, the right thing dropped together, the identity in evaluation and at p = 0."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from ulmpipe.models import EmbeddingDropout, RNNDropout, WeightDropout, dropout_mask
from ulmpipe.models.dropout import side_by_side

B, T, E, H, V = 4, 9, 6, 8, 20


def weight_dropout(weight_p: float = 0.5) -> WeightDropout:
    return WeightDropout(nn.LSTM(E, H, batch_first=True), weight_p)


def raw_weight(rnn: WeightDropout) -> nn.Parameter:
    """Return weight_hh_l0, (4H, H)."""
    return rnn.module.all_weights[0][1]


def dropped_by(seed: int, rnn: WeightDropout) -> torch.Tensor:
    """Return weight_hh_l0 as `forward` drops it after this seed: its mask is the first thing drawn."""
    torch.manual_seed(seed)
    return F.dropout(raw_weight(rnn).detach(), rnn.weight_p)


@pytest.mark.parametrize("p", [0.0, 0.02, 0.25, 0.5])
def test_dropout_mask_has_mean_one_and_two_values(p: float):
    mask = dropout_mask(torch.empty(0, dtype=torch.float64), (1000, 1000), p)
    assert mask.dtype == torch.float64
    assert mask.mean().item() == pytest.approx(1, abs=0.01)
    assert (mask == 0).double().mean().item() == pytest.approx(p, abs=0.01)
    torch.testing.assert_close(mask[mask != 0], torch.full_like(mask[mask != 0], 1 / (1 - p)))


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_p_outside_its_range_is_refused(p: float):
    for name, make in [
        ("p", lambda: dropout_mask(torch.ones(1), (1,), p)),
        ("p", lambda: RNNDropout(p)),
        ("embed_p", lambda: EmbeddingDropout(p)),
        ("weight_p", lambda: weight_dropout(p)),
    ]:
        with pytest.raises(ValueError, match=f"^{name} is {p}, expected"):
            make()


def test_rnn_dropout_drops_the_same_features_at_every_step():
    comp = RNNDropout(0.5)(torch.ones(100, T, 200))
    assert (comp == comp[:, :1]).all()
    assert comp.mean().item() == pytest.approx(1, abs=0.02)
    assert len({row.numpy().tobytes() for row in comp[:, 0]}) == 100  # but not the same in every document


@pytest.mark.parametrize("make", [lambda: RNNDropout(0.5).eval(), lambda: RNNDropout(0)])
def test_rnn_dropout_hands_its_input_through_when_off(make):
    x = torch.randn(B, T, E)
    assert make()(x) is x


def test_embedding_dropout_equals_dropping_rows_of_the_matrix():
    embedding, dropout = nn.Embedding(V, E, padding_idx=1), EmbeddingDropout(0.4)
    ids = torch.randint(V, (B, T))
    torch.manual_seed(3)
    comp = dropout(embedding, ids)
    torch.manual_seed(3)
    ref = F.embedding(ids, embedding.weight * dropout_mask(embedding.weight, (V, 1), 0.4), padding_idx=1)
    torch.testing.assert_close(comp, ref)
    comp_grad, ref_grad = (torch.autograd.grad(out.square().sum(), embedding.weight)[0] for out in (comp, ref))
    torch.testing.assert_close(comp_grad, ref_grad)


def test_embedding_dropout_has_mean_one():
    embedding = nn.Embedding.from_pretrained(torch.ones(100_000, 1))
    comp = EmbeddingDropout(0.1)(embedding, torch.arange(100_000)[None])
    assert comp.mean().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("dropout", [EmbeddingDropout(0.4).eval(), EmbeddingDropout(0)])
def test_embedding_dropout_is_the_embedding_when_off(dropout: EmbeddingDropout):
    embedding, ids = nn.Embedding(V, E), torch.randint(V, (B, T))
    assert torch.equal(dropout(embedding, ids), embedding(ids))


def test_weight_dropout_equals_an_lstm_with_the_dropped_matrix():
    rnn, x = weight_dropout(), torch.randn(B, T, E)
    state = torch.randn(1, B, H), torch.randn(1, B, H)
    ref = functional_call(rnn.module, {"weight_hh_l0": dropped_by(5, rnn)}, (x, state))
    torch.manual_seed(5)
    torch.testing.assert_close(rnn(x, state), ref)


def test_weight_dropout_starts_from_zeros():
    rnn, x, zeros = weight_dropout(), torch.randn(B, T, E), torch.zeros(1, B, H)
    torch.manual_seed(5)
    ref = rnn(x, (zeros, zeros))
    torch.manual_seed(5)
    torch.testing.assert_close(rnn(x), ref, rtol=0, atol=0)


def test_weight_dropout_gradient_reaches_the_raw_weight_and_is_zero_where_dropped():
    rnn, x = weight_dropout(), torch.randn(B, T, E)
    is_dropped = dropped_by(5, rnn) == 0
    torch.manual_seed(5)
    rnn(x)[0].square().sum().backward()
    raw = raw_weight(rnn)
    assert raw is rnn.module.weight_hh_l0
    assert raw.is_leaf
    assert raw.grad is not None
    assert 0.4 < is_dropped.double().mean() < 0.6
    assert (raw.grad[is_dropped] == 0).all()
    assert (raw.grad[~is_dropped] != 0).all()
    assert all(p.grad is not None for p in rnn.parameters())


def test_weight_dropout_draws_a_new_mask_a_call_and_leaves_the_weight_alone():
    rnn, x = weight_dropout(), torch.randn(B, T, E)
    before = raw_weight(rnn).detach().clone()
    assert not torch.equal(rnn(x)[0], rnn(x)[0])
    assert torch.equal(raw_weight(rnn), before)
    assert [name for name, _ in rnn.named_parameters()] == [
        f"module.{name}" for name, _ in rnn.module.named_parameters()
    ]


@pytest.mark.parametrize("rnn", [weight_dropout().eval(), weight_dropout(0)])
def test_weight_dropout_is_the_plain_lstm_when_off(rnn: WeightDropout):
    x = torch.randn(B, T, E)
    torch.testing.assert_close(rnn(x), rnn.module(x), rtol=0, atol=0)


def test_weight_dropout_trains_the_weight_that_evaluation_uses():
    rnn, x = weight_dropout(), torch.randn(B, T, E)
    before = rnn.eval()(x)[0].detach()
    opt = torch.optim.SGD([raw_weight(rnn)], lr=1.0)
    rnn.train()(x)[0].square().sum().backward()
    opt.step()
    assert not torch.equal(rnn.eval()(x)[0], before)


@pytest.mark.parametrize(
    "lstm",
    [
        nn.LSTM(E, H, num_layers=2, batch_first=True),
        nn.LSTM(E, H),
        nn.LSTM(E, H, batch_first=True, bidirectional=True),
        nn.LSTM(E, H, batch_first=True, bias=False),
    ],
)
def test_weight_dropout_refuses_other_lstms(lstm: nn.LSTM):
    with pytest.raises(ValueError, match="one-layer, one-way, batch_first"):
        WeightDropout(lstm, 0.5)


def test_side_by_side_puts_weights_one_behind_the_other():
    weights = [torch.randn(8, 3), torch.randn(8, 2).requires_grad_(), torch.randn(8)]
    views = side_by_side(weights)
    for view, weight in zip(views, weights, strict=True):
        assert torch.equal(view, weight)
        assert view.is_contiguous()
    assert [view.data_ptr() - views[0].data_ptr() for view in views] == [0, 24 * 4, 40 * 4]
    assert views[1].requires_grad


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_weight_dropout_runs_on_a_gpu_without_a_warning_and_equals_the_cpu():
    rnn, x = weight_dropout().cuda(), torch.randn(B, T, E)
    dropped = dropped_by(5, rnn).cpu()
    torch.manual_seed(5)
    comp = rnn(x.cuda())[0].cpu()
    ref = functional_call(rnn.module.cpu(), {"weight_hh_l0": dropped}, (x,))[0]
    torch.testing.assert_close(comp, ref, rtol=1e-3, atol=1e-3)  # cuDNN may multiply in TF32
