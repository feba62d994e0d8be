"""The goal of this script is to measure what each idea of ULMFiT is worth here, on IMDB: the same training without it.

    ULMPIPE_DATA=../shared/data python bench/ablation.py --pretrained models/wiki-lm [--tuned models/imdb/lm]
                                                                              -> bench/results/ablation.json

What is compared differs in one thing only, and has the same seeds, labelled reviews, tests and number of epochs (Howard and
Ruder 2018, section 5). Three language models of IMDB's texts are made, once each, in `--work`: tuned from the pretrained one,
trained from nothing, and the pretrained one as it is under IMDB's vocabulary. Then each arm trains a classifier on one of them
for each seed. What is measured is written at once, and not measured again with the same command.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the repository, in the place of bench/

import argparse
from functools import partial
from typing import Any

from bench import record
from bench.command import about_model, classify, classify_command, run_training, some_reviews
from ulmpipe.console import log

NAME = "ablation"
ARMS = {  # by name: the language model, options of the classifier's training
    "all of it": ("tuned", ""),
    "without pretraining": ("scratch", ""),
    "without tuning the language model": ("untuned", ""),
    "without gradual unfreezing": ("tuned", "--no-gradual"),
    "without discriminative rates": ("tuned", "--layer-factor 1"),
    "without texts whose labels are guessed": ("tuned", "--no-self-training"),
    "without words and pairs beside the network": ("tuned", "--no-ngrams"),
}


def language_models(args: argparse.Namespace) -> dict[str, Path]:
    """The folders of the three language models, made where they are not there.

    From nothing there are no steps of the words alone, so that all layers have one epoch more. Untuned, the pretrained
    one is only carried over to the words of IMDB.
    """
    ways = {
        "tuned": f"--from {{pretrained}} --lm-epochs {args.lm_epochs}",
        "scratch": f"--from none --size {args.size} --lm-epochs {args.lm_epochs + 1}",
        "untuned": "--from {pretrained} --lm-epochs 0",
    }
    found = {"tuned": args.tuned} if args.tuned else {}
    for name, words in ways.items():
        if name in found:
            continue
        folder = args.work / f"ablation-{name}"
        found[name] = folder / "lm"
        if not (found[name] / "manifest.json").exists():
            command = " ".join(f"finetune imdb --stage lm {words} -o {{out}} {args.lm_options}".split())
            made = run_training(command, found[name], pretrained=args.pretrained, out=folder)
            kept = ("command", "valid_loss", "share_mapped", "wall_s", "peak_rss_mb", "resumed")
            record.add_point(NAME, {"made": name}, {key: made[key] for key in kept})
    return found


def measure(args: argparse.Namespace, models: dict[str, Path]) -> None:
    """All points that are not there yet, seed by seed."""
    about: dict[str, Any] = {name: about_model(folder) for name, folder in models.items()}
    for n_labels in args.labels:
        for seed in range(args.seeds):
            for arm, (model, options) in ARMS.items():
                key = {"arm": arm, "n_labels": n_labels, "seed": seed}
                words = " ".join(f"--n-labels {n_labels} --seed {seed} {options} {args.options}".split())
                given = {
                    "command": f"ulmpipe {classify_command(words)}",
                    "language_model": about[model],
                    "test": args.test.name,
                }
                measure_it = partial(classify, models[model], words, args.work / f"ablation-classifier-{seed}", args.test)  # fmt: skip
                if found := record.measure_once(NAME, key, given, measure_it):
                    log(f"{arm}, {n_labels:,} labels, seed {seed}: {found['accuracy']:.4f}")


def main() -> None:
    """Make the language models, then measure what is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained", type=Path, required=True, help="a language model of other texts")
    parser.add_argument("--tuned", type=Path, help="the same tuned on IMDB, if it is there already")
    parser.add_argument("--labels", type=int, nargs="+", default=[2000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", default="small", help="of the model from nothing: as the pretrained one")
    parser.add_argument("--lm-epochs", type=int, default=1)
    parser.add_argument("--lm-options", default="", help="options of all three language models, in one string")
    parser.add_argument("--options", default="", help="options of all classifiers, in one string")
    parser.add_argument("--n-test", type=int, default=2500, help="reviews that all arms are tested on")
    parser.add_argument("--work", type=Path, default=Path("models/bench"), help="for models and tokens")
    args = parser.parse_args()
    record.where()
    args.work, args.pretrained = args.work.resolve(), args.pretrained.resolve()
    args.tuned = args.tuned and args.tuned.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    args.test = some_reviews(args.work, args.n_test)
    measure(args, language_models(args))


if __name__ == "__main__":
    main()
