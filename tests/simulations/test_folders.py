"""Commands that begin at the same moment never write to the same place."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from fedssl.config import ConfigError
from simulations.cli import main
from simulations.compose import compose_experiment
from simulations.folders import new_folder, sole_writer
from simulations.run import execute

WORDS = "method=fedavg data=digits partition=iid model=mlp model.hidden=8 clients=2 rounds=1 engine=inline"


def _make(base: Path, count: int, barrier: object, queue: object) -> None:
    for number in range(count):
        barrier.wait()  # type: ignore[attr-defined]
        queue.put(str(new_folder(base / f"{number}" / "run")))  # type: ignore[attr-defined]


def test_folders_made_at_the_same_moment_are_different(tmp_path: Path) -> None:
    count, team = 20, 4
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(team), context.Queue()
    processes = [context.Process(target=_make, args=(tmp_path, count, barrier, queue)) for _ in range(team)]
    for one in processes:
        one.start()
    found = [queue.get(timeout=60) for _ in range(count * team)]
    for one in processes:
        one.join(60)
    assert len(set(found)) == count * team
    assert {Path(path).name for path in found} == {"run", "run-2", "run-3", "run-4"}


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^out=.*a folder that can be made"):
        new_folder(tmp_path / "file" / "run")


@pytest.mark.parametrize("folder", [True, False])
def test_only_one_process_writes_to_a_place(tmp_path: Path, folder: bool) -> None:
    place = tmp_path / "place"
    if folder:
        place.mkdir()
    for _ in range(2):
        with (
            sole_writer(place),
            pytest.raises(ConfigError, match=r"^resume=.*that no other process writes to"),
            sole_writer(place, "resume"),
        ):
            pass
        assert sorted(path.name for path in tmp_path.iterdir()) == (["place"] if folder else [])


def test_a_run_that_goes_on_elsewhere_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = execute(compose_experiment([*WORDS.split(), f"out={tmp_path / 'run'}"])).directory
    before = (out / "metrics.jsonl").read_bytes()
    capsys.readouterr()
    with sole_writer(out):
        assert main(["run", f"resume={out}", "rounds=2"]) == 2
    assert capsys.readouterr().err.startswith("fedssl: resume=")
    assert (out / "metrics.jsonl").read_bytes() == before


def test_an_empty_folder_goes_to_the_first_that_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    for command in (["run", *WORDS.split()], ["run", "-m", *WORDS.split(), "seed=0,1"], ["split", "data=digits"]):
        with sole_writer(tmp_path / "run"):
            assert main([*command, f"out={tmp_path / 'run'}"]) == 2
        assert capsys.readouterr().err.startswith("fedssl: out=")
        assert os.listdir(tmp_path / "run") == []


def test_splits_and_comparisons_without_a_name_get_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [str(execute(compose_experiment([*WORDS.split(), f"seed={n}", f"out=r{n}"])).directory) for n in (0, 1)]
    for _ in range(2):
        assert main(["split", "data=digits", "clients=2"]) == 0
        assert main(["report", *runs]) == 0
    assert main(["report", "r0", "missing"]) == 2
    assert sorted(os.listdir(tmp_path)) == ["comparison", "comparison-2", "r0", "r1", "split", "split-2"]
    with np.load("split/split.npz") as one, np.load("split-2/split.npz") as other:
        assert one.files == other.files


def test_one_file_is_pre_trained_by_one_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "weights.safetensors"
    words = f"pretrain data=digits model=resnet model.width=2 epochs=1 batch_size=64 threads=1 out={out}"
    with sole_writer(out):
        assert main(words.split()) == 2
    assert "no other process writes to" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []
