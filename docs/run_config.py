"""Print the `--run-config` file that hands an experiment to `flwr run`.

python docs/run_config.py method=fixmatch data=digits clients=4 out=runs/one > experiment.toml
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from fedssl.config import ConfigError, Experiment, to_json
from fedssl.pretraining.run import fix_weights
from simulations.compose import compose_experiment
from simulations.run import check_out


def run_config(overrides: Sequence[str]) -> str:
    """Give one line of TOML; a run directory is made, with the `config.yaml` that report and resume read."""
    if own := [text for text in overrides if text.startswith("method_file=")]:
        raise ConfigError("method_file", own[0].partition("=")[2], "left out: clients take no code from the wire")
    experiment = fix_weights(compose_experiment(overrides), lambda line: print(line, file=sys.stderr), lambda _: None)
    if experiment.out:
        experiment = _prepare(experiment)
    return f"experiment = {json.dumps(to_json(experiment), ensure_ascii=False)}\n"


def _prepare(experiment: Experiment) -> Experiment:
    check_out(experiment.out)
    # Flower's server works in a folder of its own, so a relative path would lead elsewhere.
    path = Path(experiment.out).resolve()
    path.mkdir(parents=True, exist_ok=True)
    experiment = dataclasses.replace(experiment, out=str(path))
    text = yaml.safe_dump(dataclasses.asdict(experiment), sort_keys=False, allow_unicode=True)
    (path / "config.yaml").write_text(text, encoding="utf-8")
    return experiment


if __name__ == "__main__":
    try:
        print(run_config(sys.argv[1:]), end="")
    except ConfigError as error:
        print("run_config:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
