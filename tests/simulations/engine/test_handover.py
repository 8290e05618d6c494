"""Tests of runs that begin in one process and go on with workers: the same bits, whenever that is."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import toys

from server.watcher import Silence
from simulations.engine.choose import for_workers
from simulations.engine.grid import LocalGrid
from simulations.engine.handover import HandoverExecutor
from simulations.engine.inline import InlineExecutor
from simulations.engine.start import EngineError
from simulations.run import Result, _was_killed, execute, load_run, simulate


class Workers(InlineExecutor):
    """Stands in for workers that are ready at once."""

    num_workers = 3

    def __init__(self, num_clients: int) -> None:
        super().__init__(num_clients)
        self.seconds: dict[int, float] = {}
        self.ran: list[int] = []

    def run(self, tasks: Any, timeout: float) -> Any:
        self.ran += [task.client_id for task in tasks]
        yield from super().run(tasks, timeout)


class Start:
    """Stands in for a start of Ray that is done when it is asked for the `looks`-th time, or fails."""

    def __init__(self, workers: Workers, looks: int = 0, error: str = "") -> None:
        self.workers, self.looks, self.error = workers, looks, error
        self.closed = False

    def poll(self) -> Any:
        self.looks -= 1
        return self.result() if self.looks < 0 else None

    def result(self) -> Any:
        if self.error:
            raise EngineError(self.error)
        return self.workers

    def close(self) -> None:
        self.closed = True


def executor(experiment: Any, start: Start | None, *, worth: bool = True) -> HandoverExecutor:
    def begin() -> Any:
        assert start is not None, "workers were started for nothing"
        return start

    made = HandoverExecutor(experiment.clients, for_workers(experiment), begin, cores=4)
    if worth:
        made._is_worth_it = lambda waiting: True  # type: ignore[method-assign]
    return made


def hashes(experiment: Any, executor: Any, folder: Path) -> tuple[str, str]:
    """Run, and give what must not depend on the engine."""
    import dataclasses

    from server.app import ServerRun

    folder.mkdir()
    grid = LocalGrid(experiment.clients, executor)
    try:
        ServerRun(dataclasses.replace(experiment, out=str(folder)), Silence()).start(grid, resume=False)
    finally:
        executor.close()
    summary = json.loads((folder / "summary.json").read_text())
    return summary["weights_sha256"], summary["memory_sha256"]


def test_a_handover_at_any_client_gives_the_bits_of_inline(tmp_path: Path) -> None:
    experiment = toys.experiment(deadline=60.0)
    expected = hashes(experiment, InlineExecutor(4), tmp_path / "inline")
    rounds = set()
    for looks in range(12):
        workers = Workers(4)
        made = executor(experiment, Start(workers, looks))
        assert hashes(experiment, made, tmp_path / str(looks)) == expected
        rounds.add(made.handover_round)
        assert bool(workers.ran) == (made.handover_round is not None)
        summary = json.loads((tmp_path / str(looks) / "summary.json").read_text())
        assert summary["handover_round"] == made.handover_round
        assert summary["workers"] == (3 if made.handover_round else 1)
    # Which rounds the others are depends on how fast the clients are.
    assert 1 in rounds
    assert len(rounds) > 1


def test_a_short_run_starts_no_workers(tmp_path: Path) -> None:
    experiment = toys.experiment()
    assert hashes(experiment, executor(experiment, None, worth=False), tmp_path / "run")


@pytest.mark.parametrize(
    ("seconds", "rounds_left", "cores", "worth"),
    [(0.1, 2, 4, False), (0.1, 1000, 4, True), (0.1, 1000, 1, False), (10.0, 0, 4, True), (0.01, 100, 2, False)],
)
def test_workers_are_worth_a_start_that_is_shorter_than_what_they_save(
    seconds: float, rounds_left: int, cores: int, worth: bool
) -> None:
    made = executor(toys.experiment(), None, worth=False)
    made.seconds = dict.fromkeys(range(10), seconds)
    made.cores, made._cohort, made._visits, made._rounds_left = cores, 10, 10, rounds_left
    assert made._is_worth_it(waiting=5) is worth
    made.close()


def test_one_client_alone_is_not_measured_until_it_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    made = executor(toys.experiment(), None, worth=False)
    made.seconds, made._cohort, made._visits, made._rounds_left = {0: 5.0}, 4, 4, 100
    assert not made._is_worth_it(waiting=3)
    made.here.task, made.here.since = object(), -1e6  # type: ignore[assignment]
    assert made._is_worth_it(waiting=3)
    made.here.task = None
    made.close()


def test_what_the_first_client_waits_for_does_not_count() -> None:
    made = executor(toys.experiment(), None, worth=False)
    made.seconds, made._cohort, made._visits, made._rounds_left = {0: 2.0, 1: 0.05}, 10, 10, 5
    assert not made._is_worth_it(waiting=8)
    made.close()


def test_workers_that_do_not_start_are_one_warning_and_the_run_goes_on(tmp_path: Path) -> None:
    experiment = toys.experiment()
    made = executor(experiment, Start(Workers(4), error="no memory"))
    lines: list[str] = []
    made.warn = lines.append
    assert hashes(experiment, made, tmp_path / "run") == hashes(experiment, InlineExecutor(4), tmp_path / "inline")
    assert lines == ["no workers, the run goes on in one process: no memory"]


def failed(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line)["failed"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_client_past_the_deadline_is_left_to_itself_and_workers_take_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    plain = toys.Toy.train_client

    def hang(self: Any, model: Any, payload: Any, memory: Any, data: Any, step: Any) -> Any:
        if data.client_id == 1 and step.round_ == 1:
            release.wait(60)
        return plain(self, model, payload, memory, data, step)

    monkeypatch.setattr(toys.Toy, "train_client", hang)
    experiment = toys.experiment(deadline=1.5, rounds=2, min_answers=0.1)
    workers = Workers(4)
    made = executor(experiment, Start(workers), worth=False)
    try:
        hashes(experiment, made, tmp_path / "run")
    finally:
        release.set()
    first, second = failed(tmp_path / "run")
    assert set(first) == {"1", "2", "3"}
    assert "deadline" in first["1"]
    assert second == {}
    assert workers.ran[:4] == [0, 1, 2, 3]


def test_an_interrupt_in_a_client_stops_the_run(tmp_path: Path) -> None:
    experiment = toys.experiment(method={"name": "toy", "fault": "interrupt"})
    with pytest.raises(KeyboardInterrupt):
        hashes(experiment, executor(experiment, None, worth=False), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "stopped"


@pytest.mark.parametrize("inline", [False, True])
def test_a_clients_exit_is_its_failure_and_not_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inline: bool
) -> None:
    def leave(self: Any, update: Any, memory: Any) -> Any:
        raise SystemExit(3)

    monkeypatch.setattr(toys.Toy, "spoil", leave)
    experiment = toys.experiment(method={"name": "toy", "fault": "raise"}, rounds=1)
    made = InlineExecutor(experiment.clients) if inline else executor(experiment, None, worth=False)
    hashes(experiment, made, tmp_path / "run")
    assert failed(tmp_path / "run") == [{"1": "the client's code ended with SystemExit: 3"}]


def test_a_run_that_ended_without_a_word_goes_on_apart(tmp_path: Path) -> None:
    assert not _was_killed(tmp_path)
    (tmp_path / "split.npz").touch()
    assert _was_killed(tmp_path)
    (tmp_path / "summary.json").touch()
    assert not _was_killed(tmp_path)


@pytest.fixture
def handover_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that has workers take over at the beginning of a round."""
    plain = HandoverExecutor._hand_over

    def choose(round_: int) -> None:
        def hand_over(self: HandoverExecutor, waiting: int) -> Any:
            self._stuck = self.workers is None and self._round >= round_
            return plain(self, waiting) if self._stuck else self.workers

        monkeypatch.setattr(HandoverExecutor, "_hand_over", hand_over)

    return choose


