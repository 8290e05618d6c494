from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from simulations.cli import main
from simulations.run import execute

Check = Callable[..., str]
COMMANDS = [
    # unknown words, with the nearest spelling
    ("rnu", "command", "did you mean run?"),
    ("''", "command", "one of run"),
    ("run rnds=5", "rnds", "did you mean rounds?"),
    ("run methd=fedavg", "methd", "did you mean method?"),
    ("run method.lrr=0.1", "method.lrr", "did you mean method.lr?"),
    ("run method=fedavgg", "method", "did you mean fedavg?"),
    ("run data=digit", "data", "did you mean digits?"),
    ("run model=lennet", "model", "did you mean lenet?"),
    ("run partition=dirichlett", "partition", "did you mean dirichlet?"),
    ("run labels=client_rates", "labels", "did you mean client_rate?"),
    ("run calibration=platt", "calibration", "one of"),
    ("run personalization=finetuned", "personalization", "did you mean finetune?"),
    ("run aggregation=FedAvgg", "aggregation", "did you mean FedAvg"),
    ("run engine=dask", "engine", "ray, inline, flower"),
    ("run engine.name=dask", "engine.name", "ray, inline, flower"),
    ("run logger=wandb", "logger", "one of files"),
    ("run experiment=nope", "experiment", "one of"),
    ("run experiment=", "experiment", "one of"),
    ("run engine.wrkers=1", "engine.wrkers", "did you mean engine.workers?"),
    ("run checkpoint.evry=3", "checkpoint.evry", "did you mean checkpoint.every?"),
    ("run rounds.x=1", "rounds.x", "left out: it is rounds=VALUE"),
    ("run method=fedavg method.x.y=1", "method.x.y", "one of method.lr"),
    ("run model=lenet model.width=4", "model.width", "left out: model=lenet has no options"),
    ("run data.path=x", "data.path", "left out: data=fashion_small has no options"),
    ("run method_source=x", "method_source", "one of"),
    ("list methodss", "list", "did you mean methods?"),
    ("list methods data", "list", "followed by one group or KEY=CHOICE"),
    ("list method=fixmtch", "method", "did you mean fixmatch?"),
    ("list methd=fixmatch", "list", "did you mean method?"),
    ("list method=", "method", "one of autoencoder"),
    ("list experiment=nope", "experiment", "one of"),
    ("list --serach x", "option", "did you mean --search?"),
    ("list --search", "--search", "followed by a text"),
    ("list data --search digitz", "--search", "did you mean digits?"),
    ("list data --search zzz", "--search", "an option of data"),
    ("list method=fixmatch --search x", "--search", "left out beside method=fixmatch"),
    # types
    ("run rounds=abc", "rounds", "a whole number"),
    ("run rounds=1e3", "rounds", "a whole number"),
    ("run rounds=1.5", "rounds", "a whole number"),
    ("run rounds=true", "rounds", "a whole number"),
    ("run rounds=", "rounds", "a whole number"),
    ("run rounds=null", "rounds", "a whole number"),
    ("run 'rounds=[1,2]'", "rounds", "a whole number"),
    ("run 'rounds={a:1}'", "rounds", "a whole number"),
    ("run method.lr=abc", "method.lr", "a number > 0"),
    ("run method.lr=true", "method.lr", "a number > 0"),
    ("run method.lr=", "method.lr", "a number > 0"),
    ("run 'method.lr=[1]'", "method.lr", "a number > 0"),
    ("run 'method.lr={a:1}'", "method.lr", "a number > 0"),
    ("run 'method={name:fedavg}'", "method", "one of"),
    ("run method=", "method", "one of"),
    ("run method=fedavg method.schedule=cosin", "method.schedule", "did you mean cosine?"),
    ("run checkpoint=3", "checkpoint", "checkpoint.every"),
    ("run precision=fp8", "precision", "fp32"),
    ("run device=tpu", "device", "auto"),
    # ranges
    ("run rounds=0", "rounds", ">= 1"),
    ("run rounds=-1", "rounds", ">= 1"),
    (f"run rounds={'9' * 30}", "rounds", "18 digits"),
    (f"run method.lr={'9' * 400}", "method.lr", "18 digits"),
    (f"run rounds={'9' * 5000}", "rounds", "Hydra can read"),
    ("run method.lr=nan", "method.lr", "> 0"),
    ("run method.lr=inf", "method.lr", "> 0"),
    ("run method.lr=-inf", "method.lr", "> 0"),
    ("run method.lr=0", "method.lr", "> 0"),
    ("run participation=0", "participation", "> 0 and <= 1"),
    ("run participation=1.5", "participation", "<= 1"),
    ("run min_answers=2", "min_answers", "<= 1"),
    ("run validation=1", "validation", "< 1"),
    ("run seed=-1", "seed", ">= 0"),
    ("run clients=0", "clients", ">= 1"),
    ("run deadline=0", "deadline", "> 0"),
    ("run deadline=inf", "deadline", "> 0"),
    ("run engine.workers=-1", "engine.workers", ">= 0"),
    ("run checkpoint.every=-1", "checkpoint.every", ">= 0"),
    ("run evaluation.every=0", "evaluation.every", ">= 1"),
    ("run model.width=0", "model.width", ">= 1"),
    ("run partition=dirichlet partition.alpha=0", "partition.alpha", "> 0"),
    ("run labels=total_count labels.count=0", "labels.count", ">= 1"),
    ("run aggregation=FedTrimmedAvg aggregation.beta=0.5", "aggregation.beta", "< 0.5"),
    ("run data=digits clients=2000", "clients", "at most 1294"),
    ("run data=digits partition=iid clients=999999999999", "clients", "at most 1294"),
    ("split rounds=0", "rounds", ">= 1"),
    # grammar
    ("run rounds=3 rounds=4", "rounds", "given once"),
    ("run +x=1", "override", "KEY=VALUE"),
    ("run ++rounds=3", "override", "KEY=VALUE"),
    ("run ~rounds", "override", "KEY=VALUE"),
    ("run hydra.run.dir=x", "override", "KEY=VALUE"),
    ("run hydra=x", "override", "KEY=VALUE"),
    ("run a", "override", "KEY=VALUE"),
    ("run =3", "override", "KEY=VALUE"),
    ("run --rounds=5", "override", "KEY=VALUE"),
    ("run --rounds 5", "override", "KEY=VALUE"),
    ("split -m", "override", "KEY=VALUE"),
    ("run 'rounds=${oc.env:HOME}'", "rounds", "without ${...}"),
    ("run 'method.schedule=${x}'", "method.schedule", "without ${...}"),
    ("run 'rounds=5\"'", "rounds", "Hydra can read"),
    ("run 'method.lr=('", "method.lr", "Hydra can read"),
    (f"run rounds={'[' * 3000}", "rounds", "Hydra can read"),
    ("run rounds=1,2", "rounds", "several need -m"),
    ("run method=fedavg,fixmatch", "method", "several need -m"),
    ("run 'method.lr=range(1,3)'", "method.lr", "several need -m"),
    ("run -m rounds=1,0 data=digits", "rounds", ">= 1"),
    ("run -m 'method=glob(*)'", "method", "separated by commas"),
    ("run -m 'seed=range(0,1000000000)'", "-m", "combinations"),
    ("run -m data=digits partition=iid clients=4,2000", "clients", "at most 1294"),
    ("run 'rounds=1\n2'", "rounds", "Hydra can read"),
    ("run 'ro\nunds=1'", "ro unds", "Hydra can read"),
    # method files
    ("run method_file=", "method_file", "the path of a Python file"),
    ("run method_file=missing.py", "method_file", "the path of a Python file"),
    ("run method_file=.", "method_file", "the path of a Python file"),
    # run directories
    ("run resume=", "resume", "run directory"),
    ("run resume=missing", "resume", "run directory"),
    ("run resume=.", "resume", "run directory"),
    ("run resume=a resume=b", "resume", "given once"),
    ("run -m resume=a", "resume", "without -m"),
    ("report", "report", "one or more run directories"),
    ("report .", "report", "a run directory"),
    ("report missing missing", "report", "a run directory"),
    ("report . --outt=x", "option", "did you mean --out?"),
    ("report . --out", "--out", "followed by a path"),
    ("report . --out x", "--out", "left out: one run's report"),
    ("predict", "predict", "RUN --data PATH"),
    ("predict .", "predict", "RUN --data PATH"),
    ("predict --data x", "predict", "RUN --data PATH"),
    ("predict a b --data x", "predict", "RUN --data PATH"),
    ("predict missing --data x", "run", "a run directory"),
    ("predict missing --data x --foo y", "option", "one of --data"),
]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Run a command that must be refused in one line, with nothing written; give the line."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def check(*argv: str, field: str) -> str:
        before = tree(tmp_path)
        code = main(argv)
        shown = capsys.readouterr()
        assert code == 2, shown.err
        assert shown.err.endswith("\n")
        assert shown.err.count("\n") == 1
        assert shown.err.startswith(f"fedssl: {field}=")
        assert tree(tmp_path) == before
        cache = Path(os.environ["FEDSSL_CACHE"])
        assert not list(cache.glob(".new-*"))
        return shown.err

    return check


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize(("command", "field", "words"), COMMANDS, ids=range(len(COMMANDS)))
def test_a_bad_command_is_refused_in_one_line(refused: Check, command: str, field: str, words: str) -> None:
    assert words in refused(*shlex.split(command), field=field)


