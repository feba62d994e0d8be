"""Weights from model to model: rows follow their words, misfits are refused by name, groups hold everything once."""

import pytest
import torch
from torch import Tensor, nn

from ulmpipe.errors import UlmpipeError, VocabMismatchError
from ulmpipe.models import (
    SIZES,
    LanguageModel,
    TextClassifier,
    classifier_groups,
    language_model_groups,
    load_encoder,
    match_bias,
    match_embeddings,
    transfer_language_model,
)

TINY = SIZES["tiny"]
OLD = ["xxunk", "xxpad", "the", "film", "was"]
NEW = ["xxunk", "xxpad", "film", "superb", "the", "plot"]


def language_model(n_words: int, **sizes: int) -> LanguageModel:
    return LanguageModel(n_words, **{**TINY, **sizes}).eval()


def test_match_embeddings_moves_rows_with_their_words():
    weight = torch.tensor([[1.0, 10], [99, 99], [2, 20], [3, 30], [4, 40]])
    comp, share = match_embeddings(weight, OLD, NEW)
    ref = [[1, 10], [0, 0], [3, 30], [2.5, 25], [2, 20], [2.5, 25]]  # mean of all but xxpad for the new words
    assert comp.tolist() == ref
    assert share == 3 / 5
    assert weight[1].tolist() == [99, 99]  # the old weight is not touched


def test_match_embeddings_to_the_same_words_is_the_identity():
    weight = torch.randn(5, 3)
    weight[1] = 0
    comp, share = match_embeddings(weight, OLD, OLD)
    assert torch.equal(comp, weight)
    assert share == 1


def test_match_embeddings_without_a_common_word():
    comp, share = match_embeddings(torch.ones(5, 3).half(), OLD, ["xxpad", "a", "b"])
    assert share == 0
    assert comp.dtype == torch.float16
    assert comp.tolist() == [[0] * 3, [1] * 3, [1] * 3]


def test_match_bias_moves_entries_with_their_words():
    comp = match_bias(torch.tensor([1.0, -9, 2, 3, 4]), OLD, NEW)
    assert comp.tolist() == [1, -9, 3, 2.5, 2, 2.5]


@pytest.mark.parametrize("match", [match_embeddings, match_bias])
def test_match_refuses_words_that_are_not_those_of_the_rows(match):
    with pytest.raises(VocabMismatchError, match="has 4 rows but the vocabulary has 5 words"):
        match(torch.ones(4, 3), OLD, NEW)


def test_transfer_keeps_the_scores_of_the_words_in_both():
    old, new = language_model(len(OLD)), language_model(len(NEW))
    nn.init.uniform_(old.decoder.bias)
    share = transfer_language_model(new, old.state_dict(), OLD, NEW)
    text = ["the", "film", "xxunk", "film"]
    ref = old(torch.tensor([[OLD.index(word) for word in text]])).logits
    comp = new(torch.tensor([[NEW.index(word) for word in text]])).logits
    assert share == 3 / 5
    for word in ["the", "film", "xxunk"]:
        torch.testing.assert_close(comp[..., NEW.index(word)], ref[..., OLD.index(word)])


def test_transfer_refuses_a_model_made_for_other_words():
    with pytest.raises(VocabMismatchError, match="the new model has 9 rows but the vocabulary has 6 words"):
        transfer_language_model(language_model(9), language_model(5).state_dict(), OLD, NEW)


@pytest.mark.parametrize(
    "sizes",
    [{"hidden_size": 32}, {"n_layers": 3}, {"n_layers": 1}, {"emb_size": 32}],
    ids=lambda sizes: next(iter(sizes)),
)
def test_transfer_names_the_sizes_that_do_not_fit(sizes: dict[str, int]):
    old, new = language_model(len(OLD), **sizes), language_model(len(NEW))
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    found = {**TINY, **sizes}
    message = (
        f"have emb_size {found['emb_size']}, .*n_layers {found['n_layers']}, the model emb_size 48, hidden_size 64"
    )
    with pytest.raises(UlmpipeError, match=message):
        transfer_language_model(new, old.state_dict(), OLD, NEW)
    assert all(torch.equal(tensor, before[name]) for name, tensor in new.state_dict().items())


def test_transfer_refuses_weights_of_another_kind():
    with pytest.raises(UlmpipeError, match="lack encoder.embedding.weight, decoder.bias and hold 0.encoder.weight"):
        transfer_language_model(language_model(6), {"0.encoder.weight": torch.ones(5, 48)}, OLD, NEW)


def test_load_encoder_gives_the_classifier_the_outputs_of_the_language_model():
    lm, classifier = language_model(30), TextClassifier(30, 2, **TINY, bptt=4).eval()
    head = {name: tensor.clone() for name, tensor in classifier.head.state_dict().items()}
    load_encoder(classifier, lm.state_dict())
    ids = torch.randint(2, 30, (3, 10))
    torch.testing.assert_close(classifier.encoder(ids, torch.full((3,), 10)), lm(ids).raw_output)
    assert all(torch.equal(tensor, head[name]) for name, tensor in classifier.head.state_dict().items())


def test_load_encoder_copies():
    lm, classifier = language_model(30), TextClassifier(30, 2, **TINY)
    load_encoder(classifier, lm.state_dict())
    nn.init.zeros_(lm.encoder.embedding.weight)
    assert classifier.encoder.rnn.embedding.weight.any()


def test_load_encoder_refuses_another_vocabulary():
    with pytest.raises(VocabMismatchError, match="the language model knows 31 words, the classifier 30"):
        load_encoder(TextClassifier(30, 2, **TINY), language_model(31).state_dict())


def without(weights: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if name != key}


def test_load_encoder_names_what_is_missing_and_what_is_misshapen():
    classifier, weights = TextClassifier(30, 2, **TINY), language_model(30).state_dict()
    with pytest.raises(UlmpipeError, match="rnns.1.module.bias_hh_l0 is missing"):
        load_encoder(classifier, without(weights, "encoder.rnns.1.module.bias_hh_l0"))
    with pytest.raises(UlmpipeError, match="lack encoder.embedding.weight"):
        load_encoder(classifier, without(weights, "encoder.embedding.weight"))
    with pytest.raises(UlmpipeError, match=r"rnns.0.module.bias_ih_l0 is \(7,\), expected \(256,\)"):
        load_encoder(classifier, {**weights, "encoder.rnns.0.module.bias_ih_l0": torch.ones(7)})


def names_of(model: nn.Module, groups: list[list[nn.Parameter]]) -> list[set[str]]:
    """Return the modules that each group comes from, after a check that it holds every parameter exactly once."""
    flat = [id(parameter) for group in groups for parameter in group]
    assert len(flat) == len(set(flat))
    assert set(flat) == {id(parameter) for parameter in model.parameters()}
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    return [{name_of[id(parameter)].rsplit(".", 2)[0] for parameter in group} for group in groups]


def test_language_model_groups_end_with_the_words():
    model = language_model(30, n_layers=3)
    comp = names_of(model, language_model_groups(model))
    assert comp == [{"encoder.rnns.0"}, {"encoder.rnns.1"}, {"encoder.rnns.2"}, {"encoder", "decoder"}]


def test_classifier_groups_begin_with_the_words_and_end_with_the_head():
    model = TextClassifier(30, 2, **TINY)
    comp = names_of(model, classifier_groups(model))
    assert comp == [{"encoder.rnn"}, {"encoder.rnn.rnns.0"}, {"encoder.rnn.rnns.1"}, {"head.layers"}]
