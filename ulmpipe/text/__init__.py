"""Text to token ids: sources, rules, the tokenizer, the vocabulary, the Arrow store, batches.

    source.py -> documents.py -> rules.py + tokenizer.py -> shards.py -> vocab.py, store.py -> batches.py (kernels.py)

Nothing here imports torch but `batches.py`, which hands tensors to the Learner.
"""
