"""The network against the papers it is made of: its size, shapes, tricks and first weights."""

import pytest
import reference
import torch
from colours import tiny
from torch import nn

from vision.xresnet import (
    ARCHS,
    FASTAI_STEM,
    LESSON_STEM,
    ResBlock,
    XResNet,
    build,
    make_stem,
)

BLOCKS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}


def n_parameters(model: nn.Module) -> int:
    return sum(param.numel() for param in model.parameters())


@pytest.mark.parametrize("stem", [LESSON_STEM, FASTAI_STEM])
@pytest.mark.parametrize("depth", BLOCKS)
def test_number_of_parameters_is_that_of_the_formula(depth: int, stem: tuple[int, ...]):
    with torch.device("meta"):
        comp = n_parameters(build(f"xresnet{depth}", c_out=1000, stem=stem))
    assert comp == reference.xresnet_parameters(BLOCKS[depth], 1 if depth < 50 else 4, list(stem), 1000)


def test_xresnet50_is_as_large_as_that_of_fastai():
    with torch.device("meta"):
        assert n_parameters(build("xresnet50", c_out=1000, stem=FASTAI_STEM)) == 25_576_264


def test_depth_counts_the_layers():
    for name, (blocks, expansion) in ARCHS.items():
        assert name == f"xresnet{sum(blocks) * (2 if expansion == 1 else 3) + 2}"


@pytest.mark.parametrize("height, width", [(32, 32), (33, 33), (50, 32), (63, 65), (97, 97), (128, 128), (160, 160)])
@pytest.mark.parametrize("expansion", [1, 4])
@pytest.mark.parametrize("avg_pool", [True, False])
def test_any_size_of_picture_goes_through(height: int, width: int, expansion: int, avg_pool: bool):
    model = XResNet((1, 1, 1, 1), expansion, c_out=7, stem=(4, 8, 8), widths=(8, 8, 8, 8), avg_pool=avg_pool).eval()
    with torch.no_grad():
        x = torch.randn(2, 3, height, width)
        assert model(x).shape == (2, 7)
        features = model.stages(model.stem(x))
    assert features.shape == (2, 8 * expansion, -(-height // 32), -(-width // 32))


def blocks_of(model: nn.Module) -> list[ResBlock]:
    return [module for module in model.modules() if isinstance(module, ResBlock)]


@pytest.mark.parametrize("expansion", [1, 4])
@pytest.mark.parametrize("training", [True, False])
def test_each_block_begins_as_its_shortcut(expansion: int, training: bool):
    for block in blocks_of(tiny(expansion=expansion).train(training)):
        first = block.convs.get_submodule("0.0")
        assert isinstance(first, nn.Conv2d)
        x = torch.randn(4, first.in_channels, 9, 9)
        assert torch.equal(block(x), block.shortcut(x).relu())


def test_without_zero_bn_blocks_begin_as_more():
    block = blocks_of(tiny(zero_bn=False))[0]
    x = torch.randn(4, 8, 9, 9)
    assert not torch.allclose(block(x), block.shortcut(x).relu())
    norms = [module for module in tiny(zero_bn=False).modules() if isinstance(module, nn.BatchNorm2d)]
    assert all((norm.weight == 1).all() for norm in norms)


def test_stride_is_in_the_3x3_convolution_of_a_bottleneck():
    block = ResBlock(8, 4, expansion=4, stride=2)
    convs = [module for module in block.convs.modules() if isinstance(module, nn.Conv2d)]
    assert [(conv.kernel_size, conv.stride) for conv in convs] == [((1, 1), (1, 1)), ((3, 3), (2, 2)), ((1, 1), (1, 1))]


def test_shortcut_averages_before_its_convolution():
    block = ResBlock(8, 16, expansion=1, stride=2)
    pool, narrow = block.shortcut[0], block.shortcut.get_submodule("1.0")
    assert isinstance(pool, nn.AvgPool2d) and pool.kernel_size == 2 and pool.ceil_mode
    assert isinstance(narrow, nn.Conv2d) and (narrow.kernel_size, narrow.stride) == ((1, 1), (1, 1))


def test_without_avg_pool_the_shortcut_is_a_convolution_with_the_stride():
    block = ResBlock(8, 16, expansion=1, stride=2, avg_pool=False)
    kinds = [type(module) for module in block.shortcut.modules()]
    assert nn.AvgPool2d not in kinds and block.shortcut.get_submodule("0.0").stride == (2, 2)
    assert len(ResBlock(8, 8, expansion=1, stride=2, avg_pool=False).shortcut) == 1  # as wide as before, but smaller


def test_shortcut_of_what_changes_nothing_is_empty():
    assert len(ResBlock(8, 8, expansion=1).shortcut) == 0
    assert len(ResBlock(32, 8, expansion=4).shortcut) == 0


def test_stem_of_three_convolutions_or_of_one():
    three = [module for module in make_stem(3, (4, 6, 8)).modules() if isinstance(module, nn.Conv2d)]
    assert [(conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0]) for conv in three] == [
        (3, 4, 3, 2),
        (4, 6, 3, 1),
        (6, 8, 3, 1),
    ]
    (one,) = [module for module in make_stem(1, (8,)).modules() if isinstance(module, nn.Conv2d)]
    assert (one.in_channels, one.kernel_size, one.stride) == (1, (7, 7), (2, 2))
    for widths in [(4, 6, 8), (8,)]:
        assert make_stem(3, widths)(torch.randn(2, 3, 32, 32)).shape == (2, 8, 8, 8)


def test_weights_begin_as_kaiming_has_them():
    for module in build("xresnet18").modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            ref = (2 / module.weight[0].numel()) ** 0.5
            assert module.weight.std().item() == pytest.approx(ref, rel=0.1)
        if isinstance(module, nn.Conv2d):
            assert module.bias is None
    assert (tiny().head.bias == 0).all()


def test_weights_are_those_of_the_seed():
    x = torch.randn(2, 3, 32, 32)
    ref, comp, other = tiny(seed=3).eval()(x), tiny(seed=3).eval()(x), tiny(seed=4).eval()(x)
    assert torch.equal(ref, comp) and not torch.equal(ref, other)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="no network 'xresnet19'"):
        build("xresnet19")
    with pytest.raises(TypeError, match="colour"):
        build("xresnet18", colour=1)
    with pytest.raises(ValueError, match="shorter"):
        XResNet((1, 1), widths=(8,))
