from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from fedssl.models.networks.resnet import BasicBlock

NARROW = """
import torch
from fedssl.models.networks.resnet import BasicBlock
torch.set_num_threads(1)
block = BasicBlock({width}, 8, 2, "batch").to(memory_format=torch.channels_last)
for _ in range(50):
    x = torch.randn(8, {width}, 28, 28).to(memory_format=torch.channels_last)
    block(x).sum().backward()
"""


@pytest.mark.parametrize("width", [2, 4, 8])
def test_a_shortcut_is_a_strided_convolution_however_narrow(width: int) -> None:
    block = BasicBlock(width, 16, 2, "batch")
    conv = block.shortcut[0]
    x = torch.randn(3, width, 7, 7, generator=torch.Generator().manual_seed(0))
    expected = functional.conv2d(x.double(), conv.weight.double(), stride=2)
    assert torch.allclose(conv(x).double(), expected, rtol=0, atol=1e-6)
    assert next(iter(block.shortcut.state_dict())) == "0.weight"
    assert (type(conv) is torch.nn.Conv2d) == (width == 8)


@pytest.mark.parametrize("width", [4, 6])
def test_narrow_blocks_are_trained_on_processors_with_avx2_alone(width: int) -> None:
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", NARROW.format(width=width)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
