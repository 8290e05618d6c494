"""The Flower ServerApp: reads the experiment, runs the method's rounds, keeps the run directory."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedssl.assembly import Components, assemble, initial_model, load_weights, opened, split_of
from fedssl.config import Checkpoint, Engine, Experiment, Logger, from_json, sha256, to_json
from fedssl.data.base import SOURCES
from fedssl.data.checks import check_dataset
from fedssl.methods.base import METHODS, Method
from fedssl.metrics.base import PERSONAL
from fedssl.models.base import MODELS
from fedssl.partition.client_data import ClientDataFactory
from fedssl.partition.split import Split
from fedssl.predict.model_file import Meta, save_model
from fedssl.progress import listening
from fedssl.rng import Rng
from fedssl.runtime import choose_device, one_thread, resolve_precision, use_precision
from server import checkpoint
from server.evaluation import Scorer
from server.journal import Journal
from server.round import Round
from server.strategy import MethodStrategy
from server.summary import memories_sha256, summarise, weights_sha256
from server.watcher import Silence, Watcher


def wire_of(experiment: Experiment) -> ConfigRecord:
    """Give the record that tells clients the experiment."""
    text = to_json(for_clients(experiment))
    return ConfigRecord({"json": text, "sha256": sha256(text)})


def for_clients(experiment: Experiment) -> Experiment:
    """Give the experiment as clients are sent it: without what concerns this machine alone.

    Files of first weights are such things: what a client trains comes with each message.
    """
    method, data, model = (
        _sent(registry.get(choice["name"]), choice)
        for registry, choice in ((METHODS, experiment.method), (SOURCES, experiment.data), (MODELS, experiment.model))
    )
    return replace(
        experiment,
        method=method,
        data=data,
        model=model,
        out="",
        engine=Engine(),
        logger=Logger(),
        checkpoint=Checkpoint(),
    )


def _sent(cls: type[Any], choice: Mapping[str, Any]) -> dict[str, Any]:
    """Return a choice without the options that are declared as local."""
    local = {item.name for item in fields(cls) if item.metadata.get("local")}
    return {name: value for name, value in choice.items() if name not in local}


class ServerRun:
    """One run from its first round, or from its last checkpoint, to its summary."""

    def __init__(self, experiment: Experiment, watcher: Watcher) -> None:
        one_thread()
        device = choose_device(experiment.device)
        self.experiment = replace(experiment, precision=resolve_precision(experiment.precision, device))
        self.watcher = watcher
        self.parts: Components = assemble(experiment)
        self.dataset = opened(experiment, SOURCES.create(experiment.data))
        self.split: Split = split_of(experiment, self.dataset)
        self.model = initial_model(experiment, self.dataset, device)
        self.parts.personalization.prepare(self.model)
        use_precision(self.model, self.experiment.precision)
        # Clients may run in this process, and change its folder.
        self.directory = Path(experiment.out).absolute() if experiment.out else None
        self.journal: Journal | None = None
        self.strategy = MethodStrategy(self.experiment, self.parts, self.model, wire_of(self.experiment))
        self.client_data = ClientDataFactory(
            self.dataset, self.split, SOURCES.get(experiment.data["name"]).flip, device
        )
        self.strategy.data = self.client_data.server()
        self.scorer = Scorer(self.experiment, self.dataset, self.split, self.parts, self.model)
        self.strategy.score = self.scorer
        self.elapsed = 0.0
        self.first_round = 1
        self.finished = self.strategy.server
        """The state after the last round in the journal: one that was cut short leaves no trace."""

    def start(self, grid: Grid, *, resume: bool) -> None:
        """Run all rounds and write everything. A failure leaves a summary that says so, and is raised again."""
        if self.directory is not None:
            self.journal = Journal(self.directory)
        resumed = resume and self.journal is not None
        if resumed:
            self._resume(grid)
        try:
            self._tell(lambda: self.watcher.begin(self.experiment, self.first_round))
            if not resumed:
                with listening(self._pass_on):
                    self.begin()
            self._prepare(grid)
            self.began = time.perf_counter() - self.elapsed
            self.strategy.start(grid, first_round=self.first_round)
        except BaseException as error:
            self._finish_early(grid, error)
            raise
        if self.journal is not None:
            self._finish(grid, self.journal, "done")

    def _prepare(self, grid: Grid) -> None:
        """Write the split, and warn of a run that cannot be resumed."""
        if self.directory is not None:
            self.split.save(self.directory / "split.npz")
        self.strategy.on_round = lambda round_: self._finish_round(grid, round_)
        if self.strategy.keeps_parts and not isinstance(grid, checkpoint.HoldsMemory):
            self._warn("this run cannot be resumed: what clients keep is out of the server's reach on this engine")

    def _pass_on(self, stage: str, done: int, total: int) -> None:
        self._tell(lambda: self.watcher.stage(stage, done, total))

    def begin(self) -> None:
        """Make the first server state, which a method may train for; a resumed run has no need of it."""
        rng = Rng(self.experiment.seed)
        load_weights(self.experiment, self.model)
        self.strategy.server = self.parts.method.init_server(
            self.model, self.strategy.data, rng, self.split.num_clients
        )
        self.finished = self.strategy.server

    @property
    def main_metric(self) -> str:
        """Give the metric that `best` is chosen by."""
        metric = self.parts.task.main_metric
        return f"{PERSONAL}{metric}" if self.strategy.only_personal else metric

    def _resume(self, grid: Grid) -> None:
        assert self.directory is not None
        assert self.journal is not None
        snapshot, refused = checkpoint.load(self.directory / "checkpoint")
        for line in refused:
            self.watcher.warn(f"{line}; using round {snapshot.round_}")
        self._check_data(snapshot)
        if snapshot.memories:
            if not isinstance(grid, checkpoint.HoldsMemory):
                raise checkpoint.CheckpointError(
                    f"engine={self.experiment.engine.name} cannot put back the memory of "
                    f"{len(snapshot.memories)} clients; resume with engine.name=ray or inline"
                )
            grid.restore_memories(snapshot.memories)
        self.strategy.holders = set(snapshot.progress["holders"])
        self.strategy.with_memory = set(snapshot.progress["with_memory"])
        self._check_memories(snapshot)
        device = next(self.model.parameters()).device
        self.strategy.server = replace(
            snapshot.server,
            model={k: t.to(device) for k, t in snapshot.server.model.items()},
            extra={k: t.to(device) for k, t in snapshot.server.extra.items()},
        )
        self.finished = self.strategy.server
        self.strategy.aggregator.restore(snapshot.aggregator)
        self._keep_precision(str(snapshot.progress["precision"]))
        self.elapsed = snapshot.progress["elapsed"]
        self.first_round = snapshot.round_ + 1
        try:
            self.journal.cut(snapshot.round_)
        except ValueError as error:
            raise checkpoint.CheckpointError(str(error)) from None

    def _check_data(self, snapshot: checkpoint.Snapshot) -> None:
        if snapshot.progress["split_sha256"] != self.split.sha256:
            raise checkpoint.CheckpointError(
                f"data={self.experiment.data['name']} gives another split than the one that the run began with: "
                "its files have changed, or another package version deals them otherwise"
            )
        if snapshot.progress["data_key"] != self.dataset.key:
            self._warn("files of the data have changed since the run began; the split is the same")

    def _check_memories(self, snapshot: checkpoint.Snapshot) -> None:
        lost = (self.strategy.with_memory | self.strategy.holders) - snapshot.memories.keys()
        if lost:
            raise checkpoint.CheckpointError(
                f"the checkpoint lacks the memory of {len(lost)} clients, which engine=flower cannot save: "
                "a method or personalization with client memory cannot be resumed after engine=flower"
            )

    def _keep_precision(self, name: str) -> None:
        """Go on in the arithmetic that the run began with, whatever `auto` would be on this machine."""
        self.experiment = replace(self.experiment, precision=name)
        self.strategy.experiment = self.scorer.experiment = self.experiment
        use_precision(self.model, name)
        self.strategy.wire = wire_of(self.experiment)

    def _finish_round(self, grid: Grid, round_: Round) -> None:
        record = round_.record(time.perf_counter() - self.began)
        if self.journal is not None:
            try:
                self._record(grid, self.journal, record)
            except OSError as error:
                raise OSError(error.errno, f"{error.strerror}; {self._advice(error)}", error.filename) from error
        self._tell(lambda: self.watcher.round(record))

    def _record(self, grid: Grid, journal: Journal, record: dict[str, Any]) -> None:
        """Put a finished round on disk."""
        journal.append(record)
        self.finished = self.strategy.server
        number, every = record["round"], self.experiment.checkpoint.every
        if number == self.experiment.rounds or (every and number % every == 0):
            journal.sync()
            self._save(grid, number, record["elapsed"])

    def _advice(self, error: OSError) -> str:
        """Say how to go on after the disk refused."""
        assert self.directory is not None
        mend = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "mend that"
        if any((self.directory / "checkpoint").glob("round-*")):
            return f"{mend}, then: fedssl run resume={self.directory}"
        return f"{mend} and run again with another `out`: nothing is saved yet"

    def _tell(self, call: Callable[[], None]) -> None:
        """Tell the watcher; one that fails, such as a logger without its server, does not end the run."""
        try:
            call()
        except Exception as error:
            with contextlib.suppress(Exception):
                self.watcher.warn(f"{type(self.watcher).__name__}: {type(error).__name__}: {error}")

    def _warn(self, line: str) -> None:
        self._tell(lambda: self.watcher.warn(line))

    def _finish_early(self, grid: Grid, error: BaseException) -> None:
        """Write what there is of a run that ends by `error`, which no second failure may hide."""
        if self.journal is None:
            return
        try:
            self._finish(grid, self.journal, "stopped" if isinstance(error, KeyboardInterrupt) else "failed")
        except Exception as second:
            error.add_note(f"the run directory is incomplete: {type(second).__name__}: {second}")

    def _save(self, grid: Grid, round_: int, elapsed: float) -> None:
        assert self.directory is not None
        progress = {
            "elapsed": elapsed,
            "precision": self.experiment.precision,
            "split_sha256": self.split.sha256,
            "data_key": self.dataset.key,
            "holders": sorted(self.strategy.holders),
            "with_memory": sorted(self.strategy.with_memory),
        }
        memories = grid.memories() if isinstance(grid, checkpoint.HoldsMemory) else {}
        server = self.strategy.server
        checkpoint.save(
            self.directory / "checkpoint",
            checkpoint.Snapshot(
                round_,
                replace(
                    server,
                    model={k: t.cpu() for k, t in server.model.items()},
                    extra={k: t.cpu() for k, t in server.extra.items()},
                ),
                self.strategy.aggregator.state(),
                memories,
                progress,
            ),
        )

    def _finish(self, grid: Grid, journal: Journal, status: str) -> None:
        """Write what follows from the rounds so far; a run that is not done has no hash of its memories."""
        begun = bool(self.finished.model or self.finished.extra)
        facts: dict[str, Any] = {
            "status": status,
            "warnings": check_dataset(self.dataset),
            "workers": getattr(grid, "num_workers", 0),
            "handover_round": getattr(grid, "handover_round", None),
            "split_sha256": self.split.sha256,
            "weights_sha256": weights_sha256(self.finished) if begun else None,
            "memory_sha256": self._memory_sha256(grid) if status == "done" else None,
        }
        journal.write_clients(
            {
                "num_labelled": [len(self.split.client(k).labelled) for k in range(self.split.num_clients)],
                "num_unlabelled": [len(self.split.client(k).unlabelled) for k in range(self.split.num_clients)],
                "num_test": [len(self.split.client(k).test) for k in range(self.split.num_clients)],
            }
        )
        if begun:
            self._write_model(journal)
            if type(self.parts.method).diagnostics is not Method.diagnostics:
                journal.write_json("method.json", self._described())
        journal.write_json("summary.json", summarise(self.experiment, journal, self.main_metric, facts))

    def _described(self) -> dict[str, Any]:
        clients = [self.client_data.client(client_id) for client_id in range(self.split.num_clients)]
        return self.parts.method.diagnostics(self.finished, self.model, clients)

    def _write_model(self, journal: Journal) -> None:
        partial = ""
        if self.strategy.keeps_parts:
            partial = f"parts stay at the clients (personalization={self.parts.personalization.name})"
        elif not self.parts.method.global_model:
            partial = f"every client has a model of its own (method={self.parts.method.name})"
        if not partial:
            if self.parts.task.has_logits:
                journal.write_json("reliability.json", self.scorer.reliability(self.finished))
            if self.parts.task.finds_classes:
                journal.write_json("open_world.json", self.scorer.open_world(self.finished))
        save_model(
            journal.directory,
            model_choice=self.experiment.model,
            state=self.finished.model,
            extra=self.finished.extra,
            calibration={"name": self.parts.calibration.name, **asdict(self.parts.calibration)},
            meta=Meta.of(self.dataset),
            partial=partial,
        )

    def _memory_sha256(self, grid: Grid) -> str | None:
        """Give the hash of all clients' memories; none, with a warning, unless all that have one tell theirs."""
        digests = self._digests(grid)
        if missing := sorted(self.strategy.with_memory - digests.keys()):
            self._warn(f"no memory_sha256: clients {', '.join(map(str, missing))} did not tell the hash of theirs")
            return None
        return memories_sha256(digests)

    def _digests(self, grid: Grid) -> dict[int, str]:
        holders = sorted(self.strategy.with_memory)
        messages = [
            Message(
                RecordDict({"experiment": self.strategy.wire}),
                dst_node_id=self.strategy.nodes[client_id],
                message_type="query.memory",
            )
            for client_id in holders
        ]
        digests: dict[int, str] = {}
        for reply in grid.send_and_receive(messages, timeout=self.experiment.deadline) if messages else []:
            client_id = self.strategy.clients.get(reply.metadata.src_node_id, -1)
            told = None if reply.has_error() else reply.content.get("client")
            if client_id in self.strategy.with_memory and isinstance(told, ConfigRecord) and "digest" in told:
                digests[client_id] = str(told["digest"])
        return digests


def create_app(watcher: Watcher | None = None) -> ServerApp:
    """Build the ServerApp; a simulation hands in its progress display."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        experiment = from_json(str(context.run_config.get("experiment", "")))
        run = ServerRun(experiment, watcher or Silence())
        run.start(grid, resume=bool(context.run_config.get("resume", False)))

    return app


app = create_app()
