"""The goal of this script is to let real fastai build, train and save what `bench/import_fastai.py` imports (DESIGN 8).

    PEER_PYTHON bench/peers_import.py FOLDER

Writes into FOLDER: `vocab.pkl`, the files of `learn.save` (with and without the optimiser), `save_encoder` and of
`torch.save(learn.model.state_dict())`, and `expected.npz`: `ids` (B, T), `logits` of the language model in evaluation mode,
and `encoder_logits`, those without the decoder's bias. Imports nothing of ulmpipe.
"""

import contextlib
import json
import pickle
import random
import sys
from pathlib import Path

sys.path.pop(0)  # bench/: nothing of it is for this environment

import numpy as np
import pandas as pd
import torch
from fastai import __version__
from fastai.text.all import AWD_LSTM, TextDataLoaders, awd_lstm_lm_config, language_model_learner, set_seed

WORDS = ("river", "stone", "light", "Window", "garden", "slow", "green", "TALL", "walks", "sings", "keeps", "the", "a")
SIZES = {"emb_sz": 40, "n_hid": 56, "n_layers": 3}


def main():
    """Build, train a little, save, and say what the model answers."""
    folder = Path(sys.argv[1])
    set_seed(12)
    rng = random.Random(12)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(20, 60))) + "." for _ in range(120)]
    with contextlib.redirect_stdout(sys.stderr):  # what fastai prints is no JSON
        dls = TextDataLoaders.from_df(pd.DataFrame({"text": texts}), text_col="text", is_lm=True, bs=8, seq_len=12, path=folder)  # fmt: skip
        learn = language_model_learner(
            dls, AWD_LSTM, config={**awd_lstm_lm_config, **SIZES}, pretrained=False, path=folder, model_dir="."
        )
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(2, 1e-2)
        learn.save("with_opt")
        learn.save("plain", with_opt=False)
        learn.save_encoder("encoder")
        torch.save(learn.model.state_dict(), folder / "state_dict.pth")
        with open(folder / "vocab.pkl", "wb") as file:
            pickle.dump(list(dls.vocab), file)
        model = learn.model.cpu().eval()
        model.reset()
        ids = torch.randint(0, len(dls.vocab), (4, 50))
        with torch.no_grad():
            logits, output, _ = model(ids)
        encoder_logits = output @ model[0].encoder.weight.T
    np.savez(folder / "expected.npz", ids=ids, logits=logits, encoder_logits=encoder_logits.detach())
    found = {"fastai": __version__, "torch": torch.__version__, "vocab_size": len(dls.vocab), "n_fake": list(dls.vocab).count("xxfake"), **SIZES}  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
