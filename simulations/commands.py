"""What each command does with its arguments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fedssl.config import ConfigError, nearest
from simulations.failures import show_warnings
from simulations.folders import made, new_folder, sole_writer

if TYPE_CHECKING:
    from fedssl.predict.detector import BoxPredictor

RUN_HELP = """\
fedssl run [KEY=VALUE ...]    one experiment
fedssl run -m KEY=A,B ...     every combination of comma-separated values, then a comparison
fedssl run experiment=NAME    a preset (fedssl list experiments)
fedssl run resume=DIR         go on with a stopped run, or with the runs of -m in a folder; beside it only rounds,
                              engine.* and logger

Example: fedssl run method=fixmatch data=digits rounds=5 partition=dirichlet partition.alpha=0.1
Choices: fedssl list (the groups), fedssl list methods, fedssl list method=fixmatch (its options)
"""
SPLIT_HELP = """\
fedssl split [KEY=VALUE ...]    build and draw who holds which samples and labels, without training

Example: fedssl split data=fashion_small clients=20 partition=dirichlet partition.alpha=0.1 out=split20
"""
REPORT_HELP = """\
fedssl report DIR             rebuild DIR/report.html
fedssl report A B C [--out F] compare runs, with intervals over seeds, in F (default: comparison, comparison-2, ...)

Example: fedssl report runs/fixmatch-0 runs/fedavg-0 --out comparison
"""
PREDICT_HELP = """\
fedssl predict RUN --data PATH [--out FILE]    labels and calibrated confidences to CSV (default: predictions.csv)

PATH is a folder of pictures, one picture, or an .npz with images; for sensors, an .npz of recordings.
A detector gives one line a box, in pixels of the picture as it is in its file:
  --score 0.25    least confidence of a box
  --draw FOLDER   write every picture with its boxes there too (a.jpg as a.jpg.png); a folder apart from PATH
Example: fedssl predict runs/mine --data photos/ --out photos.csv
"""


def wants_help(argv: Sequence[str], text: str) -> bool:
    """Print a command's help if it is asked for."""
    asked = any(word in ("-h", "--help") for word in argv)
    if asked:
        print(text, end="")
    return asked


def run(argv: Sequence[str]) -> int:
    """Run experiments."""
    if wants_help(argv, RUN_HELP):
        return 0
    from simulations.compose import compose_experiment, expand, split_override, unique
    from simulations.multirun import go_on, is_multirun, run_all, show_run
    from simulations.run import load_run

    overrides = [word for word in argv if word not in ("-m", "--multirun")]
    given = dict(split_override(word) for word in overrides)
    many = len(overrides) < len(argv)
    if "resume" in given:
        if many:
            raise ConfigError("resume", given["resume"], "given without -m")
        rest = unique(overrides)
        directory = rest.pop("resume")
        if is_multirun(directory):
            return go_on(Path(directory), rest)
        show_run(load_run(directory, rest), resume=True)
    elif many:
        return run_all(given.get("out", ""), [compose_experiment(item) for item in expand(overrides)])
    else:
        show_run(compose_experiment(overrides))
    return 0


def split(argv: Sequence[str]) -> int:
    """Build and draw a split."""
    if wants_help(argv, SPLIT_HELP):
        return 0
    from simulations.compose import compose_experiment
    from simulations.run import check_out, prepare_split

    experiment = compose_experiment(argv)
    check_out(experiment.out)
    drawn, warnings = prepare_split(experiment)
    show_warnings(warnings)
    from fedssl.report.split import draw_split

    out = made(Path(experiment.out)) if experiment.out else new_folder(Path("split"))
    with sole_writer(out):
        check_out(str(out))
        drawn.save(out / "split.npz")
        draw_split(out / "split.npz", out / "split.png")
    print(f"{drawn.num_clients} clients, sha256 {drawn.sha256}\n{out / 'split.npz'}\n{out / 'split.png'}")
    return 0


