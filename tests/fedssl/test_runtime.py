from __future__ import annotations

import pytest
import torch

from fedssl import runtime
from fedssl.config import ConfigError


@pytest.fixture
def announced(monkeypatch):
    """Let torch announce exactly these devices, which all work unless a test says otherwise."""

    def announce(*names, failure=""):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in names)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in names)
        monkeypatch.setattr(runtime, "_failure", lambda name: failure if name != "cpu" else "")

    return announce


@pytest.mark.parametrize("name", ["cuda", "mps", "cuda:7", "nonsense"])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(announced, name):
    announced()
    with pytest.raises(ConfigError, match=rf"^device='{name}': must be auto or cpu on this machine") as refused:
        runtime.choose_device(name)
    assert refused.value.field == "device"
    announced("mps")
    with pytest.raises(ConfigError, match="must be auto or mps or cpu on this machine"):
        runtime.choose_device("cuda")


def test_auto_takes_the_fastest_device_that_is_here(announced):
    for names, wanted in (((), "cpu"), (("mps",), "mps"), (("mps", "cuda"), "cuda")):
        announced(*names)
        assert runtime.choose_device("auto") == torch.device(wanted)
    assert runtime.choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "auto"])
def test_a_device_that_fails_at_once_is_refused(announced, name):
    announced("cuda", failure="the driver is too old")
    with pytest.raises(
        ConfigError, match=rf"device='{name}': must be cpu .*cuda cannot be used \(the driver is too old"
    ):
        runtime.choose_device(name)


def test_a_first_tensor_finds_what_does_not_work():
    assert runtime._failure.__wrapped__("cpu") == ""
    if not torch.cuda.is_available():
        reason = runtime._failure.__wrapped__("cuda")
        assert reason
        assert "\n" not in reason
