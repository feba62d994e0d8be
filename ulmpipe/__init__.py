"""ulmpipe: raw text in, a trained ULMFiT text classifier out, with spaCy-exact tokens.

    source -> plan -> rules + tokenizer -> vocab -> Arrow store -> batches -> AWD-LSTM -> Learner -> task -> model folder
              `------------------ ulmpipe/text -------------------------'   ulmpipe/models  ulmpipe/train  ulmpipe/tasks

Letters in shape comments, everywhere: `B` batch, `T` tokens in a window (bptt), `L` tokens in a document,
`V` vocabulary, `E` embedding, `H` hidden, `C` classes, `N` documents.
"""

__version__ = "0.1.0"
