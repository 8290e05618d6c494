from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn import functional

from fedssl.models.networks.resnet import BasicBlock

NARROW = """
import torch
from fedssl.models.networks.resnet import BasicBlock
torch.set_num_threads({threads})
block = BasicBlock({width}, 16, 2, "batch").to(memory_format=torch.channels_last)
for _ in range({steps}):
    x = torch.randn(3, {width}, {side}, {side}).to(memory_format=torch.channels_last)
    block(x).sum().backward()
"""


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    file = Path(__file__).parents[4] / "benchmarks" / "conv_sweep.py"
    spec = importlib.util.spec_from_file_location("conv_sweep", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "conv_sweep", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("side", [7, 64])
@pytest.mark.parametrize("width", [2, 4, 8, 15, 16])
def test_a_shortcut_is_a_strided_convolution_however_narrow(width: int, side: int) -> None:
    block = BasicBlock(width, 16, 2, "batch")
    conv = block.shortcut[0]
    x = torch.randn(3, width, side, side, generator=torch.Generator().manual_seed(0))
    expected = functional.conv2d(x.double(), conv.weight.double(), stride=2)
    assert torch.allclose(conv(x).double(), expected, rtol=0, atol=1e-5)
    assert next(iter(block.shortcut.state_dict())) == "0.weight"
    assert (type(conv) is torch.nn.Conv2d) == (width == 16)


@pytest.mark.parametrize(("side", "batch"), [(28, 10), (32, 3), (44, 2), (65, 1)])
@pytest.mark.parametrize("width", [8, 12])
@pytest.mark.usefixtures("one_thread")
def test_where_nothing_overruns_the_bits_are_those_of_the_strided_convolution(
    width: int, side: int, batch: int
) -> None:
    conv = BasicBlock(width, 16, 2, "batch").to(memory_format=torch.channels_last).shortcut[0]
    x = torch.randn(batch, width, side, side).to(memory_format=torch.channels_last).requires_grad_()
    made, expected = conv(x), functional.conv2d(x, conv.weight, stride=2)
    weight = torch.randn_like(made)
    assert made.stride() == expected.stride()
    assert torch.equal(made, expected)
    for ours, theirs in zip(*(torch.autograd.grad(y, (x, conv.weight), weight) for y in (made, expected)), strict=True):
        assert ours.stride() == theirs.stride()
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("isa", "width", "side", "threads", "steps"),
    [
        ("AVX2", 4, 28, 1, 50),
        ("DEFAULT", 8, 64, 1, 5),
        ("DEFAULT", 8, 28, 2, 50),
    ],
)
def test_narrow_blocks_train_to_the_end(isa: str, width: int, side: int, threads: int, steps: int) -> None:
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": isa}
    code = NARROW.format(width=width, side=side, threads=threads, steps=steps)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("isa", ["DEFAULT", "AVX2"])
def test_no_shortcut_dies_or_has_wrong_gradients(sweep: ModuleType, isa: str, threads: int) -> None:
    shapes = itertools.product([1, 3, 4, 6, 7, 8, 12, 15, 16], [8, 16, 33], [28, 46, 65, 96], [1, 3])
    assert sweep.sweep([sweep.Probe(*shape) for shape in shapes], ours=True, threads=threads, isa=isa) == []
