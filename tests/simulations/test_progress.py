from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from fedssl.config import Experiment
from simulations.progress import Display, span


def shown(*, terminal: bool) -> str:
    file = StringIO()
    display = Display(Console(force_terminal=terminal, file=file, width=140, color_system=None))
    display.begin(Experiment(rounds=3, clients=5, participation=0.6), 1)
    for client_id in (4, 2):
        display.client(client_id)
    record = {"round": 1, "seconds": 1.25, "cohort": [1, 2, 4], "failed": {"1": "Traceback\nValueError: lost"}}
    display.round({**record, "train": {"loss": 2.5}, "test": {"accuracy": 0.125}})
    display.close()
    return file.getvalue()


def test_plain_output_has_one_line_a_round() -> None:
    lines = shown(terminal=False).splitlines()
    assert lines[0] == "fixmatch · fashion_small · dirichlet: 5 clients, rounds 1 to 3, engine ray"
    assert lines[1] == "warning: round 1: client 1 left out: ValueError: lost"
    assert lines[2] == "round 1/3  clients 2/3  loss 2.500  accuracy 0.125  1.2 s, 0 s left"
    assert len(lines) == 3


def test_a_terminal_shows_a_bar() -> None:
    text = shown(terminal=True)
    for words in ("1/3", "clients 0/3", "loss 2.500  accuracy 0.125", " left"):
        assert words in text
    assert "\x1b[?25h" in text


def test_a_client_that_only_its_score_is_missing_of_counts_as_trained() -> None:
    file = StringIO()
    display = Display(Console(force_terminal=False, file=file, width=140, color_system=None))
    display.begin(Experiment(rounds=1, clients=5, participation=0.2), 1)
    record = {"round": 1, "seconds": 1.0, "cohort": [4], "failed": {"0": "ValueError: lost", 2: "ValueError: late"}}
    display.round({**record, "train": {}, "test": {}})
    assert "clients 1/1" in file.getvalue()


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (99, "99 s"), (180, "3 min"), (9000, "2.5 h")])
def test_span(seconds: float, words: str) -> None:
    assert span(seconds) == words
