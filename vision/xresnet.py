"""xresnet: ResNet with the changes of "Bag of Tricks" (He et al. 2018), as the lesson builds it. Tensors in, logits out.

    stem      three 3x3 convolutions, the first of stride 2, then max pooling        (ResNet-C)
    stages    blocks; of a bottleneck the 3x3 convolution has the stride             (ResNet-B)
              the shortcut averages over 2x2 before its 1x1 convolution              (ResNet-D)
              the last batch norm of a block begins at 0: each block begins as its shortcut
    head      average over the picture, one linear layer

A plain module without training or data; `transfer.py` takes it apart, `learner.py` trains it.
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

LESSON_STEM = (32, 64, 64)  # fast.ai's course
FASTAI_STEM = (32, 32, 64)  # fastai v2; weights do not go from one to the other
STAGE_WIDTHS = (64, 128, 256, 512)

# Blocks in each stage, and how many times wider a block's output is than its inside.
ARCHS = {
    "xresnet18": ((2, 2, 2, 2), 1),
    "xresnet34": ((3, 4, 6, 3), 1),
    "xresnet50": ((3, 4, 6, 3), 4),
    "xresnet101": ((3, 4, 23, 3), 4),
    "xresnet152": ((3, 8, 36, 3), 4),
}


def conv(n_in: int, n_out: int, kernel_size: int = 3, stride: int = 1) -> nn.Conv2d:
    """Make a convolution that keeps the size at stride 1; without bias, a batch norm follows."""
    return nn.Conv2d(n_in, n_out, kernel_size, stride, padding=kernel_size // 2, bias=False)


def conv_layer(
    n_in: int, n_out: int, kernel_size: int = 3, stride: int = 1, *, zero_bn: bool = False, act: bool = True
) -> nn.Sequential:
    """Make convolution, batch norm and, with `act`, ReLU. `zero_bn` starts the norm's weight at 0."""
    norm = nn.BatchNorm2d(n_out)
    nn.init.constant_(norm.weight, 0.0 if zero_bn else 1.0)
    return nn.Sequential(conv(n_in, n_out, kernel_size, stride), norm, *([nn.ReLU(inplace=True)] if act else []))


class ResBlock(nn.Module):
    """`relu(convs(x) + shortcut(x))`: (B, n_in, H, W) -> (B, expansion * width, H / stride, W / stride), rounded up.

    Two 3x3 convolutions where `expansion` is 1, else 1x1, 3x3, 1x1, with `width` channels inside. `avg_pool=False` is
    the shortcut of the plain ResNet, a 1x1 convolution with the stride.
    """

    def __init__(
        self, n_in: int, width: int, *, expansion: int, stride: int = 1, zero_bn: bool = True, avg_pool: bool = True
    ):
        super().__init__()
        n_out = expansion * width
        if expansion == 1:
            layers = [conv_layer(n_in, width, 3, stride), conv_layer(width, n_out, 3, zero_bn=zero_bn, act=False)]
        else:
            layers = [
                conv_layer(n_in, width, 1),
                conv_layer(width, width, 3, stride),
                conv_layer(width, n_out, 1, zero_bn=zero_bn, act=False),
            ]
        self.convs = nn.Sequential(*layers)
        pool = [nn.AvgPool2d(2, ceil_mode=True)] if stride != 1 and avg_pool else []
        conv_stride = stride if not avg_pool else 1
        narrow = [] if n_in == n_out and conv_stride == 1 else [conv_layer(n_in, n_out, 1, conv_stride, act=False)]
        self.shortcut = nn.Sequential(*pool, *narrow)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, n_in, H, W) float."""
        return self.act(self.convs(x) + self.shortcut(x))


class XResNet(nn.Sequential):
    """The whole network: (B, c_in, H, W) float -> (B, c_out) logits. Modules `stem`, `stages`, `pool`, `flatten`, `head`.

    `stem` lists the widths of the three convolutions; a stem of one is the plain ResNet's 7x7 convolution. `zero_bn` and
    `avg_pool` switch the tricks off, for comparisons. H and W may be anything from 32 on.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        expansion: int = 1,
        *,
        c_in: int = 3,
        c_out: int = 10,
        stem: Sequence[int] = LESSON_STEM,
        widths: Sequence[int] = STAGE_WIDTHS,
        zero_bn: bool = True,
        avg_pool: bool = True,
    ):
        block = partial(ResBlock, expansion=expansion, zero_bn=zero_bn, avg_pool=avg_pool)
        stages = []
        n_in = stem[-1]
        for number, (n_blocks, width) in enumerate(zip(blocks, widths, strict=True)):
            first = block(n_in, width, stride=1 if number == 0 else 2)
            n_in = expansion * width
            stages.append(nn.Sequential(first, *(block(n_in, width) for _ in range(n_blocks - 1))))
        super().__init__()
        self.stem = make_stem(c_in, stem)
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(n_in, c_out)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.head.bias)


def make_stem(c_in: int, widths: Sequence[int]) -> nn.Sequential:
    """Make the first layers: (B, c_in, H, W) -> (B, widths[-1], H / 4, W / 4)."""
    if len(widths) == 1:
        layers = [conv_layer(c_in, widths[0], 7, 2)]
    else:
        pairs = zip([c_in, *widths], widths, strict=False)
        layers = [conv_layer(a, b, 3, 2 if number == 0 else 1) for number, (a, b) in enumerate(pairs)]
    return nn.Sequential(*layers, nn.MaxPool2d(3, 2, 1))


def build(arch: str, **options) -> XResNet:
    """Make a network by name, with fresh weights from torch's generator; `options` are those of `XResNet`."""
    if arch not in ARCHS:
        raise ValueError(f"there is no network {arch!r}, expected one of {', '.join(ARCHS)}")
    blocks, expansion = ARCHS[arch]
    return XResNet(blocks, expansion, **options)
