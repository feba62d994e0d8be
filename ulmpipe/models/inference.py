"""Classify many documents at once, when nothing is trained: what `TextClassifier` computes, sooner and in little memory.

    ids (B, L), lengths (B,) -> longest first -> a few steps of all documents that still go on -> pooled so far -> logits (B, C)

A document leaves the batch where it ends, so there are next to no padded steps and no need to batch by length; pooling
goes along, so no (B, L, E) is held. The forward pass of heads.py stays the reference. Does not tokenize or pad.
"""

from bisect import bisect_left

import torch
from torch import Tensor

from .heads import TextClassifier

POSITIONS = 4096  # of a call of the encoder: large matrix products, and gates that are not much larger than a cache
MIN_STEPS, MAX_STEPS = 8, 64  # of a call: the fewer, the less is computed behind the end of documents


@torch.inference_mode()
def classify(model: TextClassifier, ids: Tensor, lengths: Tensor) -> Tensor:
    """Take ids (B, L) int64, padded at the end, and lengths (B,) int64; return logits (B, C) float32.

    The model must be in evaluation mode. Any number of documents of any lengths are one batch: memory is that of ids.
    """
    return model.joined(model.head.layers(pooled(model, ids, lengths)), ids, lengths).float()


@torch.inference_mode()
def pooled(model: TextClassifier, ids: Tensor, lengths: Tensor) -> Tensor:
    """What `concat_pool` makes of the same, (B, 3E) float32: all that the head reads of a document.

    The model must be in evaluation mode. Any number of documents of any lengths are one batch: memory is that of ids.
    """
    if model.training:
        raise ValueError("the model is in training mode, expected evaluation mode: call model.eval()")
    order = lengths.argsort(descending=True, stable=True)
    ids, steps = ids[order], lengths[order].clamp(min=1)  # an empty document counts as one pad, as in concat_pool
    rising = steps.flip(0).tolist()
    last = ids.new_zeros(len(ids), model.encoder.rnn.emb_size, dtype=torch.float32)  # (B, E)
    total, maximum = torch.zeros_like(last), torch.full_like(last, float("-inf"))
    model.encoder.rnn.reset()
    begin = 0
    while begin < rising[-1]:
        n_ended = bisect_left(rising, begin + 1)
        n = len(rising) - n_ended  # documents that go on: the first n
        until = rising[n_ended + n // 8]  # where an eighth of them will have ended
        n_steps = max(MIN_STEPS, min(until - begin, MAX_STEPS, POSITIONS // n))
        _keep_rows(model, n)
        output = model.encoder.rnn(ids[:n, begin : begin + n_steps]).float()  # (n, T, E)
        left = steps[:n] - begin  # (n,)
        is_pad = (torch.arange(output.shape[1], device=ids.device) >= left[:, None])[:, :, None]  # (n, T, 1)
        last[:n] = output[torch.arange(n, device=ids.device), left.clamp(max=output.shape[1]) - 1]
        total[:n] += output.masked_fill(is_pad, 0).sum(dim=1)
        maximum[:n] = maximum[:n].maximum(output.masked_fill(is_pad, float("-inf")).amax(dim=1))
        begin += n_steps
    model.encoder.rnn.reset()
    return torch.cat([last, maximum, total / steps[:, None]], dim=1)[order.argsort()]  # (B, 3E)


def _keep_rows(model: TextClassifier, n: int) -> None:
    """Let the first n rows of the carried state go on."""
    carried = model.encoder.rnn.carried_state()
    model.encoder.rnn.load_carried_state({name: state[:, :n] for name, state in carried.items()})
