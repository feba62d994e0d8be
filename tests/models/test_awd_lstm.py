"""AWD-LSTM and the language model: the arithmetic, the carried state, what is saved, and that it learns."""

import inspect
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ulmpipe.errors import ConfigError
from ulmpipe.models import (
    AWDLSTM,
    CLASSIFIER_DROPOUTS,
    LM_DROPOUTS,
    SIZES,
    LanguageModel,
    TextClassifier,
    scaled_dropouts,
)

B, T, V, PAD_ID = 4, 10, 30, 1
TINY = SIZES["tiny"]
E, H = TINY["emb_size"], TINY["hidden_size"]


def ids_of(n_docs: int = B, n_steps: int = T) -> Tensor:
    return torch.randint(2, V, (n_docs, n_steps))


def encoder(**options: float) -> AWDLSTM:
    return AWDLSTM(V, **{**TINY, **options})


def ref_forward(model: AWDLSTM, ids: Tensor) -> Tensor:
    """Compute what the encoder computes in evaluation, by plain `nn.LSTM` layers."""
    x = model.embedding.weight[ids]
    for n, n_out in enumerate([H, E]):
        lstm = nn.LSTM(x.shape[2], n_out, batch_first=True)
        prefix = f"rnns.{n}.module."
        lstm.load_state_dict({k.removeprefix(prefix): w for k, w in model.state_dict().items() if k.startswith(prefix)})
        x, _ = lstm(x)
    return x


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_sizes_make_an_encoder_as_wide_as_its_embedding(size: str):
    model = AWDLSTM(V, **SIZES[size])
    assert len(model.rnns) == SIZES[size]["n_layers"]
    assert model(ids_of()).shape == (B, T, SIZES[size]["emb_size"])


def test_base_has_the_shapes_of_fastai():
    with torch.device("meta"):
        model = LanguageModel(V, **SIZES["base"])
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes["encoder.rnns.0.module.weight_ih_l0"] == (4608, 400)
    assert shapes["encoder.rnns.1.module.weight_hh_l0"] == (4608, 1152)
    assert shapes["encoder.rnns.2.module.weight_ih_l0"] == (1600, 1152)
    assert shapes["encoder.rnns.2.module.weight_hh_l0"] == (1600, 400)


def test_one_layer_is_allowed_and_none_is_not():
    assert encoder(n_layers=1)(ids_of()).shape == (B, T, E)
    with pytest.raises(ValueError, match="n_layers is 0"):
        encoder(n_layers=0)


def test_embedding_starts_uniform_with_a_zero_pad_row():
    weight = AWDLSTM(1000, **TINY).embedding.weight
    assert (weight[PAD_ID] == 0).all()
    assert 0.099 < weight.abs().max() <= 0.1
    assert weight.mean().item() == pytest.approx(0, abs=0.001)


def test_evaluation_equals_a_stack_of_plain_lstms():
    model, ids = encoder().eval(), ids_of()
    torch.testing.assert_close(model(ids), ref_forward(model, ids))


def test_training_without_dropout_equals_evaluation():
    model, ids = encoder(hidden_p=0, input_p=0, embed_p=0, weight_p=0), ids_of()
    torch.testing.assert_close(model.train()(ids), ref_forward(model, ids))


@pytest.mark.parametrize("name", ["hidden_p", "input_p", "embed_p", "weight_p"])
def test_each_dropout_acts_in_training(name: str):
    off = dict.fromkeys(["hidden_p", "input_p", "embed_p", "weight_p"], 0.0)
    model, ids = encoder(**{**off, name: 0.5}), ids_of()
    assert not torch.allclose(model(ids), ref_forward(model, ids))


def test_hidden_dropout_is_not_on_the_last_output():
    assert (encoder(hidden_p=0.9)(ids_of()) != 0).all()


def test_two_windows_equal_one_long_window():
    model, ids = encoder().eval(), ids_of(n_steps=2 * T)
    ref = model(ids)
    model.reset()
    comp = torch.cat([model(ids[:, :T]), model(ids[:, T:])], dim=1)
    torch.testing.assert_close(comp, ref)


def test_no_gradient_flows_from_one_window_to_the_one_before():
    model = encoder(embed_p=0)
    model(torch.full((1, 3), 5))
    model(torch.full((1, 3), 6)).sum().backward()
    grad = model.embedding.weight.grad
    assert grad is not None
    assert (grad[6] != 0).any()
    assert (grad[5] == 0).all()


def test_another_batch_size_starts_from_zeros():
    model, ids = encoder().eval(), ids_of()
    ref = model(ids)
    model(ids_of(n_docs=B + 1))
    assert torch.equal(model(ids), ref)
    assert not torch.equal(model(ids), ref)


def test_carried_state_resumes_exactly_in_another_model():
    model, ids = encoder().eval(), ids_of(n_steps=2 * T)
    model(ids[:, :T])
    carried = model.carried_state()
    other = encoder().eval()
    other.load_state_dict(model.state_dict())
    other.load_carried_state(carried)
    assert sorted(carried) == ["c0", "c1", "h0", "h1"]
    assert carried["h0"].shape == (1, B, H)
    assert torch.equal(other(ids[:, T:]), model(ids[:, T:]))


