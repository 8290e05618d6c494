"""Named values that their modules declare, such as the choices of a config group: the one plug-in mechanism."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Generic, TypeVar, cast

from fedssl.config import ConfigError, check_options, nearest

T = TypeVar("T")


class Catalogue(Generic[T]):
    """Values by name, each added by the module that declares it.

    Modules of `package` (or the one module of that name) are found by pkgutil on first use; import errors propagate.
    """

    def __init__(self, group: str, package: str) -> None:
        self.group = group
        self.package = package
        self._values: dict[str, T] = {}
        self._loaded = False

    def add(self, name: str, value: T) -> None:
        """Add a value. Raises ValueError on a name taken."""
        if name in self._values:
            raise ValueError(f"{self.group}={name} is registered twice")
        self._values[name] = value

    def load(self) -> None:
        """Import every module of the package, so that its choices register themselves."""
        if self._loaded:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
            importlib.import_module(f"{self.package}.{module.name}")
        self._loaded = True

    def names(self) -> list[str]:
        """Return all names, sorted."""
        self.load()
        return sorted(self._values)

    def values(self) -> list[T]:
        """Return all values, in the order of their names."""
        return [self._values[name] for name in self.names()]

    def get(self, name: object) -> T:
        """Return the value of a name. Raises ConfigError with the nearest spelling."""
        self.load()
        if not isinstance(name, str) or name not in self._values:
            raise ConfigError(self.group, name, f"one of {', '.join(self.names())}", nearest(name, self.names()))
        return self._values[name]


class Registry(Catalogue[type[T]]):
    """The choices of one config group; each is a dataclass whose fields are its options."""

    def register(self, name: str) -> Callable[[type[Any]], type[Any]]:
        """Decorate a dataclass so that `group=name` chooses it. Raises ValueError on a name taken."""

        def add(cls: type[Any]) -> type[Any]:
            self.add(name, cls)
            cls.name = name
            return cls

        return add

    def create(self, choice: Mapping[str, Any]) -> T:
        """Build the chosen object from `{"name": ..., option: value}`. Raises ConfigError."""
        cls = self.get(choice.get("name"))
        known = {item.name for item in fields(cast(Any, cls)) if item.init}
        options = {key: value for key, value in choice.items() if key != "name"}
        for key, value in options.items():
            if key not in known:
                raise ConfigError(
                    f"{self.group}.{key}",
                    value,
                    f"an option of {self.group}={choice['name']}: {', '.join(sorted(known)) or 'it has none'}",
                    nearest(key, known),
                )
        made = cls(**check_options(cast(Any, cls), options, self.group))
        check_options(cast(Any, cls), {key: getattr(made, key) for key in known}, self.group)
        return made
