from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fedssl.config import ConfigError, Experiment, from_dict
from fedssl.data.base import SOURCES
from fedssl.predict.load import load
from simulations import simulate
from simulations.cli import main
from simulations.compose import compose_experiment
from simulations.engine.choose import for_workers
from simulations.run import Result, execute

SMALL = "method=fixmatch data=digits partition=iid labels=client_rate model=mlp model.hidden=8 clients=3 engine=inline"
FILES = [
    "checkpoint",
    "clients.parquet",
    "config.yaml",
    "environment.json",
    "figures",
    "metrics.jsonl",
    "model.json",
    "model.safetensors",
    "reliability.json",
    "report.html",
    "split.npz",
    "summary.json",
]
DRAWN = ("figures", "report.html")
SUMMARY = [
    *("method", "data", "seed", "rounds", "final", "best", "clients", "bytes_up", "bytes_down", "wall_seconds"),
    *("seconds_per_round", "weights_sha256", "memory_sha256", "split_sha256", "engine", "workers", "precision"),
    *("status", "main_metric", "warnings", "handover_round"),
]


def small(out: Path, *more: str) -> list[str]:
    return [*SMALL.split(), f"out={out}", *more]


class Watching:
    """Notes what it sees, and stops the run after a round, or at a client's answer."""

    def __init__(self, after: int = 0, at_answer: int = 0) -> None:
        self.after, self.at_answer = after, at_answer
        self.first: list[int] = []
        self.records: list[dict[str, Any]] = []
        self.answers: list[int] = []
        self.warnings: list[str] = []

    def begin(self, experiment: Experiment, first_round: int) -> None:
        assert experiment.clients == 3
        self.first.append(first_round)

    def client(self, client_id: int) -> None:
        self.answers.append(client_id)
        if len(self.answers) == self.at_answer:
            raise KeyboardInterrupt

    def round(self, record: dict[str, Any]) -> None:
        self.records.append(record)
        if record["round"] == self.after:
            raise KeyboardInterrupt

    def warn(self, line: str) -> None:
        self.warnings.append(line)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Watching]:
    """Give a finished run of four rounds, and what its watcher saw."""
    watcher = Watching()
    result = simulate(small(tmp_path_factory.mktemp("whole") / "run", "rounds=4"), watcher)
    return result, watcher


