from __future__ import annotations

import pytest
from safetensors.torch import load_file

from simulations.cli import main

SMALL = ["data=digits", "model.width=2", "epochs=2", "batch_size=600", "threads=1"]


def test_the_command_writes_weights_and_says_where(tmp_path, capsys):
    out = tmp_path / "made" / "w.safetensors"
    assert main(["pretrain", *SMALL, f"out={out}"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in shown[1:3]] == ["epoch 1/2", "epoch 2/2"]
    assert shown[3].startswith("final: knn_accuracy 0.")
    assert shown[4] == f"weights: {out}"
    assert "backbone.0.weight" in load_file(out)
    assert main(["pretrain", *SMALL, f"out={out}"]) == 2
    assert "a file that does not exist yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["epochs=0"], "epochs=0: must be a whole number >= 1"),
        (["epochs=1.5"], "epochs=1.5: must be a whole number"),
        (["loss=simclt"], "did you mean simclr?"),
        (["lr=nan"], "lr=nan: must be a number > 0"),
        (["rounds=3"], "rounds='3': must be one of"),
        (["epoch=3"], "did you mean epochs?"),
        (["images=none"], "must be one of all, federated_pool, unlabelled"),
        (["epochs=1", "epochs=2"], "given once"),
        (["data=nothing"], "must be one of"),
        (["out=/dev/null/w"], "must be a file that can be made"),
        (["out="], "a file that does not exist yet"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(words, message, capsys):
    assert main(["pretrain", *words]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert message in shown


def test_help_names_every_key(capsys):
    assert main(["pretrain", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {key}=" in shown for key in ("epochs", "batch_size", "lr", "loss", "temperature", "images", "out"))
