"""A command whose reader goes away does its work all the same."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulations.streams import Outlet

PROGRAM = Path(sys.executable).with_name("fedssl")
RUN = "method=fedavg data=digits partition=iid model=mlp model.hidden=8 clients=2 rounds=6 engine=inline"
GONE = "fedssl: nobody reads the output any more (Broken pipe); going on without it\n"


def test_what_nobody_reads_is_dropped_and_noted_once() -> None:
    reader, writer = os.pipe()
    lost: list[OSError] = []
    stream = io.TextIOWrapper(io.BufferedWriter(Outlet(writer, lost.append)), encoding="utf-8")
    print("one", file=stream, flush=True)
    assert os.read(reader, 100) == b"one\n"
    os.close(reader)
    for _ in range(3):
        print("two" * 10_000, file=stream, flush=True)
    assert [type(error) for error in lost] == [BrokenPipeError]
    stream.close()
    os.close(writer)


def ended(command: list[str], folder: Path, *, lines: int, both: bool = False) -> tuple[int, str]:
    """Run a command whose reader leaves after some lines; return its exit code and what standard error had."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.STDOUT if both else subprocess.PIPE
    with subprocess.Popen(
        [PROGRAM, *command], cwd=folder, stdout=subprocess.PIPE, stderr=output, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        for _ in range(lines):
            assert process.stdout.readline()
        process.stdout.close()
        shown = process.stderr.read() if process.stderr is not None else ""
        return process.wait(60), shown


@pytest.mark.slow
@pytest.mark.parametrize("both", [False, True])
def test_a_run_goes_on_without_its_reader(tmp_path: Path, both: bool) -> None:
    code, shown = ended(["run", *RUN.split(), "out=run"], tmp_path, lines=1, both=both)
    assert code == 0
    assert shown == ("" if both else GONE)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 6
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("command", [["list", "methods"], ["--help"], ["run", "--help"], ["--version"]])
def test_what_only_prints_ends_without_a_word(tmp_path: Path, command: list[str]) -> None:
    assert ended(command, tmp_path, lines=0) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["1", "2"])
def test_a_command_without_a_stream_does_its_work(tmp_path: Path, stream: str) -> None:
    command = f'exec "{PROGRAM}" split data=digits clients=2 out=split {stream}>&-'
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0
    assert sorted(os.listdir(tmp_path / "split")) == ["split.npz", "split.png"]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a device that is always full")
def test_a_full_disk_under_the_output_and_a_plain_encoding_do_not_end_a_run(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii"}
    command = [PROGRAM, "run", *RUN.split(), "rounds=1"]
    command.remove("rounds=6")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*command, "out=a"], cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr.count(b"\n")) == (0, 1)
    assert b"(No space left on device)" in done.stderr
    shown = subprocess.run([*command, "out=b"], cwd=tmp_path, env=environment, capture_output=True, check=True).stdout
    assert shown.startswith(rb"fedavg \xb7 digits")
