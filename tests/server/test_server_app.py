"""Tests of server.app: a run that stops, fails or meets a full disk leaves what can be resumed, to the same bits."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from safetensors.torch import load_file

from fedssl import files
from fedssl.config import ConfigError, Experiment
from fedssl.predict.load import load
from server.checkpoint import CheckpointError
from server.strategy import RoundFailed


def summary(directory: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    return values


def records(directory: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    for record in found:
        record.pop("seconds")
        record.pop("server_seconds")
        record.pop("elapsed")
    return found


def stop_at(round_: int, chosen: Experiment, directory: Path) -> None:
    """Run until the given round is over, as Ctrl-C there would."""

    class Stopper(toys_silence()):  # type: ignore[misc]
        def round(self, record: dict[str, Any]) -> None:
            if record["round"] == round_:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toys.run(chosen, directory, watcher=Stopper())


def toys_silence() -> Any:
    from server.watcher import Silence

    return Silence


CASES: dict[str, dict[str, Any]] = {
    "memory": {},
    "fedadam": {"aggregation": {"name": "FedAdam"}, "participation": 0.5},
    "momentum": {"aggregation": {"name": "FedAvgM"}},
    "local_head": {"personalization": {"name": "local_head"}, "participation": 0.5},
    "fixmatch": {"method": {"name": "fixmatch", "batch_size": 8}},
}


@pytest.mark.parametrize("case", CASES)
def test_a_stopped_run_goes_on_to_the_same_bits(case: str, tmp_path: Path):
    chosen = toys.experiment(rounds=4, **CASES[case])
    toys.run(chosen, tmp_path / "whole")
    stop_at(2, chosen, tmp_path / "cut")
    assert summary(tmp_path / "cut")["status"] == "stopped"
    assert summary(tmp_path / "cut")["rounds"] == 2
    toys.run(chosen, tmp_path / "cut", resume=True)
    whole, cut = summary(tmp_path / "whole"), summary(tmp_path / "cut")
    for values in (whole, cut):
        del values["wall_seconds"], values["seconds_per_round"]
    assert whole == cut
    assert whole["status"] == "done"
    # Bytes too: what clients keep is not sent again after a resume.
    assert records(tmp_path / "whole") == records(tmp_path / "cut")


def test_rounds_after_the_last_checkpoint_are_run_again(tmp_path: Path):
    chosen = toys.experiment(rounds=5, checkpoint={"every": 2})
    toys.run(chosen, tmp_path / "whole")
    stop_at(3, chosen, tmp_path / "cut")
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"round": 4, "torn')
    toys.run(chosen, tmp_path / "cut", resume=True)
    assert records(tmp_path / "whole") == records(tmp_path / "cut")
    assert summary(tmp_path / "whole")["weights_sha256"] == summary(tmp_path / "cut")["weights_sha256"]


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path: Path):
    class Warned(toys_silence()):  # type: ignore[misc]
        lines: list[str] = []  # noqa: RUF012

        def warn(self, line: str) -> None:
            self.lines.append(line)

    chosen = toys.experiment(rounds=4)
    toys.run(chosen, tmp_path / "whole")
    stop_at(3, chosen, tmp_path / "cut")
    (tmp_path / "cut" / "checkpoint" / "round-000003" / "model.safetensors").write_bytes(b"gone")
    toys.run(chosen, tmp_path / "cut", resume=True, watcher=Warned())
    assert Warned.lines == [
        "checkpoint round-000003 refused: ValueError: sha256 of model.safetensors differs; using round 2"
    ]
    assert records(tmp_path / "whole") == records(tmp_path / "cut")


def test_an_interrupt_inside_a_round_leaves_the_state_of_the_round_before(tmp_path: Path):
    chosen = toys.experiment(method={"name": "toy", "fault": "interrupt", "fault_round": 3})
    with pytest.raises(KeyboardInterrupt):
        toys.run(chosen, tmp_path / "cut")
    toys.run(toys.experiment(rounds=2), tmp_path / "two")
    cut, two = summary(tmp_path / "cut"), summary(tmp_path / "two")
    assert (cut["status"], cut["rounds"], cut["memory_sha256"]) == ("stopped", 2, None)
    assert cut["weights_sha256"] == two["weights_sha256"]


def test_an_interrupt_between_aggregation_and_journal_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from server.evaluation import Scorer

    score = Scorer.__call__
    calls: list[int] = []

    def scored(self: Scorer, server: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(self, server)

    monkeypatch.setattr(Scorer, "__call__", scored)
    with pytest.raises(KeyboardInterrupt):
        toys.run(toys.experiment(), tmp_path / "cut")
    monkeypatch.undo()
    toys.run(toys.experiment(rounds=2), tmp_path / "two")
    assert summary(tmp_path / "cut")["weights_sha256"] == summary(tmp_path / "two")["weights_sha256"]
    saved = load_file(tmp_path / "cut" / "model.safetensors")
    assert all(torch.equal(saved[n], t) for n, t in load_file(tmp_path / "two" / "model.safetensors").items())


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Give a list whose one entry says which file names the disk refuses from which call on."""
    refuses: list[Any] = []
    write, append = files.write_atomically, files.append_line

    def check(path: Path) -> None:
        if refuses and refuses[0](path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    def writes(path: Path, data: bytes) -> None:
        check(path)
        write(path, data)

    def appends(path: Path, line: str) -> None:
        check(path)
        append(path, line)

    for module in ("server.checkpoint", "server.journal"):
        monkeypatch.setattr(f"{module}.write_atomically", writes)
    monkeypatch.setattr("server.journal.append_line", appends)
    yield refuses
    refuses.clear()


@pytest.mark.parametrize("name", ["metrics.jsonl", "model.safetensors", "snapshot.json"])
def test_a_full_disk_stops_the_run_with_what_to_do_and_it_can_be_resumed(
    name: str, tmp_path: Path, full_disk: list[Any]
):
    chosen, directory = toys.experiment(rounds=4), tmp_path / "cut"
    full_disk.append(lambda path: path.name == name and (directory / "checkpoint" / "round-000002").exists())
    with pytest.raises(OSError, match="No space left on device; make room, then: fedssl run resume=") as caught:
        toys.run(chosen, directory)
    assert caught.value.errno == errno.ENOSPC
    assert name in str(caught.value)
    assert str(directory) in str(caught.value)
    assert sorted(path.name for path in (directory / "checkpoint").iterdir()) == ["round-000001", "round-000002"]
    full_disk.clear()
    toys.run(chosen, directory, resume=True)
    toys.run(chosen, tmp_path / "whole")
    assert records(directory) == records(tmp_path / "whole")
    assert summary(directory)["weights_sha256"] == summary(tmp_path / "whole")["weights_sha256"]


def test_a_full_disk_before_the_first_checkpoint_says_to_run_again(tmp_path: Path, full_disk: list[Any]):
    full_disk.append(lambda path: path.name == "metrics.jsonl")
    with pytest.raises(OSError, match="run again with another `out`: nothing is saved yet"):
        toys.run(toys.experiment(), tmp_path / "cut")


def test_room_is_asked_for_only_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def gone(path: Path, line: str) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

    monkeypatch.setattr("server.journal.append_line", gone)
    with pytest.raises(OSError, match="No such file or directory; mend that and run again with another `out`"):
        toys.run(toys.experiment(), tmp_path / "cut")


def test_a_second_failure_does_not_hide_the_first(tmp_path: Path, full_disk: list[Any]):
    full_disk.append(lambda path: path.name == "summary.json")
    chosen = toys.experiment(method={"name": "toy", "fault": "raise", "culprit": -1})
    with pytest.raises(RoundFailed, match="on fire") as caught:
        toys.run(chosen, tmp_path / "cut")
    assert caught.value.__notes__[0].startswith("the run directory is incomplete: OSError: [Errno 28]")


def test_a_failed_run_says_so(tmp_path: Path):
    chosen = toys.experiment(method={"name": "toy", "fault": "raise", "culprit": -1, "fault_round": 2})
    with pytest.raises(RoundFailed):
        toys.run(chosen, tmp_path / "cut")
    assert (summary(tmp_path / "cut")["status"], summary(tmp_path / "cut")["rounds"]) == ("failed", 1)


def test_a_watcher_that_fails_does_not_end_the_run(tmp_path: Path):
    class Broken(toys_silence()):  # type: ignore[misc]
        lines: list[str] = []  # noqa: RUF012

        def begin(self, experiment: Experiment, first_round: int) -> None:
            raise RuntimeError("no display")

        def round(self, record: dict[str, Any]) -> None:
            raise ConnectionError("no tracking server")

        def warn(self, line: str) -> None:
            self.lines.append(line)
            raise BrokenPipeError

    toys.run(toys.experiment(rounds=2), tmp_path / "run", watcher=Broken())
    assert summary(tmp_path / "run")["status"] == "done"
    assert Broken.lines == ["Broken: RuntimeError: no display", *["Broken: ConnectionError: no tracking server"] * 2]


def test_a_resumed_run_keeps_the_arithmetic_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("server.app.resolve_precision", lambda name, device: "bf16")
    stop_at(1, toys.experiment(precision="auto"), tmp_path / "cut")
    monkeypatch.setattr("server.app.resolve_precision", lambda name, device: "fp32")
    run = toys.run(toys.experiment(precision="auto"), tmp_path / "cut", resume=True)
    assert summary(tmp_path / "cut")["precision"] == "bf16"
    assert '"precision": "bf16"' in run.strategy.wire["json"]
    assert run.scorer.experiment.precision == run.strategy.experiment.precision == "bf16"


def test_a_run_goes_on_with_the_samples_it_began_with_or_not_at_all(tmp_path: Path):
    stop_at(1, toys.experiment(), tmp_path / "cut")
    before = (tmp_path / "cut" / "split.npz").read_bytes()
    other = toys.experiment(seed=1)
    with pytest.raises(CheckpointError, match="gives another split than the one that the run began with"):
        toys.run(other, tmp_path / "cut", resume=True)
    assert (tmp_path / "cut" / "split.npz").read_bytes() == before


def test_changed_files_with_the_same_split_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from server import app

    stop_at(1, toys.experiment(), tmp_path / "cut")
    watcher, opened = Listener(), app.opened
    monkeypatch.setattr(app, "opened", lambda *given: replace(opened(*given), key="other"))
    run = app.ServerRun(toys.experiment(out=str(tmp_path / "cut")), watcher)
    with toys.grid(4) as grid:
        run.start(grid, resume=True)
    assert watcher.lines == ["files of the data have changed since the run began; the split is the same"]


def test_a_long_traceback_is_kept_whole(tmp_path: Path):
    toys.run(toys.experiment(method={"name": "toy", "fault": "raise"}, rounds=1), tmp_path / "run")
    trace = records(tmp_path / "run")[0]["failed"]["1"]
    assert trace.startswith("Traceback (most recent call last):")
    assert trace.endswith("RuntimeError: the disk at this client is on fire\n")


def test_a_grid_that_cannot_hold_memory_refuses_to_resume_a_run_with_memory(tmp_path: Path):
    from server.app import ServerRun
    from server.watcher import Silence

    stop_at(2, toys.experiment(), tmp_path / "cut")
    run = ServerRun(toys.experiment(out=str(tmp_path / "cut")), Silence())
    with pytest.raises(CheckpointError, match="cannot put back the memory of 4 clients"):
        run.start(object(), resume=True)  # type: ignore[arg-type]


class OutOfReach:
    """A grid that does not hold the clients' memories, as Flower's own runtime."""

    def __init__(self, grid: Any, deaf: int = -1) -> None:
        self.grid = grid
        self.deaf = deaf

    def get_nodes(self) -> Any:
        return self.grid.get_nodes()

    def send_and_receive(self, messages: list[Any], *, timeout: float) -> list[Any]:
        if messages[0].metadata.message_type == "query.memory":
            messages = messages[: self.deaf]
        return list(self.grid.send_and_receive(messages, timeout=timeout))


class Listener(toys_silence()):  # type: ignore[misc]
    """A watcher that keeps the warnings."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warn(self, line: str) -> None:
        self.lines.append(line)


def run_out_of_reach(chosen: Experiment, directory: Path, deaf: int = 4) -> list[str]:
    """Run on a grid without memories where only the first `deaf` clients tell their hash; give the warnings."""
    from server.app import ServerRun

    directory.mkdir()
    watcher = Listener()
    with toys.grid(4) as grid:
        nodes: Any = OutOfReach(grid, deaf)
        ServerRun(replace(chosen, out=str(directory)), watcher).start(nodes, resume=False)
    return watcher.lines


@pytest.mark.parametrize("method", ["toy", "fedavg"])
def test_a_run_whose_memories_were_out_of_reach_is_not_resumed(method: str, tmp_path: Path):
    head = {"personalization": {"name": "local_head"}} if method == "fedavg" else {}
    chosen = toys.experiment(method={"name": method}, rounds=1, **head)
    lines = run_out_of_reach(chosen, tmp_path / "cut")
    assert [line.startswith("this run cannot be resumed: what clients keep") for line in lines] == [True] * len(head)
    before = (tmp_path / "cut" / "summary.json").read_bytes()
    with pytest.raises(CheckpointError, match="lacks the memory of 4 clients, which engine=flower cannot save"):
        toys.run(replace(chosen, rounds=2), tmp_path / "cut", resume=True)
    assert (tmp_path / "cut" / "summary.json").read_bytes() == before


def test_a_run_without_memories_is_resumed_wherever_it_ran(tmp_path: Path):
    chosen = toys.experiment(method={"name": "fedavg"}, rounds=1)
    assert run_out_of_reach(chosen, tmp_path / "run") == []
    toys.run(replace(chosen, rounds=2), tmp_path / "run", resume=True)
    assert summary(tmp_path / "run")["rounds"] == 2


def test_no_hash_of_memories_unless_all_that_have_one_tell_theirs(tmp_path: Path):
    chosen = toys.experiment(rounds=1)
    assert run_out_of_reach(chosen, tmp_path / "all") == []
    lines = run_out_of_reach(chosen, tmp_path / "some", deaf=2)
    assert lines == ["no memory_sha256: clients 2, 3 did not tell the hash of theirs"]
    toys.run(chosen, tmp_path / "inline")
    hashes = [summary(tmp_path / name)["memory_sha256"] for name in ("all", "some", "inline")]
    assert hashes == [hashes[2], None, hashes[2]]


def test_the_model_of_a_run_whose_heads_stay_at_clients_is_not_loaded(tmp_path: Path):
    toys.run(toys.experiment(rounds=1, personalization={"name": "local_head"}), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"parts stay at the clients \(personalization=local_head\)"):
        load(tmp_path / "run")
    toys.run(toys.experiment(rounds=1), tmp_path / "whole")
    assert load(tmp_path / "whole").meta.shape == (8, 8, 1)


def test_a_damaged_journal_is_named_on_resume(tmp_path: Path):
    chosen = toys.experiment(rounds=2)
    stop_at(1, chosen, tmp_path / "cut")
    (tmp_path / "cut" / "metrics.jsonl").write_bytes(b'{"round": \xff\n')
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl, line 1: "):
        toys.run(chosen, tmp_path / "cut", resume=True)
    (tmp_path / "cut" / "metrics.jsonl").write_text("{torn\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl, line 1: "):
        toys.run(chosen, tmp_path / "cut", resume=True)


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "failed"), (KeyboardInterrupt, "stopped")])
def test_a_run_that_ends_before_its_first_state_says_so(
    error: type[BaseException], status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def init_server(*_: Any) -> None:
        raise error

    monkeypatch.setattr(toys.Toy, "init_server", init_server)
    with pytest.raises(error) as caught:
        toys.run(toys.experiment(), tmp_path / "cut")
    assert getattr(caught.value, "__notes__", []) == []
    found = summary(tmp_path / "cut")
    assert (found["status"], found["rounds"], found["weights_sha256"]) == (status, 0, None)
    assert not (tmp_path / "cut" / "model.json").exists()


def test_without_a_directory_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run = toys.run(toys.experiment(rounds=1))
    assert list(tmp_path.iterdir()) == []
    assert run.strategy.current.number == 1
