from __future__ import annotations

import pytest
import torch

from fedssl.models.networks.detector import CrossStage, Detector, PyramidPooling

NANO = (16, [1, 1, 1, 1], 1)
PICO = (8, [1, 1, 1, 1], 1)
LARGE = (64, [3, 6, 9, 3], 3)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def meta(num_classes, width, depths, neck_depth):
    with torch.device("meta"):
        return Detector(640, num_classes, width, depths, neck_depth)


@pytest.mark.parametrize(
    ("sizes", "num_classes", "expected"),
    [
        (NANO, 4, (953_568, 710_784, 12_177)),
        (PICO, 4, (239_984, 178_752, 6_129)),
        (LARGE, 5, (26_582_912, 19_523_072, 53_850)),
    ],
)
def test_parts_have_the_known_number_of_parameters(sizes, num_classes, expected):
    model = meta(num_classes, *sizes)
    assert (count(model.backbone), count(model.neck), count(model.head)) == expected
    assert count(model) == sum(expected)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((16, [1, 2, 3, 1], 1), 1_872_157),
        ((32, [1, 2, 3, 1], 1), 7_235_389),
        (LARGE, 46_563_709),
    ],
)
def test_published_sizes_of_the_layout_are_met(sizes, expected):
    assert count(meta(80, *sizes)) == expected


def test_every_tensor_belongs_to_one_part():
    model = meta(4, *PICO)
    parts = [{f"{part}.{name}" for name in getattr(model, part).state_dict()} for part in ("backbone", "neck", "head")]
    assert set.union(*parts) == set(model.state_dict())
    assert sum(map(len, parts)) == len(model.state_dict())
    assert "head.anchors" in parts[2]


def test_maps_and_boxes_have_the_known_shapes():
    model = Detector(224, 4, 2, [1, 1, 1, 1], 1).eval()
    x = torch.zeros(2, 3, 224, 224).to(memory_format=torch.channels_last)
    with torch.no_grad():
        maps = model(x)
        decoded = model.decode(maps)
    assert [tuple(level.shape) for level in maps] == [(2, 3, 28, 28, 9), (2, 3, 14, 14, 9), (2, 3, 7, 7, 9)]
    assert decoded.boxes.shape == (2, 2352 + 588 + 147, 4)
    assert decoded.objectness.shape == (2, 3087)
    assert decoded.class_probability.shape == (2, 3087, 4)


def test_decoding_follows_level_anchor_row_column():
    model = Detector(64, 2, 1, [1, 1, 1, 1], 1)
    maps = [torch.zeros(1, 3, side, side, 7) for side in (8, 4, 2)]
    maps[1][0, 2, 3, 1, 4:] = torch.tensor([50.0, -50.0, 0.0])
    boxes, objectness, probability = model.decode(maps)
    place = 3 * 64 + 2 * 16 + 3 * 4 + 1
    assert objectness[0].argmax() == place
    assert objectness[0, place] == 1
    torch.testing.assert_close(probability[0, place], torch.tensor([0.0, 0.5]))
    # Column 1 and row 3 of stride 16; the anchor 59 x 119 of 640 pixels at 64.
    expected = torch.tensor([24 - 2.95, 56 - 5.95, 24 + 2.95, 56 + 5.95])
    torch.testing.assert_close(boxes[0, place], expected)


def test_an_output_moves_with_the_input():
    """The conv paths alone decide where: 64 pixels are two coarse cells, 8 fine ones."""
    torch_generator = torch.Generator().manual_seed(0)
    model = Detector(128, 1, 2, [1, 1, 1, 1], 1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch_generator) * 0.3)
        blank = torch.zeros(1, 3, 128, 128)
        dotted = blank.clone()
        dotted[0, :, 64:72, 32:40] = 1
        change = (model(dotted)[0] - model(blank)[0]).abs().sum(dim=(0, 1, 4))
    row, column = divmod(int(change.argmax()), 16)
    assert abs(row - 8) <= 1
    assert abs(column - 4) <= 1


def test_blocks_with_a_shortcut_pass_their_input():
    with torch.no_grad():
        outputs = []
        for shortcut in (True, False):
            block = CrossStage(4, 4, 1, shortcut=shortcut).eval()
            for parameter in block.parameters():
                parameter.fill_(1)
            block.blocks[0].unit2.conv.weight.zero_()
            block.blocks[0].unit2.norm.bias.zero_()
            outputs.append(block.blocks(torch.ones(1, 2, 3, 3)))
    assert torch.equal(outputs[0], torch.ones(1, 2, 3, 3))
    assert torch.equal(outputs[1], torch.zeros(1, 2, 3, 3))


def test_pooling_sees_two_four_and_six_cells_away():
    block = PyramidPooling(2).eval()
    with torch.no_grad():
        for unit in (block.enter, block.join):
            unit.conv.weight.fill_(1)
        x = torch.zeros(1, 2, 15, 15)
        x[0, 0, 7, 7] = 1
        row = block(x)[0, 0, 7]
    # One term for the input itself and one for each of three pools.
    assert [len({round(float(value), 5) for value in row[7 + k : 7 + k + 2]}) for k in (0, 2, 4, 6)] == [2, 2, 2, 2]
    assert row[7] > row[8] == row[9] > row[10] == row[11] > row[12] == row[13] > row[14] == 0
