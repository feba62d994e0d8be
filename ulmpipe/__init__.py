"""ulmpipe: raw text in, a trained ULMFiT text classifier out, with spaCy-exact tokens.

    source -> plan -> rules + tokenizer -> vocab -> Arrow store -> batches -> AWD-LSTM -> Learner -> task -> model folder
              `------------------ ulmpipe/text -------------------------'   ulmpipe/models  ulmpipe/train  ulmpipe/tasks

Letters in shape comments, everywhere: `B` batch, `T` tokens in a window (bptt), `L` tokens in a document,
`V` vocabulary, `E` embedding, `H` hidden, `C` classes, `N` documents.
"""

from typing import Any

__version__ = "0.1.0"

# What `import ulmpipe` offers, and the module of each. Loaded on first use: the import itself stays light.
_MODULES = {
    "tokenize": "tasks.tokenize",
    "pretrain": "tasks.pretrain",
    "finetune": "tasks.finetune",
    "evaluate": "tasks.evaluate",
    "predict": "tasks.predict",
    "from_pretrained": "tasks.predict",
    "serve": "tasks.serve",
    "strongest": "tasks.predict",
    "export": "tasks.export",
    "push": "tasks.push",
    "verify": "tasks.verify",
    "import_fastai": "tasks.import_fastai",
    "doctor": "tasks.doctor",
    "report": "tasks.report",
    "info": "machine",
    "demo": "tasks.demo",
    "Pretrained": "tasks.model_folder",
    "Prediction": "tasks.predict",
    "Predictor": "tasks.predict",
    "TokenStore": "text.store",
    "Rules": "text.rules",
    "PRESETS": "text.rules",
    "scope": "text.rules",
}
__all__ = [*_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'ulmpipe' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
