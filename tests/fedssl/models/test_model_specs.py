from __future__ import annotations

import subprocess
import sys

import pytest

from fedssl.config import ConfigError
from fedssl.models.base import MODELS


def test_listing_models_imports_no_network():
    code = (
        "import sys; from fedssl.models.base import MODELS; MODELS.names();"
        "print([m for m in sys.modules if m.startswith('fedssl.models.networks.')])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_a_width_out_of_range_is_refused():
    with pytest.raises(ConfigError, match=r"model\.width=0"):
        MODELS.create({"name": "resnet", "width": 0})
