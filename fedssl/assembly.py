"""The objects that an experiment names: method, hooks, network."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass

import torch

from fedssl.calibration.base import CALIBRATIONS, CalibrationHook
from fedssl.config import ConfigError, Experiment, sha256
from fedssl.data.base import SOURCES, Dataset, DataSource
from fedssl.data.cache import open_dataset
from fedssl.methods.base import METHODS, Method, check_task
from fedssl.models.base import MODELS
from fedssl.models.build import build_model
from fedssl.models.weights import load_backbone
from fedssl.partition.base import LABELS, PARTITIONS
from fedssl.partition.split import Split, cached_split
from fedssl.personalization.base import PERSONALIZATIONS, PersonalizationHook
from fedssl.rng import Rng
from fedssl.tasks.base import TASKS, Task

ALLOW_CODE = "FEDSSL_ALLOW_CODE"


@dataclass(frozen=True)
class Components:
    """A method with its hooks, and the task that its data set."""

    method: Method
    task: Task
    calibration: CalibrationHook
    personalization: PersonalizationHook


def assemble(experiment: Experiment) -> Components:
    """Build method and hooks; `method` as a hook's name means the method's own. Raises ConfigError."""
    if experiment.method_source:
        load_source(experiment.method_source, experiment.method_file)
    method = METHODS.create(experiment.method)
    check_task(method.name, experiment.data["name"])
    calibration, personalization = dict(experiment.calibration), dict(experiment.personalization)
    if calibration["name"] == "method":
        calibration["name"] = method.calibration
    if personalization["name"] == "method":
        personalization["name"] = method.personalization
    if method.personalizations and personalization["name"] not in method.personalizations:
        allowed = f"one of {', '.join(method.personalizations)} with method={method.name}"
        raise ConfigError("personalization", personalization["name"], allowed)
    task = TASKS.create({"name": task_name(experiment)})
    parts = Components(method, task, CALIBRATIONS.create(calibration), PERSONALIZATIONS.create(personalization))
    _check_hooks(parts)
    return parts


def _check_hooks(parts: Components) -> None:
    """Check that there is something to calibrate and personalize. Raises ConfigError."""
    method, task, calibration, hook = parts.method, parts.task, parts.calibration.name, parts.personalization
    if calibration != "none" and not task.has_logits:
        raise ConfigError("calibration", calibration, f"none: the task {task.name} has no logits")
    if calibration != "none" and not method.global_model:
        raise ConfigError("calibration", calibration, f"none with method={method.name}")
    if hook.needs_logits and not task.has_logits:
        fit = ", ".join(name for name in PERSONALIZATIONS.names() if not PERSONALIZATIONS.get(name).needs_logits)
        raise ConfigError("personalization", hook.name, f"one of {fit}: the task {task.name} has no logits")


def task_name(experiment: Experiment) -> str:
    """Return the data set's task, for classification the open-world one if method or partition ask for it."""
    name = SOURCES.get(experiment.data["name"]).task
    open_world = (
        METHODS.get(experiment.method["name"]).open_world or PARTITIONS.get(experiment.partition["name"]).open_world
    )
    return "open_world" if open_world and name == "classification" else name


def load_source(source: str, path: str) -> None:
    """Run a user's method file once, so that its classes register themselves.

    Raises ConfigError unless this process allows code that came with the experiment, as simulated workers do.
    """
    if os.environ.get(ALLOW_CODE) != "1":
        raise ConfigError("method_file", path, "empty here: this client takes no code from the wire")
    name = _module_of(source)
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_loader(name, loader=None, origin=path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    METHODS.load()
    sys.modules[name] = module
    try:
        exec(compile(source, path or name, "exec"), module.__dict__)  # noqa: S102
    except BaseException:
        del sys.modules[name]
        raise


def methods_of(source: str) -> list[str]:
    """Give the names of the methods that a user's file has registered."""
    return [name for name in METHODS.names() if METHODS.get(name).__module__ == _module_of(source)]


def _module_of(source: str) -> str:
    return f"fedssl_method_{sha256(source)[:16]}"


def opened(experiment: Experiment, source: DataSource) -> Dataset:
    """Decode the data, or open them in the cache. Raises ConfigError; if clients are too many, before decoding."""
    if (groups := source.client_groups()) is not None:
        PARTITIONS.create(experiment.partition).client_groups(groups, experiment.clients)
    return open_dataset(source)


def split_of(experiment: Experiment, dataset: Dataset) -> Split:
    """Give the experiment's split of its data set, computed once and cached. Raises ConfigError."""
    return cached_split(
        dataset,
        PARTITIONS.create(experiment.partition),
        LABELS.create(experiment.labels),
        experiment.clients,
        validation=experiment.validation,
        seed=experiment.seed,
    )


def initial_model(experiment: Experiment, dataset: Dataset, device: torch.device) -> torch.nn.Module:
    """Build the network with the initial weights of this seed."""
    spec = MODELS.create(experiment.model)
    generator = Rng(experiment.seed).torch("initial weights")
    return build_model(spec, dataset.shape, dataset.num_classes, generator).to(device)


def load_weights(experiment: Experiment, model: torch.nn.Module) -> None:
    """Replace the model's backbone by that of `model.weights`, if there is such a file. Raises ConfigError."""
    if path := experiment.model.get("weights"):
        load_backbone(model, path, experiment.model.get("weights_sha256", ""))