@pytest.fixture(scope="module")
def whole(watched: tuple[Result, Watching]) -> Result:
    return watched[0]


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the report, which takes longer than these runs do; `watched` has one."""
    monkeypatch.setattr("simulations.run._report", lambda *_: None)


def metrics(directory: Path) -> list[dict[str, Any]]:
    """Give the journal without what depends on the clock."""
    journal = directory / "metrics.jsonl"
    records = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    clocks = ("seconds", "server_seconds", "elapsed")
    return [{k: v for k, v in record.items() if k not in clocks} for record in records]


def test_the_run_directory_holds_what_was_promised(whole: Result) -> None:
    assert sorted(path.name for path in whole.directory.iterdir()) == FILES
    assert sorted(whole.summary) == sorted(SUMMARY)
    assert whole.summary["status"] == "done"
    assert (whole.summary["rounds"], whole.summary["workers"], whole.summary["final"]["round"]) == (4, 1, 4)
    assert sorted(whole.summary["clients"]) == ["gini", "max", "mean", "min", "p10", "std"]
    page = (whole.directory / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_config_of_a_run_gives_the_same_experiment(whole: Result) -> None:
    values = yaml.safe_load((whole.directory / "config.yaml").read_text())
    assert from_dict(values) == compose_experiment(small(whole.directory, "rounds=4"))


def test_the_journal_and_the_watcher_tell_the_same(watched: tuple[Result, Watching]) -> None:
    result, watcher = watched
    assert watcher.first == [1]
    assert watcher.answers == [0, 1, 2] * 4
    assert [record["round"] for record in watcher.records] == [1, 2, 3, 4]
    assert [record["cohort"] for record in metrics(result.directory)] == [[0, 1, 2]] * 4
    assert watcher.warnings == []


def test_a_result_gives_tables_and_a_model(whole: Result) -> None:
    final = whole.summary["final"]
    assert list(whole.rounds["round"]) == [1, 2, 3, 4]
    assert whole.rounds["test.accuracy"].iloc[-1] == final["accuracy"]
    last = whole.clients[whole.clients["round"] == 4]
    assert list(last["client"]) == [0, 1, 2]
    assert last["accuracy"].mean() == pytest.approx(whole.summary["clients"]["mean"])
    with np.load(whole.directory / "split.npz") as split:
        assert str(split["sha256"]) == whole.summary["split_sha256"]


def test_the_final_model_scores_as_the_summary_says(whole: Result) -> None:
    from fedssl.data.cache import open_dataset

    test = open_dataset(SOURCES.create({"name": "digits"})).test
    labels, confidences = load(whole.directory)(np.array(test.x))
    assert float((labels == test.y).mean()) == pytest.approx(whole.summary["final"]["accuracy"], abs=1e-12)
    assert ((confidences > 0) & (confidences <= 1)).all()
    again, _ = whole.model(np.array(test.x))
    assert (again == labels).all()


def test_an_experiment_runs_as_its_overrides_do(whole: Result, tmp_path: Path) -> None:
    made = compose_experiment(small(tmp_path / "again", "rounds=4"))
    assert simulate(made).summary["weights_sha256"] == whole.summary["weights_sha256"]


@pytest.mark.parametrize("precision", ["auto", "bf16"])
def test_workers_are_warmed_with_the_experiment_that_messages_carry(precision: str, tmp_path: Path) -> None:
    from server.app import ServerRun
    from server.watcher import Silence

    experiment = compose_experiment(small(tmp_path / "run", f"precision={precision}"))
    assert for_workers(experiment) == ServerRun(experiment, Silence()).strategy.wire["json"]


@pytest.mark.parametrize(("after", "at_answer", "rounds"), [(2, 0, 2), (0, 8, 2), (1, 0, 1), (0, 2, 0)])
def test_a_stopped_run_resumes_to_the_same_bits(
    whole: Result, tmp_path: Path, after: int, at_answer: int, rounds: int
) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        simulate(small(out, "rounds=4"), Watching(after, at_answer))
    stopped = json.loads((out / "summary.json").read_text())
    assert (stopped["status"], stopped["rounds"]) == ("stopped", rounds)
    assert len(metrics(out)) == rounds
    watcher = Watching()
    resumed = simulate([f"resume={out}"], watcher)
    assert watcher.first == [rounds + 1]
    assert metrics(out) == metrics(whole.directory)
    for key in ("weights_sha256", "memory_sha256", "split_sha256", "final", "best", "clients", "status"):
        assert resumed.summary[key] == whole.summary[key]
    assert sorted(path.name for path in out.iterdir()) == [name for name in FILES if name not in DRAWN]


def test_resume_cuts_the_journal_back_to_the_checkpoint(whole: Result, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        simulate(small(out, "rounds=4", "checkpoint.every=2"), Watching(after=3))
    assert len(metrics(out)) == 3
    watcher = Watching()
    resumed = simulate([f"resume={out}"], watcher)
    assert watcher.first == [3]
    assert metrics(out) == metrics(whole.directory)
    assert resumed.summary["weights_sha256"] == whole.summary["weights_sha256"]


def test_a_stop_while_scoring_leaves_the_weights_of_the_journals_last_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from server.evaluation import Scorer

    score, calls = Scorer.__call__, []

    def stopping(self: Scorer, *given: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(self, *given)

    out, short = tmp_path / "run", tmp_path / "short"
    simulate(small(short, "rounds=2", "method.schedule=constant"))
    monkeypatch.setattr(Scorer, "__call__", stopping)
    with pytest.raises(KeyboardInterrupt):
        simulate(small(out, "rounds=4", "method.schedule=constant"))
    stopped = json.loads((out / "summary.json").read_text())
    assert stopped["rounds"] == 2
    assert stopped["weights_sha256"] == Result(short).summary["weights_sha256"]


def test_more_rounds_than_before_may_be_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "run"
    simulate(small(out, "rounds=2"))
    before = metrics(out)
    resumed = simulate([f"resume={out}", "rounds=3"])
    assert resumed.summary["rounds"] == 3
    assert metrics(out)[:2] == before
    assert yaml.safe_load((out / "config.yaml").read_text())["rounds"] == 3


def test_an_experiment_that_cannot_run_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="clients=5000"):
        simulate([*SMALL.replace("clients=3", "clients=5000").split(), f"out={tmp_path / 'run'}"])
    assert list(tmp_path.iterdir()) == []


def test_an_experiment_from_python_is_checked_for_ranges(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rounds=0"):
        simulate(Experiment(rounds=0, out=str(tmp_path / "run")))
    assert list(tmp_path.iterdir()) == []


def test_a_tilde_stands_for_home_in_every_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Result) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    np.savez(here / "new.npz", x=np.zeros((2, 8, 8), np.uint8))
    words = [word for word in SMALL.split() if not word.startswith("rounds=")]
    assert main(["run", "-m", *words, "rounds=1", "out=~/many"]) == 0
    assert main(["predict", str(whole.directory.absolute()), "--data=new.npz", "--out=~/labels.csv"]) == 0
    assert sorted(path.name for path in home.iterdir() if path.suffix or path.name == "many") == ["labels.csv", "many"]
    assert [path.name for path in here.iterdir()] == ["new.npz"]


def test_without_out_a_run_lies_under_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = (simulate([*SMALL.split(), "rounds=1"]).directory for _ in range(2))
    assert first.parent == second.parent == Path("runs")
    assert first != second
    assert first.name.split("-")[2] == "fixmatch"


def test_split_draws_without_training(tmp_path: Path, capsys: pytest.CaptureFixture[str], whole: Result) -> None:
    assert main(["split", *small(tmp_path / "split")]) == 0
    assert sorted(path.name for path in (tmp_path / "split").iterdir()) == ["split.npz", "split.png"]
    assert f"3 clients, sha256 {whole.summary['split_sha256']}\n" in capsys.readouterr().out


def test_report_is_rebuilt_from_files(whole: Result, capsys: pytest.CaptureFixture[str]) -> None:
    page = whole.directory / "report.html"
    before = page.read_bytes()
    page.unlink()
    assert main(["report", str(whole.directory)]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    assert page.read_bytes() == before


def test_predict_labels_arrays_and_pictures_alike(whole: Result, tmp_path: Path) -> None:
    from PIL import Image

    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "new.npz", x=images)
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
    found = []
    for data in ("new.npz", "photos"):
        out = tmp_path / f"{data}.csv"
        assert main(["predict", str(whole.directory), "--data", str(tmp_path / data), "--out", str(out)]) == 0
        with out.open() as file:
            found.append(list(csv.DictReader(file)))
    labels, confidences = whole.model(images)
    assert [row["name"] for row in found[0]] == ["0", "1", "2"]
    assert [row["name"] for row in found[1]] == ["0.png", "1.png", "2.png"]
    for rows in found:
        assert [int(row["label"]) for row in rows] == labels.tolist()
        assert [row["confidence"] for row in rows] == [f"{value:.6f}" for value in confidences]


@pytest.mark.parametrize("command", [[], ["run"], ["split"], ["report"], ["predict"], ["list"]])
def test_help_gives_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    example = next(line for line in shown.splitlines() if "xample: fedssl" in line).split("fedssl ")[1].split()
    if example[0] == "run":
        assert isinstance(compose_experiment(example[1:]), Experiment)


OWN = """
from dataclasses import dataclass, replace
from fedssl.config import option
from fedssl.methods.base import register
from fedssl.methods.fedavg import FedAvg