def test_no_state_is_carried_before_the_first_window_or_after_reset():
    model = encoder()
    assert model.carried_state() == {}
    model(ids_of())
    assert model.carried_state()
    assert not any("state" in name or name.startswith(("h", "c")) for name in model.state_dict())
    model.load_carried_state({})
    assert model.carried_state() == {}


def test_carried_state_of_another_model_is_refused():
    model, deeper = encoder(), encoder(n_layers=3)
    deeper(ids_of())
    with pytest.raises(ValueError, match="this model needs"):
        model.load_carried_state(deeper.carried_state())


def test_carried_state_follows_the_model_to_another_dtype():
    model, ids = encoder().eval(), ids_of(n_steps=2 * T)
    model(ids[:, :T])
    ref = model(ids[:, T:])
    model.reset()
    model(ids[:, :T])
    comp = model.double()(ids[:, T:])
    assert comp.dtype == torch.float64
    torch.testing.assert_close(comp.float(), ref)


def test_training_can_follow_inference_mode():
    model = encoder()
    with torch.inference_mode():
        model.eval()(ids_of())
    model.train()(ids_of()).sum().backward()
    assert model.embedding.weight.grad is not None


def test_language_model_returns_output_before_and_after_dropout():
    model, ids = LanguageModel(V, **TINY, output_p=0.5), ids_of()
    scores, raw, dropped = model(ids)
    assert scores.logits().shape == (B, T, V) and dropped is scores.output
    assert raw.shape == dropped.shape == (B, T, E)
    is_dropped = (dropped == 0).all(dim=1)  # whole features of a document: (B, E)
    assert 0.35 < is_dropped.double().mean() < 0.65
    torch.testing.assert_close(dropped, raw * 2 * ~is_dropped[:, None])
    torch.testing.assert_close(scores.logits(), dropped @ model.encoder.embedding.weight.T + model.decoder.bias)


def test_first_loss_is_that_of_a_guess():
    model, ids = LanguageModel(1000, **TINY), torch.randint(1000, (16, 21))
    logits = model(ids[:, :-1]).logits
    loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(1000), abs=0.05)


def test_every_parameter_gets_a_gradient():
    model, ids = LanguageModel(V, **TINY), ids_of()
    F.cross_entropy(model(ids).logits.flatten(0, 1), ids.flatten()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_one_batch_can_be_learned_by_heart():
    model, ids = LanguageModel(V, **TINY, **scaled_dropouts(LM_DROPOUTS, 0)), ids_of(n_docs=2, n_steps=12)
    opt = torch.optim.Adam(model.parameters(), lr=1e-2)
    loss = torch.tensor(math.inf)
    for _ in range(400):
        model.reset()
        loss = F.cross_entropy(model(ids[:, :-1]).logits.flatten(0, 1), ids[:, 1:].flatten())
        opt.zero_grad()
        loss.backward()
        opt.step()
    assert loss.item() < 0.1


def test_language_model_delegates_its_state():
    model = LanguageModel(V, **TINY).eval()
    model(ids_of())
    carried = model.carried_state()
    assert carried.keys() == model.encoder.carried_state().keys()
    model.reset()
    assert model.carried_state() == {}
    model.load_carried_state(carried)
    assert torch.equal(model.carried_state()["h1"], carried["h1"])


def test_state_dict_holds_each_matrix_once_and_survives_safetensors(tmp_path: Path):
    model, ids = LanguageModel(V, **TINY).eval(), ids_of()
    weights = model.state_dict()
    assert sum(tensor.shape == (V, E) for tensor in weights.values()) == 1
    save_file(weights, tmp_path / "model.safetensors")
    other = LanguageModel(V, **TINY).eval()
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(other(ids).logits, model(ids).logits)


def test_default_dropouts_are_those_of_the_tables():
    for make, table in [(LanguageModel, LM_DROPOUTS), (AWDLSTM, LM_DROPOUTS), (TextClassifier, CLASSIFIER_DROPOUTS)]:
        options = inspect.signature(make).parameters
        assert {k: options[k].default for k in table if k in options} == {k: table[k] for k in table if k in options}


def test_scaled_dropouts_multiplies_all_five():
    assert scaled_dropouts(LM_DROPOUTS, 1) == LM_DROPOUTS
    assert scaled_dropouts(CLASSIFIER_DROPOUTS, 0.5) == {
        "output_p": 0.2,
        "hidden_p": 0.15,
        "input_p": 0.2,
        "embed_p": 0.025,
        "weight_p": 0.25,
    }


@pytest.mark.parametrize("drop_mult", [-0.1, 2.0, 3.5])
def test_scaled_dropouts_refuses_what_leaves_the_range(drop_mult: float):
    with pytest.raises(ConfigError, match="expected 0 <= drop_mult < 2"):
        scaled_dropouts(CLASSIFIER_DROPOUTS, drop_mult)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_trains_and_carries_its_state_on_a_gpu(dtype: torch.dtype):
    model, ids = LanguageModel(V, **TINY).cuda(), ids_of().cuda()
    model(ids)
    for _ in range(2):
        with torch.autocast("cuda", dtype):
            logits = model(ids).logits
        F.cross_entropy(logits.float().flatten(0, 1), ids.flatten()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert torch.isfinite(model.eval()(ids).logits).all()
