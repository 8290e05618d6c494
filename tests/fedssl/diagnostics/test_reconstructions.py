from __future__ import annotations

import torch

from fedssl.diagnostics.reconstructions import principal_map, rounded


def test_the_map_is_along_the_widest_spread():
    rows = torch.tensor([[0.0, 3, 1], [0, -3, 1], [1, 0, 1], [-1, 0, 1]])
    expected = torch.tensor([[3.0, 0], [-3, 0], [0, 1], [0, -1]], dtype=torch.float64)
    torch.testing.assert_close(principal_map(rows), expected)
    torch.testing.assert_close(principal_map(-rows), -expected)
    one = torch.tensor([[2.0], [4.0]])
    torch.testing.assert_close(principal_map(one), torch.tensor([[-1.0, 0], [1, 0]], dtype=torch.float64))


def test_numbers_of_a_report_are_short():
    assert rounded(torch.tensor([[0.123456, 1.0]], dtype=torch.float64)) == [[0.1235, 1.0]]
