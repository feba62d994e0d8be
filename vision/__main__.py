"""`python -m vision train|transfer|evaluate|predict`: a thin skin over train.py and evaluate.py."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from ulmpipe import command
from ulmpipe.command import Device, Json, Model, Quiet, finish, print_json, with_options
from ulmpipe.console import log, set_quiet
from ulmpipe.errors import QUARANTINED

from . import config

app = typer.Typer(
    name="vision",
    help="Pictures in, a trained xresnet out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Source = Annotated[str, typer.Argument(help="folder of class folders, table, or name (imagenette, imagewoof, pets, cifar10, digits)")]  # fmt: skip
Out = Annotated[str | None, typer.Option("--out", "-o", help="output folder; default: models/ and the source's name")]


@app.command()
@with_options(config.TrainConfig)
def train(
    source: Source = "digits", *, out: Out = None, json: Json = False, quiet: Quiet = False, options: Any
) -> None:
    """Train a network from nothing."""
    set_quiet(quiet)
    from .train import train as run

    _finish_fit(run(source, out, **options), json)


@app.command()
@with_options(config.TransferConfig)
def transfer(
    source: Source,
    *,
    from_model: Annotated[str, typer.Option("--from", help="model folder to start from")],
    out: Out = None,
    json: Json = False,
    quiet: Quiet = False,
    options: Any,
) -> None:
    """Put a new head on a trained network, and train it on other pictures."""
    set_quiet(quiet)
    from .train import transfer as run

    _finish_fit(run(source, from_model, out, **options), json)


def _finish_fit(result: Any, json: bool) -> None:
    lines = (
        f"accuracy {result.accuracy:.4f} on {result.n_valid:,} held-out pictures, after {result.n_train:,} of {len(result.classes)} classes",
        f"{result.out}  {result.seconds:.0f} s, {result.images_per_s:,.0f} pictures/s in {result.precision}",
    )
    finish(result, lines, as_json=json, n_quarantined=result.n_quarantined)


@app.command()
@with_options(config.ReadConfig)
def evaluate(
    model: Model,
    source: Source,
    *,
    device: Device = "auto",
    tta: Annotated[bool, typer.Option(help="average over each picture and its mirror image")] = False,
    json: Json = False,
    quiet: Quiet = False,
    options: Any,
) -> None:
    """Say how good a network is on pictures it has not seen."""
    set_quiet(quiet)
    from .data import log_quarantined
    from .evaluate import evaluate as run

    result = run(model, source, device=device, tta=tta, **options)
    lines = [f"accuracy {result.accuracy:.4f}, macro F1 {result.f1_macro:.4f} on {result.n:,} pictures"]
    lines += [f"  {label}: F1 {f1:.4f}" for label, f1 in result.f1.items()]
    lines += ["confusion (rows: truth, columns: prediction)"]
    lines += ["  " + "".join(f"{n:>7}" for n in row) + f"  {label}" for row, label in zip(result.confusion, result.labels, strict=True)]  # fmt: skip
    log_quarantined(result.quarantined)
    finish(result, lines, as_json=json, n_quarantined=result.n_quarantined)


@app.command()
def predict(
    model: Model,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE ...", help="pictures, or folders of pictures")],
    *,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Predict the classes of pictures, with probabilities."""
    set_quiet(quiet)
    from .evaluate import predict as run

    n_failed = 0
    for prediction in run(model, images, device=device):
        n_failed += prediction.label is None
        if json:
            print_json(asdict(prediction))
        elif prediction.label is None:
            log(f"{prediction.path}: {prediction.reason}")
        else:
            typer.echo(f"{prediction.label}\t{prediction.probability:.3f}\t{prediction.path}")
    if n_failed:
        raise typer.Exit(QUARANTINED)


def main() -> None:
    """Run `python -m vision`."""
    command.run(app, "python -m vision", resumable=("train", "transfer"))


if __name__ == "__main__":
    main()
