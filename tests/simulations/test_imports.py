"""What a run imports before its first round is what it and its workers hold in memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from simulations.compose import compose_experiment
from simulations.run import prepare_split

HEAVY = ("matplotlib", "pandas", "scipy.optimize", "sklearn", "sympy", "torch._dynamo", "torchvision")
CODE = """
import os, sys
from simulations.run import simulate
from server.watcher import Silence

class TwoRounds(Silence):
    def round(self, record):
        if record["round"] == 2:
            print("imported:", [name for name in {heavy!r} if name in sys.modules], flush=True)
            os._exit(0)

simulate({choices!r}, TwoRounds())
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fedavg", "fixmatch"])
def test_rounds_import_nothing_that_they_do_not_use(method, tmp_path):
    choices = [f"method={method}", "data=fashion_small", "model=lenet", "clients=2", "partition=iid", "labels=asis"]
    choices += ["engine=inline", "rounds=3", "evaluation.every=1"]
    prepare_split(compose_experiment(choices))  # by Flower's partitioners, which import all of these, then cached
    code = CODE.format(heavy=HEAVY, choices=[*choices, f"out={tmp_path / 'run'}"])
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "imported: []" in ended.stdout.splitlines()