METHOD_FILES = {
    "syntax": ("def broken(:\n", "SyntaxError"),
    "raises": ("raise RuntimeError('first\\nsecond')\n", "RuntimeError: first second"),
    "exits": ("raise SystemExit(0)\n", "SystemExit"),
    "import": ("import no_such_module_anywhere\n", "no_such_module_anywhere"),
    "taken": (
        "from fedssl.methods.base import register\nfrom fedssl.methods.fedavg import FedAvg\n"
        "@register('fedavg')\nclass Mine(FedAvg): pass\n",
        "ValueError",
    ),
}


@pytest.mark.parametrize("name", METHOD_FILES)
def test_a_bad_method_file_is_refused(refused: Check, tmp_path: Path, name: str) -> None:
    text, words = METHOD_FILES[name]
    (tmp_path / "bad.py").write_text(text)
    assert words in refused("run", f"method_file={tmp_path / 'bad.py'}", field="method_file")


def test_bytes_that_are_no_text_are_no_method_file(refused: Check, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_bytes(b"\xff\xfe\x00")
    assert "UnicodeDecodeError" in refused("run", f"method_file={tmp_path / 'bad.py'}", field="method_file")


def test_a_method_file_that_registers_nothing_adds_no_choice(refused: Check, tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    assert "must be" in refused("run", f"method_file={tmp_path / 'empty.py'}", "method=mine", field="method")


OUTS = {
    "taken": lambda here: (here / "kept.txt").write_text("kept") and here,
    "file": lambda here: (here / "file").write_text("kept") and here / "file",
    "below_file": lambda here: (here / "file").write_text("kept") and here / "file" / "run",
}


@pytest.mark.parametrize("command", ["run", "split"])
@pytest.mark.parametrize("name", OUTS)
def test_an_out_that_is_taken_is_refused(refused: Check, tmp_path: Path, command: str, name: str) -> None:
    assert "must be" in refused(command, "data=digits", f"out={OUTS[name](tmp_path)}", field="out")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_an_out_in_a_folder_that_may_not_be_written_is_refused(refused: Check, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert "must be" in refused("run", "data=digits", f"out={locked / 'run'}", field="out")


def images(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


X, Y = images(40, 8, 8), np.arange(40) % 4
ARRAYS = {
    "object_labels": {"x_train": X, "y_train": np.array([{}] * 40, dtype=object)},
    "object_images": {"x_train": np.array([None] * 40, dtype=object), "y_train": Y},
    "label_below": {"x_train": X, "y_train": Y - 2},
    "label_above": {"x_train": X, "y_train": Y * 1000},
    "label_above_names": {"x_train": X, "y_train": Y, "class_names": np.array(["a", "b"])},
    "float_labels": {"x_train": X, "y_train": Y.astype(float)},
    "text_labels": {"x_train": X, "y_train": Y.astype(str)},
    "nan_images": {"x_train": np.full((40, 8, 8), np.nan), "y_train": Y},
    "images_above_one": {"x_train": X.astype(np.float32), "y_train": Y},
    "int_images": {"x_train": X.astype(np.int64), "y_train": Y},
    "complex_images": {"x_train": X.astype(complex), "y_train": Y},
    "ndim_2": {"x_train": X.reshape(40, 64), "y_train": Y},
    "ndim_5": {"x_train": X.reshape(40, 1, 1, 8, 8), "y_train": Y},
    "labels_ndim": {"x_train": X, "y_train": Y[:, None]},
    "lengths": {"x_train": X, "y_train": Y[:-1]},
    "none": {"x_train": X[:0], "y_train": Y[:0]},
    "side_4": {"x_train": images(40, 4, 4), "y_train": Y},
    "side_200": {"x_train": images(40, 200, 8), "y_train": Y},
    "channels": {"x_train": images(40, 8, 8, 2), "y_train": Y},
    "no_labels": {"x_train": X},
    "no_images": {"y_train": Y},
    "one_class": {"x_train": X, "y_train": Y * 0},
    "all_unlabelled": {"x_train": X, "y_train": Y * 0 - 1},
    "half_a_test": {"x_train": X, "y_train": Y, "x_test": X},
    "test_shape": {"x_train": X, "y_train": Y, "x_test": images(40, 9, 9), "y_test": Y},
    "test_unlabelled": {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y * 0 - 1},
}


@pytest.mark.parametrize("name", ARRAYS)
def test_bad_arrays_are_refused(refused: Check, tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "bad.npz", **ARRAYS[name])
    assert "must be" in refused("run", "data=npz", f"data.path={tmp_path / 'bad.npz'}", "clients=2", field="data.path")


def damaged() -> dict[str, bytes]:
    from io import BytesIO

    buffer = BytesIO()
    np.savez_compressed(buffer, x_train=X, y_train=Y)
    whole = buffer.getvalue()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]
    return {"truncated": whole[:middle], "flipped": flipped, "text": b"not a zip\n", "empty": b""}


@pytest.mark.parametrize("name", damaged())
def test_damaged_files_are_refused(refused: Check, tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.npz").write_bytes(damaged()[name])
    assert "must be" in refused("run", "data=npz", f"data.path={tmp_path / 'bad.npz'}", "clients=2", field="data.path")


@pytest.mark.parametrize("path", ["", "missing.npz", "."])
def test_a_path_without_a_file_is_refused(refused: Check, path: str) -> None:
    assert "must be" in refused("run", "data=npz", f"data.path={path}", field="data.path")


def test_malformed_data_leaves_the_cache_as_it_was(refused: Check, tmp_path: Path) -> None:
    cache = Path(os.environ["FEDSSL_CACHE"])
    cache.mkdir(exist_ok=True)
    before = sorted(cache.iterdir())
    np.savez(tmp_path / "bad.npz", x_train=X, y_train=Y[:-1])
    assert "must be" in refused("run", "data=npz", f"data.path={tmp_path / 'bad.npz'}", field="data.path")
    assert sorted(cache.iterdir()) == before


def test_a_model_that_cannot_take_the_shape_is_refused(
    refused: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedssl.models import specs

    monkeypatch.setattr(specs, "check_image_shape", _refuse_shape)
    assert "must be" in refused("run", "data=digits", "partition=iid", "clients=2", field="model")


def _refuse_shape(shape: tuple[int, int, int]) -> None:
    from fedssl.config import ConfigError

    raise ConfigError("model", shape, "given other images")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the directory of a small finished run."""
    from simulations.compose import compose_experiment

    out = tmp_path_factory.mktemp("done") / "run"
    words = "method=fedavg data=digits partition=iid model=mlp model.hidden=8 clients=2 rounds=2 engine=inline"
    return execute(compose_experiment([*words.split(), f"out={out}"])).directory


RESUMES = [
    ("seed=2", "seed", "left out"),
    ("method.lr=0.5", "method.lr", "left out"),
    ("logger.x=1", "logger.x", "left out"),
    ("rounds=1", "rounds", "at least the 2"),
    ("rounds=1e3", "rounds", "a whole number"),
    ("'rounds=['", "rounds", "Hydra can read"),
    ("engine=dask", "engine.name", "ray, inline, flower"),
    ("engine.wrkers=1", "engine.wrkers", "did you mean workers?"),
    ("engine.workers=-1", "engine.workers", ">= 0"),
    ("logger=wandb", "logger.name", "one of files"),
]


@pytest.mark.parametrize(("override", "field", "words"), RESUMES)
def test_a_run_resumes_only_as_it_was(refused: Check, done: Path, override: str, field: str, words: str) -> None:
    before = tree(done)
    assert words in refused("run", f"resume={done}", *shlex.split(override), field=field)
    assert tree(done) == before


@pytest.mark.parametrize("text", ["", "a: [", "- 1\n", "rounds: 0\n", "rounds: x\n", "unheard: 1\n", "\0"])
def test_a_run_with_a_damaged_config_is_not_resumed(refused: Check, tmp_path: Path, text: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(text)
    assert "config.yaml" in refused("run", f"resume={tmp_path / 'run'}", field="resume")


def test_images_of_another_shape_are_not_predicted(refused: Check, done: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=images(3, 9, 9))
    assert "8x8x1" in refused("predict", str(done), "--data", str(tmp_path / "other.npz"), field="data")


@pytest.mark.parametrize("path", ["missing", "~no-such-user/x", "missing.npz", "."])
def test_data_to_predict_that_is_missing_or_empty_is_refused(refused: Check, done: Path, path: str) -> None:
    assert "must be" in refused("predict", str(done), "--data", path, field="data")


@pytest.mark.parametrize("out", ["missing/x.csv", "..", "x.png"])
def test_predictions_go_to_a_table_in_a_folder_that_is_there(
    refused: Check, done: Path, tmp_path: Path, out: str
) -> None:
    data = tmp_path / "good.npz"
    np.savez(data, x=images(3, 8, 8))
    assert "must be" in refused("predict", str(done), f"--data={data}", f"--out={out}", field="--out")
