from __future__ import annotations

import numpy as np
import pytest
import torch

from fedssl.metrics.pseudo_label import telemetry


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_counts_by_hand(kind):
    found = telemetry(kind([0, 1, 2, 1, 0]), kind([True, True, True, False, True]), kind([0, 1, 1, 1, -1]))
    assert found == {
        "pseudo_mask_rate": (4.0, 5.0),
        "pseudo_precision": (2.0, 3.0),
        "pseudo_coverage": (2.0, 4.0),
    }
