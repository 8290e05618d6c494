"""One run shown as it goes on, and many one after another in the numbered folders of another."""

from __future__ import annotations

import dataclasses
import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from fedssl.config import Experiment
from fedssl.metrics.base import metric_of
from simulations.compose import own_path
from simulations.failures import show_failure
from simulations.folders import made, new_folder, sole_writer
from simulations.progress import Display
from simulations.run import check_out, execute, load_run, plan, prepare


def show_run(experiment: Experiment, *, resume: bool = False) -> None:
    """Run or resume an experiment with what a person wants to see of it."""
    display = Display(Console(file=sys.stdout, soft_wrap=True))
    try:
        result = execute(experiment, display, resume=resume)
    finally:
        display.close()
    # Without the members of families, such as the scores of each class and each weather.
    final = result.summary["final"].items()
    shown = {name: value for name, value in final if not metric_of(name).is_member}
    scores = ", ".join(f"{k} {v:.4f}" for k, v in shown.items() if k != "round" and isinstance(v, float))
    print(f"final: {scores}\nreport: {result.directory / 'report.html'}", flush=True)


def run_all(out: str, experiments: Sequence[Experiment]) -> int:
    """Run experiments in numbered folders of `out`, and compare them; give the exit code."""
    check_out(out)
    for item in experiments:
        prepare(item)
    if out:
        base = made(Path(own_path(out)))
    else:
        base = new_folder(Path(f"runs/{datetime.datetime.now():%Y%m%d-%H%M%S}-multirun"))
    with sole_writer(base):
        check_out(str(base))
        for number, item in enumerate(experiments):
            plan(dataclasses.replace(item, out=str(base / f"{number:03d}")))
        return _run_planned(base, {})


def is_multirun(directory: str) -> bool:
    """Say whether a folder holds the runs of `-m`."""
    return bool(directory) and not (Path(directory) / "config.yaml").exists() and bool(_runs(Path(directory)))


def go_on(base: Path, overrides: Mapping[str, str]) -> int:
    """Run what is not done in the numbered folders, then compare all that is; give the exit code.

    A run that fails leaves the others alone. Raises ConfigError before anything runs.
    """
    with sole_writer(base, "resume"):
        return _run_planned(base, overrides)


def _run_planned(base: Path, overrides: Mapping[str, str]) -> int:
    folders = _runs(base)
    planned = [(folder, load_run(str(folder), dict(overrides))) for folder in folders]
    to_go_on = f"to go on: fedssl run resume={base}"
    failed: list[str] = []
    for number, (folder, experiment) in enumerate(planned, 1):
        if _done(folder, experiment):
            continue
        if len(planned) > 1:
            print(f"run {number}/{len(planned)}: {folder}", flush=True)
        try:
            show_run(experiment, resume=True)
        except KeyboardInterrupt:
            print(f"stopped in run {number} of {len(planned)}; {to_go_on}", flush=True)
            raise
        except Exception as error:
            show_failure(error)
            failed.append(folder.name)
    done = [folder for folder in folders if folder.name not in failed]
    if len(done) > 1:
        from fedssl.report.compare import compare

        print(f"comparison: {compare(done, base / 'comparison')}")
    if failed:
        print(f"fedssl: failed: {', '.join(failed)} of {len(folders)} runs; {to_go_on}", file=sys.stderr)
    return 1 if failed else 0


def _runs(base: Path) -> list[Path]:
    found = (file.parent for file in base.glob("[0-9][0-9][0-9]*/config.yaml"))
    return sorted(found, key=lambda folder: (len(folder.name), folder.name))


def _done(folder: Path, experiment: Experiment) -> bool:
    """Say whether a run has all its rounds; one that stopped or failed has a summary of fewer."""
    try:
        return bool(json.loads((folder / "summary.json").read_text(encoding="utf-8"))["rounds"] >= experiment.rounds)
    except (OSError, ValueError, KeyError, TypeError):
        return False
