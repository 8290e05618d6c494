from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from fedssl.config import Experiment
from simulations import progress
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


def test_plain_output_has_one_line_a_round(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(terminal=False).splitlines()
    assert lines[0] == "fixmatch · fashion_small · dirichlet: 5 clients, rounds 1 to 3, engine ray"
    assert lines[1] == "round 1/3  clients 2/3  loss 2.500  accuracy 0.125  1.2 s, 0 s left"
    assert len(lines) == 2
    assert capsys.readouterr().err == "warning: round 1: client 1 left out: ValueError: lost\n"


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


def test_a_warm_up_and_a_detectors_scores_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_QUICK", 0.0)
    file = StringIO()
    display = Display(Console(force_terminal=False, file=file, width=140, color_system=None))
    chosen = Experiment(rounds=2, clients=3, participation=1.0, method={"name": "fedsto"}, data={"name": "roadsign"})
    display.begin(chosen, 1)
    for done in range(31):
        display.stage("the server's warm-up", done, 30)
    train = {"loss": 2.0, "warm_up_map50": 0.25, "warm_up_map50_total": 0.5}
    record = {"round": 1, "seconds": 1.0, "cohort": [0, 1, 2], "failed": {}, "train": train}
    display.round({**record, "test": {"map50": 0.25, "map50_total": 0.5, "ap50_stop": 0.1}})
    lines = file.getvalue().splitlines()
    assert lines[1] == "the server's warm-up 0/30"
    assert [line.split()[3] for line in lines[2:-2]] == [f"{done}/30" for done in range(3, 31, 3)]
    assert lines[-2] == "after the warm-up: mAP50 0.500"
    assert lines[-1].startswith("round 1/2  clients 3/3  loss 2.000  mAP50 0.500  mAP50 of all 0.250  1.0 s")


def test_a_quick_stage_says_only_that_it_begins() -> None:
    file = StringIO()
    display = Display(Console(force_terminal=False, file=file, width=140))
    for done in range(11):
        display.stage("decoding pictures", done, 10)
    assert file.getvalue() == "decoding pictures 0/10\n"


def test_a_stage_leaves_the_bar_when_it_ends() -> None:
    display = Display(Console(force_terminal=True, file=StringIO(), width=140, color_system=None))
    display.begin(Experiment(rounds=3), 1)
    assert display.bar is not None
    seen = []
    for done, total in ((0, 0), (0, 2), (1, 2), (2, 2)):
        display.stage("warm-up", done, total)
        seen.append(display.bar.tasks[0].fields["scores"])
    display.close()
    assert seen == ["", "warm-up 0/2", "warm-up 1/2", ""]


def test_a_finished_run_says_how_to_go_on() -> None:
    file = StringIO()
    Display(Console(force_terminal=False, file=file, width=140)).begin(Experiment(rounds=3), 4)
    assert file.getvalue() == "all 3 rounds are done; rounds=N goes on to the N-th\n"


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (99, "99 s"), (180, "3 min"), (9000, "2.5 h")])
def test_span(seconds: float, words: str) -> None:
    assert span(seconds) == words