@register("doing_nothing")
@dataclass
class DoingNothing(FedAvg):
    '''Sends back what it got, plus a constant.'''

    plus: float = option(0.0, "what is added")

    def train_client(self, model, payload, memory, data, step):
        update, memory = super().train_client(model, payload, memory, data, step)
        state = {k: t + self.plus if t.is_floating_point() else t for k, t in payload.state.items()}
        return replace(update, state=state), memory
"""


def test_a_method_of_ones_own_is_one_file(tmp_path: Path) -> None:
    import torch

    file = tmp_path / "own.py"
    file.write_text(OWN)
    words = [word for word in SMALL.split() if not word.startswith("method=")]
    common = [*words, f"method_file={file}", "method=doing_nothing"]
    still = simulate([*common, "rounds=1", f"out={tmp_path / 'still'}"])
    moved = simulate([*common, "rounds=2", "method.plus=0.5", f"out={tmp_path / 'moved'}"])
    for name, tensor in still.model.model.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(moved.model.model.state_dict()[name], tensor + 1.0)
    file.unlink()
    assert simulate([f"resume={tmp_path / 'still'}", "rounds=2"]).summary["rounds"] == 2


def test_a_failure_in_a_run_ends_with_one_and_the_clients_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "broken.py"
    file.write_text(OWN.replace("doing_nothing", "broken").replace("super().train_client", "self.no_such_hook"))
    words = [word for word in SMALL.split() if not word.startswith("method=")]
    out = tmp_path / "run"
    assert main(["run", *words, f"method_file={file}", "method=broken", f"out={out}"]) == 1
    assert "no_such_hook" in capsys.readouterr().err
    assert json.loads((out / "summary.json").read_text())["status"] == "failed"


def test_the_command_ends_with_130_when_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from simulations.progress import Display

    monkeypatch.setattr(Display, "round", Watching(after=1).round)
    assert main(["run", *small(tmp_path / "run", "rounds=3")]) == 130
    assert Result(tmp_path / "run").summary["status"] == "stopped"


def test_execute_is_silent_without_a_watcher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    execute(compose_experiment(small(tmp_path / "run", "rounds=1")))
    assert capsys.readouterr() == ("", "")
