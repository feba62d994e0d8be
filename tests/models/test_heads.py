"""The classifier: padding changes nothing, pooling looks at real steps only, chunks equal the whole."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from ulmpipe.models import (
    AWDLSTM,
    CLASSIFIER_DROPOUTS,
    SIZES,
    PoolingLinearClassifier,
    SentenceEncoder,
    TextClassifier,
    concat_pool,
    scaled_dropouts,
)
from ulmpipe.models.heads import Standardize

V, C, PAD_ID, BPTT = 30, 3, 1, 8
TINY = SIZES["tiny"]
E = TINY["emb_size"]


def documents(lengths: list[int]) -> list[Tensor]:
    return [torch.randint(2, V, (length,)) for length in lengths]


def padded(docs: list[Tensor]) -> tuple[Tensor, Tensor]:
    ids = torch.nn.utils.rnn.pad_sequence(docs, batch_first=True, padding_value=PAD_ID)
    return ids, torch.tensor([len(doc) for doc in docs])


def classifier() -> TextClassifier:
    return TextClassifier(V, C, **TINY, bptt=BPTT)


def ref_concat_pool(output: Tensor, lengths: Tensor) -> Tensor:
    real = [doc[: max(1, int(length))] for doc, length in zip(output, lengths, strict=True)]
    return torch.stack([torch.cat([doc[-1], doc.max(dim=0).values, doc.mean(dim=0)]) for doc in real])


def test_concat_pool_equals_one_document_after_the_other():
    output, lengths = torch.randn(6, 11, E), torch.tensor([11, 1, 5, 8, 10, 2])
    torch.testing.assert_close(concat_pool(output, lengths), ref_concat_pool(output, lengths))


def test_concat_pool_does_not_look_at_pads():
    output, lengths = torch.randn(2, 5, E), torch.tensor([3, 5])
    ref = concat_pool(output, lengths)
    output[0, 3:] = float("nan")
    assert torch.equal(concat_pool(output, lengths), ref)


def test_concat_pool_takes_an_empty_document_for_one_of_length_one():
    output = torch.randn(2, 4, E, requires_grad=True)
    comp = concat_pool(output, torch.tensor([0, 4]))
    torch.testing.assert_close(comp[0], output[0, 0].repeat(3))
    comp.sum().backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()


def test_concat_pool_keeps_half_precision_and_sums_in_single():
    comp = concat_pool(torch.full((1, 5000, 1), 0.7).half(), torch.tensor([5000]))
    assert comp.dtype == torch.float16
    torch.testing.assert_close(comp, torch.full((1, 3), 0.7).half())


@pytest.mark.parametrize("n_steps", [1, BPTT - 1, BPTT, BPTT + 1, 3 * BPTT])
def test_chunks_equal_one_pass(n_steps: int):
    rnn = AWDLSTM(V, **TINY).eval()
    ids, lengths = padded(documents([n_steps, 1]))
    ref = rnn(ids)
    comp = SentenceEncoder(rnn, bptt=BPTT)(ids, lengths)
    torch.testing.assert_close(comp, ref)
    assert rnn.carried_state() == {}


def test_sentence_encoder_starts_afresh_at_each_batch():
    encoder = SentenceEncoder(AWDLSTM(V, **TINY).eval(), bptt=BPTT)
    batch = padded(documents([20, 9]))
    ref = encoder(*batch)
    encoder.rnn(batch[0])
    assert torch.equal(encoder(*batch), ref)


def test_sentence_encoder_leaves_out_steps_that_nobody_needs():
    encoder = SentenceEncoder(AWDLSTM(V, **TINY).eval(), bptt=BPTT)
    ids, lengths = padded(documents([BPTT + 2, 3]))
    ref = encoder(ids, lengths)
    comp = encoder(F.pad(ids, (0, 50), value=PAD_ID), lengths)
    assert torch.equal(comp[:, : BPTT + 2], ref)
    assert comp.shape[1] == BPTT + 52
    assert (comp[:, BPTT + 2 :] == 0).all()


def test_sentence_encoder_refuses_a_bptt_below_one():
    with pytest.raises(ValueError, match="bptt is 0"):
        SentenceEncoder(AWDLSTM(V, **TINY), bptt=0)


def test_a_padded_batch_equals_each_document_alone():
    model = classifier().eval()
    random_lengths = torch.randint(2, 60, (6,)).tolist()
    docs = documents([1, BPTT, 3 * BPTT, BPTT + 1, 2, *random_lengths])
    comp = model(*padded(docs))
    ref = torch.cat([model(*padded([doc])) for doc in docs])
    assert comp.shape == (len(docs), C)
    torch.testing.assert_close(comp, ref, rtol=0, atol=1e-6)


def test_more_padding_changes_nothing():
    model = classifier().eval()
    ids, lengths = padded(documents([13, 30, 4]))
    ref = model(ids, lengths)
    torch.testing.assert_close(model(F.pad(ids, (0, 21), value=PAD_ID), lengths), ref, rtol=0, atol=1e-6)


def test_an_empty_document_is_classified():
    model = classifier().eval()
    ids, _ = padded(documents([5, 5]))
    assert model(ids, torch.tensor([0, 5])).isfinite().all()
    assert model(torch.full((1, 1), PAD_ID), torch.tensor([0])).isfinite().all()


def test_head_is_built_as_in_the_paper_but_for_its_norms():
    kinds = [type(layer).__name__ for layer in PoolingLinearClassifier(E, C).layers]
    assert kinds == ["Standardize", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]


def test_features_are_standardized_by_what_was_measured():
    features = torch.randn(50, 4) * torch.tensor([1.0, 10, 0, 1e3]) + torch.tensor([0.0, 5, 7, 1e4])
    standardize = Standardize(4)
    assert torch.equal(standardize(features), features)
    standardize.measure(features)
    ref = (features - features.mean(dim=0)) / features.std(dim=0, correction=0)
    torch.testing.assert_close(standardize(features)[:, [0, 1, 3]], ref[:, [0, 1, 3]], rtol=1e-4, atol=1e-4)
    assert (standardize(features)[:, 2] == 0).all() and standardize.std[2] > 1e-3  # it never changes
    assert not list(standardize.parameters()) and set(standardize.state_dict()) == {"mean", "std"}


def test_a_document_is_trained_on_as_if_it_were_alone():
    """No statistics of a batch: they would be those of documents of like length."""
    model = TextClassifier(V, C, **TINY, bptt=BPTT, **scaled_dropouts(CLASSIFIER_DROPOUTS, 0), head_p=0).train()
    ids, lengths = padded(documents([12, 20, 3]))
    together = model(ids, lengths)
    for i, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(model(ids[i : i + 1, :n], lengths[i : i + 1])[0], together[i], rtol=1e-4, atol=1e-5)


def test_every_parameter_gets_a_gradient():
    model = classifier()
    F.cross_entropy(model(*padded(documents([12, 30, 25, 1]))), torch.tensor([0, 1, 2, 0])).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_one_batch_can_be_learned_by_heart():
    model = TextClassifier(V, C, **TINY, bptt=BPTT, **scaled_dropouts(CLASSIFIER_DROPOUTS, 0), head_p=0)
    ids, lengths = padded(documents([12, 20, 15, 3, 7, 18]))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    model.head.layers[0].measure(concat_pool(model.encoder(ids, lengths), lengths))  # pyright: ignore[reportCallIssue]
    opt = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(25):
        loss = F.cross_entropy(model(ids, lengths), labels)
        opt.zero_grad()
        loss.backward()
        opt.step()
    assert F.cross_entropy(model(ids, lengths), labels).item() < 0.05


def test_state_dict_survives_safetensors(tmp_path: Path):
    model, batch = classifier().eval(), padded(documents([12, 30]))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = classifier().eval()
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(other(*batch), model(*batch))
