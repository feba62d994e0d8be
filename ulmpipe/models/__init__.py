"""The networks: AWD-LSTM, the language model and the text classifier on it, and the transfer from one to the other.

In reading order: `cells` (the LSTM written out, as a reference), `dropout`, `scores` (of a large vocabulary, and their
loss), `awd_lstm` (encoder and language model), `heads` (classifier), `ngrams` (words and pairs beside it), `transfer`
(weights from model to model), `fastai_names` (theirs to ours); and of a model that is trained: `inference` (many documents
at once), `explain` (which words), `quantize` (int8 to compute in), `packed` (8 bits to keep weights in). Tensors in, tensors
out: nothing here knows of text, files or training, and only torch is imported.
"""

from .awd_lstm import (
    AWDLSTM,
    CLASSIFIER_DROPOUTS,
    LM_DROPOUTS,
    SIZES,
    Dropouts,
    LanguageModel,
    LinearDecoder,
    LMOutput,
    Sizes,
    scaled_dropouts,
)
from .cells import GRUCell, LSTMCell, Recurrent
from .dropout import EmbeddingDropout, RNNDropout, WeightDropout, dropout_mask
from .heads import PoolingLinearClassifier, SentenceEncoder, TextClassifier, concat_pool
from .scores import WordScores
from .transfer import (
    classifier_groups,
    language_model_groups,
    load_encoder,
    match_bias,
    match_embeddings,
    transfer_language_model,
)

__all__ = [
    "AWDLSTM",
    "CLASSIFIER_DROPOUTS",
    "LM_DROPOUTS",
    "SIZES",
    "Dropouts",
    "EmbeddingDropout",
    "GRUCell",
    "LMOutput",
    "LSTMCell",
    "LanguageModel",
    "LinearDecoder",
    "PoolingLinearClassifier",
    "RNNDropout",
    "Recurrent",
    "SentenceEncoder",
    "Sizes",
    "TextClassifier",
    "WeightDropout",
    "WordScores",
    "classifier_groups",
    "concat_pool",
    "dropout_mask",
    "language_model_groups",
    "load_encoder",
    "match_bias",
    "match_embeddings",
    "scaled_dropouts",
    "transfer_language_model",
]