def report(argv: Sequence[str]) -> int:
    """Build or compare reports."""
    if wants_help(argv, REPORT_HELP):
        return 0
    paths, options = _arguments(argv, ("--out",))
    if not paths:
        raise ConfigError("report", "", "followed by one or more run directories")
    if len(paths) == 1:
        from fedssl.report.page import build

        if "--out" in options:
            raise ConfigError("--out", options["--out"], "left out: one run's report is in its directory")
        print(build(Path(paths[0])))
        return 0
    from fedssl.report.compare import compare
    from simulations.compose import checked_path

    out = Path(checked_path("--out", options["--out"])) if "--out" in options else new_folder(Path("comparison"))
    try:
        print(compare([Path(path) for path in paths], out))
    except BaseException:
        if "--out" not in options:
            with suppress(OSError):
                out.rmdir()
        raise
    return 0


def predict(argv: Sequence[str]) -> int:
    """Label new samples with a run's final model."""
    if wants_help(argv, PREDICT_HELP):
        return 0
    paths, options = _arguments(argv, ("--data", "--out", "--score", "--draw"))
    if len(paths) != 1 or "--data" not in options:
        raise ConfigError("predict", " ".join(argv), "RUN --data PATH")
    from fedssl.predict.classifier import Predictor, read_samples, sample_warnings, write_predictions
    from fedssl.predict.load import load
    from simulations.compose import checked_path

    model = load(Path(paths[0]))
    if not isinstance(model, Predictor):
        return _predict_boxes(model, options)
    for name in ("--score", "--draw"):
        if name in options:
            raise ConfigError(name, options[name], f"left out: {paths[0]} is no run of a detector")
    names, samples = read_samples(checked_path("--data", options["--data"]), model.meta)
    out = _table(options)
    show_warnings(sample_warnings(samples, model.meta))
    labels, confidences = model(samples)
    try:
        write_predictions(out, names, labels, confidences, model.meta.class_names)
    except OSError as error:
        raise ConfigError("--out", str(out), f"a file that can be written ({error.strerror})") from None
    print(f"{len(names)} predictions in {out}")
    return 0


def _table(options: dict[str, str]) -> Path:
    from simulations.compose import checked_path

    out = Path(checked_path("--out", options.get("--out", "predictions.csv")))
    if out.is_dir() or not out.parent.is_dir() or not os.access(out.parent, os.W_OK | os.X_OK):
        raise ConfigError("--out", str(out), "a file in a folder that exists and may be written to")
    if out.suffix != ".csv":
        raise ConfigError("--out", str(out), "a name that ends in .csv, so that no picture is overwritten")
    return out


def _predict_boxes(model: BoxPredictor, options: dict[str, str]) -> int:
    from fedssl.predict.detector import SCORE, predict_files
    from simulations.compose import checked_path

    try:
        score = float(options.get("--score", SCORE))
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise ConfigError("--score", options["--score"], "a number in 0..1")
    out = _table(options)
    drawn = Path(checked_path("--draw", options["--draw"])) if "--draw" in options else None
    if drawn is not None and drawn.exists() and not drawn.is_dir():
        raise ConfigError("--draw", str(drawn), "a folder, which is made if it is missing")
    pictures, boxes = predict_files(model, checked_path("--data", options["--data"]), out, drawn, score)
    print(f"{boxes} boxes in {pictures} pictures in {out}" + (f", drawn in {drawn}" if drawn else ""))
    return 0


def pretrain(argv: Sequence[str]) -> int:
    """Train a backbone without labels."""
    from simulations import pretrain as module

    if wants_help(argv, module.help_text()):
        return 0
    return module.pretrain(argv)


def list_choices(argv: Sequence[str]) -> int:
    """Print what there is to choose."""
    from simulations import list_command

    if wants_help(argv, list_command.HELP):
        return 0
    return list_command.list_choices(argv)


def _arguments(argv: Sequence[str], known: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    paths: list[str] = []
    options: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        if not word.startswith("-"):
            paths.append(word)
            continue
        name, sign, value = word.partition("=")
        if name not in known:
            raise ConfigError("option", name, f"one of {', '.join(known)}", nearest(name, known))
        found = value if sign else next(words, "")
        if not found:
            raise ConfigError(name, found, "followed by a number" if name == "--score" else "followed by a path")
        options[name] = found
    return paths, options
