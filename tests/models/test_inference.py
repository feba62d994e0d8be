"""`classify` gives the logits of `TextClassifier.forward`, for any mixture of lengths, and of a document alone."""

import pytest
import torch
from torch import Tensor

from ulmpipe.models import SIZES, TextClassifier
from ulmpipe.models import inference as module
from ulmpipe.models.inference import MAX_STEPS, classify

V, C, PAD_ID = 30, 3, 1


def batch(lengths: list[int]) -> tuple[Tensor, Tensor]:
    ids = torch.full((len(lengths), max(1, *lengths)), PAD_ID)
    for row, n in zip(ids, lengths, strict=True):
        row[:n] = torch.randint(2, V, (n,))
    return ids, torch.tensor(lengths)


@pytest.fixture
def model() -> TextClassifier:
    return TextClassifier(V, C, **SIZES["tiny"], bptt=8).eval()


@pytest.mark.parametrize(
    "lengths", [[1], [0, 5], [0, 0], [MAX_STEPS, MAX_STEPS + 1, 1], [3, 150, 2, 150, 70], [200], list(range(60))]
)
def test_logits_are_those_of_the_forward_pass(model: TextClassifier, lengths: list[int]):
    ids, n_tokens = batch(lengths)
    with torch.no_grad():
        ref = model(ids, n_tokens)
    torch.testing.assert_close(classify(model, ids, n_tokens), ref, rtol=0, atol=1e-6)


@pytest.mark.parametrize("positions", [1, 40, 10**6])
def test_size_of_a_step_changes_nothing(model: TextClassifier, monkeypatch: pytest.MonkeyPatch, positions: int):
    ids, lengths = batch([90, 7, 30, 64, 1, 65])
    ref = classify(model, ids, lengths)
    monkeypatch.setattr(module, "POSITIONS", positions)
    torch.testing.assert_close(classify(model, ids, lengths), ref, rtol=0, atol=1e-6)


def test_document_is_classified_as_if_it_were_alone(model: TextClassifier):
    ids, lengths = batch([50, 3, 121, 8, 0])
    together = classify(model, ids, lengths)
    alone = torch.cat([classify(model, ids[i : i + 1, : max(1, n)], lengths[i : i + 1]) for i, n in enumerate(lengths.tolist())])  # fmt: skip
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_next_to_no_padded_step_is_computed(model: TextClassifier):
    ids, lengths = batch([400] + [20] * 30)
    n_positions = 0

    def count(rnn: torch.nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal n_positions
        n_positions += given[0].numel()

    model.encoder.rnn.register_forward_hook(count)
    classify(model, ids, lengths)
    assert lengths.sum() <= n_positions < 1.15 * lengths.sum() < ids.numel() / 9


def test_state_is_left_fresh_and_not_taken_up(model: TextClassifier):
    ids, lengths = batch([9, 30])
    ref = classify(model, ids, lengths)
    assert model.encoder.rnn.carried_state() == {}
    with torch.no_grad():
        model.encoder.rnn(ids)
    assert torch.equal(classify(model, ids, lengths), ref)


def test_training_mode_is_refused(model: TextClassifier):
    with pytest.raises(ValueError, match="training mode"):
        classify(model.train(), *batch([3]))
