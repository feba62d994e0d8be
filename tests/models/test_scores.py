"""Scores of a large vocabulary: the plain formulation gives the same loss, gradients and best words."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ulmpipe.models import SIZES, LanguageModel, WordScores
from ulmpipe.models import scores as module
from ulmpipe.models.scores import sampled_words

B, T, E, V = 3, 11, 8, 300


Parts = tuple[Tensor, Tensor, Tensor]  # output, weight, bias


def parts(dtype: torch.dtype = torch.float64, scale: float = 1.0) -> tuple[Parts, Tensor]:
    torch.manual_seed(0)
    output, weight, bias = (torch.randn(shape, dtype=dtype) * scale for shape in ((B, T, E), (V, E), (V,)))
    return (output.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()), torch.randint(V, (B, T))


def grads(tensors: Parts, loss: Tensor) -> list[Tensor]:
    return [g.clone() for g in torch.autograd.grad(loss, tensors)]


def ref_cross_entropy(output: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(output, weight, bias).flatten(0, 1), target.flatten())


@pytest.fixture(params=[1, 4, 7, B * T, 1000])
def rows_a_block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(module, "BLOCK_BYTES", request.param * V * 8)
    monkeypatch.setattr(module, "CACHE_BYTES", 3 * V * 8)
    return request.param


def test_loss_and_gradients_equal_the_plain_ones(rows_a_block: int):
    tensors, target = parts()
    ref, comp = ref_cross_entropy(*tensors, target), WordScores(*tensors).cross_entropy(target)
    torch.testing.assert_close(comp, ref, rtol=1e-12, atol=0)
    for comp_grad, ref_grad in zip(grads(tensors, 3.5 * comp), grads(tensors, 3.5 * ref), strict=True):
        torch.testing.assert_close(comp_grad, ref_grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])  # 30: scores of some thousands, where a softmax is 0 or 1
def test_float32_is_as_exact_as_the_plain_form(scale: float):
    tensors, target = parts(torch.float32, scale)
    output, weight, bias = (t.detach().double().requires_grad_() for t in tensors)
    wide = output, weight, bias
    ref, plain, comp = (
        ref_cross_entropy(*wide, target),
        ref_cross_entropy(*tensors, target),
        WordScores(*tensors).cross_entropy(target),
    )
    assert abs(comp.item() - ref.item()) <= 2 * abs(plain.item() - ref.item()) + 1e-5 * ref.item()
    for comp_grad, ref_grad in zip(grads(tensors, comp), grads(wide, ref), strict=True):
        torch.testing.assert_close(comp_grad.double(), ref_grad, rtol=1e-3, atol=1e-6 * scale)


def test_only_gradients_that_are_asked_for_are_computed(monkeypatch: pytest.MonkeyPatch):
    products = []
    monkeypatch.setattr(module, "_add_product", lambda *args: products.append(args))
    tensors, target = parts()
    WordScores(*tensors).cross_entropy(target).backward()
    assert len(products) == 1
    tensors[1].requires_grad_(False)
    WordScores(*tensors).cross_entropy(target).backward()
    with torch.no_grad():
        WordScores(*parts()[0]).cross_entropy(target)
    assert len(products) == 1


def test_gradients_of_half_precision_keep_what_is_small():
    """Thousands of positions, and words that are no target: their gradient is far below what fp16 holds unscaled."""
    torch.manual_seed(0)
    n, v, scale = 4096, 3000, 65536.0
    output, weight, bias = (torch.randn(shape) * 0.3 for shape in ((1, n, E), (v, E), (v,)))
    tensors = output.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()
    target = torch.randint(10, (1, n))
    ref = grads(tensors, ref_cross_entropy(output.double(), weight.double(), bias.double(), target))
    with torch.autocast("cpu", dtype=torch.float16):
        comp = grads(tensors, scale * WordScores(*tensors).cross_entropy(target))
    error = (comp[1][10:].double() / scale - ref[1][10:]).norm() / ref[1][10:].norm()
    assert error < 0.01


def test_a_loss_is_back_propagated_once():
    tensors, target = parts()
    loss = WordScores(*tensors).cross_entropy(target)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="compute it again"):
        loss.backward()


@pytest.mark.parametrize("with_loss", [False, True])
def test_best_words_equal_those_of_the_logits(with_loss: bool, rows_a_block: int):
    tensors, target = parts()
    scores = WordScores(*tensors)
    with torch.no_grad():
        ref_loss = ref_cross_entropy(*tensors, target)
        assert not with_loss or torch.isclose(scores.cross_entropy(target), ref_loss)
    assert torch.equal(scores.argmax(dim=-1), scores.logits().argmax(dim=-1))
    assert torch.equal(scores.argmax(dim=2), scores.argmax()) and torch.equal(scores.cpu(), scores.logits())
    for dim in (0, 3):
        with pytest.raises(ValueError, match="expected -1"):
            scores.argmax(dim=dim)


def test_autocast_computes_products_in_its_type_and_sums_in_float32():
    tensors, target = parts(torch.float32)
    ref = ref_cross_entropy(*tensors, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        comp = WordScores(*tensors).cross_entropy(target)
        assert WordScores(*tensors).argmax().shape == target.shape
    assert comp.dtype == torch.float32
    assert comp.item() == pytest.approx(ref.item(), rel=1e-2)
    for comp_grad, ref_grad in zip(grads(tensors, comp), grads(tensors, ref), strict=True):
        assert comp_grad.dtype == torch.float32
        assert F.cosine_similarity(comp_grad.flatten(), ref_grad.flatten(), dim=0) > 0.999


class Largest(TorchDispatchMode):
    """Remember the largest tensor that any operation made."""

    n_elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.n_elements = max(self.n_elements, tensor.numel())
        return out


def test_no_tensor_of_all_scores_is_ever_made(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * V * 4)
    tensors, target = parts(torch.float32)
    with Largest() as comp:
        WordScores(*tensors).cross_entropy(target).backward()
    with Largest() as ref:
        ref_cross_entropy(*tensors, target).backward()
    assert ref.n_elements == B * T * V
    assert comp.n_elements <= max(4 * V, V * E)


def test_language_model_learns_as_with_the_plain_loss():
    """Two steps of one model by each way, dropout and tied weights included."""
    losses, weights = [], []
    for plain in (False, True):
        torch.manual_seed(1)
        model = LanguageModel(V, **SIZES["tiny"]).double()
        opt = torch.optim.AdamW(model.parameters(), lr=1e-2)
        ids = torch.randint(V, (B, T + 1))
        for _ in range(2):
            out = model(ids[:, :-1])
            target = ids[:, 1:]
            if plain:
                loss = F.cross_entropy(out.logits.flatten(0, 1), target.flatten())
            else:
                loss = out.scores.cross_entropy(target)
            loss.backward()
            opt.step()
            opt.zero_grad()
            losses.append(loss.item())
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert losses[:2] == pytest.approx(losses[2:], rel=1e-9)
    torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-9)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_on_a_gpu_it_equals_the_cpu(dtype: torch.dtype):
    tensors, target = parts(torch.float32)
    ref = ref_cross_entropy(*tensors, target)
    output, weight, bias = (t.detach().cuda().requires_grad_() for t in tensors)
    there = output, weight, bias
    with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
        comp = WordScores(*there).cross_entropy(target.cuda())
    assert comp.item() == pytest.approx(ref.item(), rel=2e-2)
    for comp_grad, ref_grad in zip(grads(there, comp * 1024), grads(tensors, ref * 1024), strict=True):
        assert F.cosine_similarity(comp_grad.cpu().flatten(), ref_grad.flatten(), dim=0) > 0.99


# ---- some words for all ---------------------------------------------------------------------------------------------


def test_sampled_loss_is_that_of_its_words_and_weights(monkeypatch: pytest.MonkeyPatch):
    tensors, target = parts()
    words, log_weight = sampled_words(target, V, 40)
    monkeypatch.setattr(module, "sampled_words", lambda *args: (words, log_weight.double()))
    output, weight, bias = tensors
    place = torch.tensor([words.tolist().index(word) for word in target.flatten().tolist()])
    ref = F.cross_entropy((F.linear(output, weight, bias)[..., words] + log_weight).flatten(0, 1), place)
    comp = WordScores(*tensors).sampled_cross_entropy(target, 40)
    torch.testing.assert_close(comp, ref)
    for comp_grad, ref_grad in zip(grads(tensors, comp), grads(tensors, ref), strict=True):
        torch.testing.assert_close(comp_grad, ref_grad)


def test_words_of_a_step_are_the_targets_the_frequent_and_some_that_stand_for_the_others():
    target = torch.tensor([[3, 250], [250, 99]])
    words, log_weight = sampled_words(target, V, 40)
    assert len(set(words.tolist())) == len(words) == 20 + 2 + 20
    assert set(range(20)) | {250, 99} == set(words[log_weight == 0].tolist())
    assert log_weight.exp().sum().item() == pytest.approx(V)


def test_sum_over_the_vocabulary_is_estimated_without_bias():
    torch.manual_seed(0)
    scores, target = torch.randn(V, dtype=torch.float64), torch.tensor([7, 211])
    draws = []
    for _ in range(4000):
        words, log_weight = sampled_words(target, V, 60)
        draws.append((scores[words] + log_weight).exp().sum())
    estimate = torch.stack(draws)
    error = estimate.std() / len(draws) ** 0.5
    assert abs(estimate.mean() - scores.exp().sum()) < 4 * error and error < 0.01 * scores.exp().sum()


@pytest.mark.parametrize("n_words", [V, V + 1])
def test_no_fewer_words_than_there_are_is_the_loss_itself(n_words: int):
    tensors, target = parts()
    comp, ref = WordScores(*tensors).sampled_cross_entropy(target, n_words), WordScores(*tensors).cross_entropy(target)
    assert comp.item() == ref.item()


def test_a_batch_that_names_every_word_leaves_none_to_draw():
    words, log_weight = sampled_words(torch.arange(V), V, 4)
    assert words.tolist() == list(range(V)) and not log_weight.any()
