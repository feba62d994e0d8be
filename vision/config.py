"""The options of `python -m vision`: one frozen dataclass for each command, as in `ulmpipe.config`."""

from dataclasses import dataclass

from ulmpipe.options import option

ARCHS = tuple(f"xresnet{n}" for n in (18, 34, 50, 101, 152))  # without torch, so that --help is soon there


@dataclass(frozen=True)
class ReadConfig:
    """How a source of pictures is read."""

    image_column: str = option("", "column of a table that holds the pictures; default: image, img or picture")
    label_column: str = option("", "column of a table that holds the labels; default: label, labels or class")
    workers: int = option(0, "processes that decode pictures; 0: as many as processors", bound="0 or more")


@dataclass(frozen=True)
class FitConfig(ReadConfig):
    """What training and transfer have in common."""

    size: int | None = option(None, "pixels of a picture as the network sees it; default: 128, less where pictures are small", bound="more than 0")  # fmt: skip
    batch_size: int = option(64, "pictures in a batch", bound="2 or more")
    mixup: float = option(0.0, "alpha of MixUp; 0: none. It pays with few pictures or many epochs", bound="0 or more")
    smooth: float = option(0.1, "label smoothing", bound="0 to 1")
    flip: bool | None = option(None, "mirror training pictures; default: yes, but not for digits")
    min_scale: float = option(0.35, "smallest share of a picture that a training view shows", bound="between 0 and 1")
    weight_decay: float = option(0.05, "decoupled weight decay", bound="0 or more")
    precision: str = option("auto", "number format in training; auto: bf16 where the processor is made for it", choices=("auto", "fp32", "bf16", "fp16"))  # fmt: skip
    device: str = option("auto", "auto, cpu or cuda", offered=("auto", "cpu", "cuda"))
    seed: int = option(0, "of everything random", bound="0 or more")
    valid: str | None = option(None, "SOURCE of validation pictures; default: the source's own, or some held out")
    valid_fraction: float = option(0.2, "share of the pictures that is held out where there are no others", bound="between 0 and 1")  # fmt: skip
    cache: str = option("auto", "keep decoded pictures on disk; auto: where they fill less than half of what is free", choices=("auto", "always", "never"))  # fmt: skip
    checkpoint_steps: int = option(500, "write a checkpoint every so many steps; the last one is kept", bound="more than 0")  # fmt: skip
    resume: bool = option(False, "go on from the output's checkpoint")
    report: bool = option(True, "write report.html into the model folder when it is done: see ulmpipe report")
    note: str | None = option(None, "what the journal shall say of this run: see ulmpipe journal")


@dataclass(frozen=True)
class TrainConfig(FitConfig):
    """A network from nothing."""

    arch: str = option("xresnet18", "network", choices=ARCHS)
    epochs: int = option(12, "times the pictures are seen", bound="more than 0")
    lr: float = option(5e-3, "highest learning rate", bound="more than 0")
    first_size: int | None = option(None, "pixels of the first epochs' pictures, which grow to --size; default: half of it", bound="more than 0")  # fmt: skip


@dataclass(frozen=True)
class TransferConfig(FitConfig):
    """A new head on a trained network, then all of it."""

    head_epochs: int = option(
        3, "epochs of the head and the batch norms, the rest of the body frozen", bound="0 or more"
    )
    epochs: int = option(5, "epochs of the whole network", bound="0 or more")
    head_lr: float = option(1e-2, "highest learning rate of the head", bound="more than 0")
    lr: float = option(5e-3, "the same once all is trained", bound="more than 0")
    layer_factor: float = option(10.0, "the body's learning rate is the head's divided by this", bound="more than 0")