class StopAfter(Silence):
    def __init__(self, round_: int) -> None:
        self.last = round_

    def client(self, client_id: int) -> None:
        if self.last == 0:
            raise KeyboardInterrupt

    def round(self, record: dict[str, Any]) -> None:
        self.last = max(0, self.last - 1)


def small(out: Path, *overrides: str) -> list[str]:
    return [*toys.small("method=fixmatch", "personalization=local_head", "rounds=4", *overrides), f"out={out}"]


def told(result: Result) -> tuple[str, str]:
    return result.summary["weights_sha256"], result.summary["memory_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("stopped_after", [1, 3])
def test_ray_takes_over_to_the_bits_of_inline_through_stop_and_resume(
    ray_session: None, tmp_path: Path, handover_in: Any, stopped_after: int
) -> None:
    """Workers take over in round 3; the run stops before or after, and goes on with and without another handover."""
    expected = told(simulate(small(tmp_path / "inline", "engine=inline")))
    handover_in(3)
    with pytest.raises(KeyboardInterrupt):
        simulate(small(tmp_path / "run"), StopAfter(stopped_after))
    stopped = Result(tmp_path / "run").summary
    assert (stopped["handover_round"], stopped["rounds"]) == ((3, 3) if stopped_after == 3 else (None, 1))
    handover_in(4 if stopped_after == 3 else 99)
    resumed = execute(load_run(str(tmp_path / "run"), {}), resume=True)
    assert told(resumed) == expected
    assert resumed.summary["handover_round"] == (4 if stopped_after == 3 else None)


@pytest.mark.slow
@pytest.mark.parametrize("when", [1, 2])
def test_ray_takes_over_to_the_bits_of_inline(ray_session: None, tmp_path: Path, handover_in: Any, when: int) -> None:
    semi = (
        *("method=semipfl", "personalization=mixture", "data=imu_synthetic", "data.users=4", "data.server_subjects=4"),
        *("data.windows=10", "model=autoencoder", "model.sizes=[16,8]", "labels=client_rate", "labels.rate=0.3"),
        *("method.hidden=8", "method.domains=2", "rounds=2"),
    )
    expected = told(simulate([*toys.small(*semi), "engine=inline", f"out={tmp_path / 'inline'}"]))
    handover_in(when)
    result = simulate([*toys.small(*semi), f"out={tmp_path / 'run'}"])
    assert told(result) == expected
    assert result.summary["handover_round"] == when
