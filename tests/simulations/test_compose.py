from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hydra
import pytest

from fedssl.config import ConfigError, Experiment, to_json
from fedssl.data.base import SOURCES
from fedssl.methods.base import METHODS
from server.app import for_clients
from simulations import compose
from simulations.compose import check, compose_experiment, expand, experiments
from simulations.listing import choice

PLUG_IN = """
from dataclasses import dataclass
from typing import ClassVar
from fedssl.data.sources.cifar import Cifar10
from fedssl.config import option
from fedssl.methods.base import register
from fedssl.methods.fedavg import FedAvg

@register("composed_mine")
@dataclass
class Mine(FedAvg):
    '''A method of one's own.'''

    lr: float = option(0.5, "learning rate", above=0)
    defaults: ClassVar[tuple[str, ...]] = ("data=digits", "model=mlp", "model.hidden=8", "partition=iid", "rounds=7")
"""
PRESET = """# @package _global_
# Own: a preset for tests
defaults:
  - override /method: fedavg
  - override /model: lenet
method:
  lr: 0.25
rounds: 4
"""


@pytest.fixture
def plug_in(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(PLUG_IN)
    return f"method_file={path}"


@pytest.fixture
def preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text(PRESET)
    monkeypatch.setattr(compose, "CONF", tmp_path)
    return "experiment=own"


def test_no_override_gives_the_default_experiment() -> None:
    made = compose_experiment([])
    assert (made.method["name"], made.data["name"], made.partition["name"]) == (
        "fedossl",
        "fashion_small",
        "open_world",
    )
    assert (made.labels["name"], made.labels["rate"]) == ("client_rate", 0.5)
    assert (made.model["head"], made.model["weights"]) == ("cosine", "auto")
    assert made.calibration["name"] == "centroid"


def test_from_python_too_a_method_brings_its_own_calibration() -> None:
    assert check(Experiment(method={"name": "fedossl"})).calibration["name"] == "centroid"
    assert check(Experiment()).calibration == {"name": "none"}


def test_fixmatch_without_options_is_the_plain_experiment() -> None:
    # The width is the method's default, which only overrides bring in.
    assert compose_experiment(["method=fixmatch"]) == check(Experiment(model={"name": "resnet", "width": 8}))


def test_a_method_brings_its_own_defaults(plug_in: str) -> None:
    made = compose_experiment([plug_in, "method=composed_mine"])
    assert made.data["name"] == "digits"
    assert made.model == {"name": "mlp", "hidden": 8, "layers": 2}
    assert made.partition == {"name": "iid"}
    assert made.rounds == 7
    assert made.method["lr"] == 0.5
    assert made.method_source == PLUG_IN


def test_a_file_whose_method_nothing_chooses_is_refused(plug_in: str, preset: str) -> None:
    with pytest.raises(ConfigError, match=r"^method='': must be given, as method_file holds composed_mine$"):
        compose_experiment([plug_in])
    assert compose_experiment([plug_in, "method=fixmatch"]).method["name"] == "fixmatch"


def test_the_users_choice_beats_the_methods_defaults(plug_in: str) -> None:
    made = compose_experiment([plug_in, "method=composed_mine", "model=lenet", "rounds=2", "method.lr=0.125"])
    assert made.model == {"name": "lenet"}
    assert (made.rounds, made.method["lr"], made.data["name"]) == (2, 0.125, "digits")


def test_a_users_option_beats_the_methods_and_leaves_its_choice(plug_in: str) -> None:
    made = compose_experiment([plug_in, "method=composed_mine", "model.hidden=16"])
    assert made.model == {"name": "mlp", "hidden": 16, "layers": 2}


def test_a_preset_beats_defaults_and_the_user_beats_the_preset(preset: str) -> None:
    made = compose_experiment([preset])
    assert (made.method["name"], made.method["lr"], made.model["name"], made.rounds) == ("fedavg", 0.25, "lenet", 4)
    assert made.partition["name"] == "dirichlet"
    made = compose_experiment([preset, "method.lr=0.5", "model=mlp", "rounds=9"])
    assert (made.method["lr"], made.model["name"], made.rounds) == (0.5, "mlp", 9)


def test_a_preset_beats_the_defaults_of_the_users_method(preset: str, plug_in: str) -> None:
    made = compose_experiment([preset, plug_in, "method=composed_mine"])
    assert (made.method["name"], made.method["lr"], made.model["name"], made.rounds) == (
        "composed_mine",
        0.25,
        "lenet",
        4,
    )
    assert (made.data["name"], made.partition["name"]) == ("digits", "iid")


def test_the_order_of_overrides_does_not_matter() -> None:
    words = ["method=fedavg", "method.lr=0.5", "model=mlp", "model.hidden=4", "rounds=3"]
    assert to_json(compose_experiment(words)) == to_json(compose_experiment(words[::-1]))


def test_expand_gives_every_combination_in_order() -> None:
    assert expand(["method=fedavg,fixmatch", "rounds=3", "seed=0,1"]) == [
        ["method=fedavg", "rounds=3", "seed=0"],
        ["method=fedavg", "rounds=3", "seed=1"],
        ["method=fixmatch", "rounds=3", "seed=0"],
        ["method=fixmatch", "rounds=3", "seed=1"],
    ]
    assert expand(["seed=range(1,4)"]) == [["seed=1"], ["seed=2"], ["seed=3"]]
    assert expand([]) == [[]]


def test_expand_keeps_commas_in_paths_and_lists() -> None:
    assert expand(["out=a,b", "rounds=[1,2]"]) == [["out=a,b", "rounds=[1,2]"]]


OWN_METHOD = """
from dataclasses import dataclass
from fedssl.config import option
from fedssl.methods.base import register
from fedssl.methods.fedavg import FedAvg

@register("reads_files")
@dataclass
class ReadsFiles(FedAvg):
    '''Begins with a file of the server.'''
    first: str = option("none", "a file", path=True, words=("none",), local=True)
    second: str = option("", "a file that clients have too", path=True)
    third: str = option("", "no file")
"""


def test_a_path_is_what_a_method_declares_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    METHODS.load()
    monkeypatch.setattr(METHODS, "_values", dict(METHODS._values))
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(OWN_METHOD)
    given = ["method_file=mine.py", "method=reads_files"]
    made = compose_experiment([*given, "method.first=a b", "method.second=c", "method.third=d"]).method
    assert (made["first"], made["second"], made["third"]) == (f"{tmp_path}/a b", f"{tmp_path}/c", "d")
    chosen = compose_experiment([*given, "method.first=none"])
    assert (chosen.method["first"], chosen.method["second"]) == ("none", "")
    sent = for_clients(chosen).method
    assert {"first", *sent} == set(chosen.method) != set(sent)


PATHS = [
    "with space",
    "it's",
    'say "hi"',
    "a=b",
    "a,b",
    "~not-home",
    "back\\slash",
    "ends\\",
    "both\\'",
    "${oc.env:HOME}",
    "[x]{y}(z)",
    "äöü",
    "a: b # c",
    "null",
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_are_kept_verbatim(tmp_path: Path, path: str) -> None:
    import numpy as np

    data = tmp_path / f"{path}.npz"
    np.savez(data, x_train=np.zeros((4, 8, 8), np.uint8), y_train=np.arange(4) % 2)
    made = compose_experiment([f"out={path}", "data=npz", f"data.path={data}"])
    assert made.out == (path if path[0] != "~" else str(Path.cwd() / path))
    assert made.data["path"] == str(data)


def test_a_tilde_stands_for_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compose_experiment(["out=~/run"]).out == f"{tmp_path}/run"


def test_files_are_named_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    np.savez(tmp_path / "data.npz", x_train=np.zeros((4, 8, 8), np.uint8), y_train=np.arange(4) % 2)
    (tmp_path / "mine.py").write_text("")
    monkeypatch.chdir(tmp_path)
    made = compose_experiment(["data=npz", "data.path=data.npz", "method_file=mine.py"])
    assert (made.data["path"], made.method_file) == (str(tmp_path / "data.npz"), str(tmp_path / "mine.py"))
    assert check(dataclasses.replace(made, data={"name": "npz", "path": "data.npz"})).data == made.data
    assert (compose_experiment([]).method_file, made.out) == ("", "")


@pytest.mark.parametrize("name", ["warm up, second.safetensors", "a=b"])
def test_weights_of_a_warm_up_are_named_from_the_root(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in (name, f"{tmp_path}/{name}"):
        made = compose_experiment(["method=fedsto", f"method.warm_up_weights={given}"])
        assert made.method["warm_up_weights"] == f"{tmp_path}/{name}"
        sent = for_clients(made).method
        assert {**sent, "warm_up_weights": f"{tmp_path}/{name}"} == made.method
        assert "warm_up_weights" not in sent
    for kept in ("", "auto"):
        assert compose_experiment(["method=ssfl", f"method.warm_up_weights={kept}"]).method["warm_up_weights"] == kept


def test_the_address_of_a_cluster_is_kept_verbatim() -> None:
    assert compose_experiment(["engine.address=127.0.0.1:6379"]).engine.address == "127.0.0.1:6379"


@pytest.mark.parametrize("name", experiments())
def test_each_preset_composes_and_says_what_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (compose.CONF / "experiment" / f"{name}.yaml").read_text()
    if "needs data.path=" in text:
        with pytest.raises(ConfigError, match=r"data\.path"):
            compose_experiment([f"experiment={name}"])
        (source,) = (line.split()[-1] for line in text.splitlines() if "override /data: " in line)
        monkeypatch.setattr(SOURCES.get(source), "fingerprint", lambda _: "files")
    made = compose_experiment([f"experiment={name}"])
    assert check(made) == made
    first, second = text.splitlines()[:2]
    assert first == "# @package _global_"
    assert choice("experiment", name).sentence == second.lstrip("# ")
    assert "accuracy" in second or "mAP" in second
    assert " min" in second or " s)" in second


def test_check_writes_out_all_options() -> None:
    made = check(dataclasses.replace(Experiment(), model={"name": "resnet", "width": 4}))
    assert made.model == {
        "name": "resnet",
        "width": 4,
        "blocks": 1,
        "norm": "batch",
        "head": "linear",
        "weights": "",
        "weights_sha256": "",
        "pretrain_epochs": 5,
    }
    assert made.labels == {"name": "total_count", "count": 10, "noise": 0.0}
    assert made.aggregation == {"name": "FedAvg"}
    assert check(made) == made


def test_whole_numbers_in_float_fields_become_floats() -> None:
    whole = compose_experiment(
        ["partition=dirichlet", "participation=1", "method.weight_decay=0", "deadline=60", "partition.alpha=1"]
    )
    point = compose_experiment(
        ["partition=dirichlet", "participation=1.0", "method.weight_decay=0.0", "deadline=60.0", "partition.alpha=1.0"]
    )
    assert to_json(whole) == to_json(point)
    assert type(whole.partition["alpha"]) is float
    assert type(check(Experiment(validation=0)).validation) is float


def test_a_methods_own_hooks_are_named_by_the_method() -> None:
    made = compose_experiment(["method=fedavg", "calibration=method", "personalization=method"])
    assert (made.calibration["name"], made.personalization["name"]) == ("none", "none")


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_logger_that_is_not_installed_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=rf"logger='{name}': .*pip install 'fedssl\[{name}\]'"):
        check(dataclasses.replace(Experiment(), logger=type(Experiment().logger)(name)))


def test_threads_may_compose_at_once():
    given = [["method=fedavg", f"seed={seed}"] for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert [made.seed for made in pool.map(compose_experiment, given)] == list(range(8))


def test_a_program_that_uses_hydra_keeps_its_own(tmp_path):
    (tmp_path / "mine.yaml").write_text("a: 1\n")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        compose_experiment(["method=fedavg"])
        assert hydra.compose("mine").a == 1
