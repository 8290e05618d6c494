"""Image files found by names that other tools and machines wrote."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_DRIVE = re.compile(r"^(file://|[A-Za-z]:(?=/))")
_IGNORED = ("", ".", "..")
_JUNK = "__MACOSX"
_OUTPUTS = {"split.npz", "environment.json"}

Components = tuple[str, ...]
Test = Callable[[str], bool]


class AmbiguousName(ValueError):
    """A name that fits several files equally well; `files` are the first two."""

    def __init__(self, name: str, files: list[str]) -> None:
        self.name, self.files = name, sorted(files)[:2]
        super().__init__(f"{name} may be {' or '.join(self.files)}")


class Names:
    """Index of paths by their last component.

    A name fits a path if one is the end of the other, whole folders compared: `C:\\set\\images\\a.png`, `./a.png` and
    `images/a.png` fit `images/a.png`. The longest common end wins. Only where none fits, letter case and URL escapes
    do not count; only where none fits then, and `by_file` is set, do the folders not count.
    """

    def __init__(self, paths: Iterable[str], *, by_file: bool = False) -> None:
        self._by_file = by_file
        self._exact: dict[str, list[tuple[Components, str]]] = defaultdict(list)
        self._folded: dict[str, list[tuple[Components, str]]] = defaultdict(list)
        for path in paths:
            exact, folded = components(path), _folded(components(path))
            self._exact[exact[-1] if exact else ""].append((exact, path))
            self._folded[folded[-1] if folded else ""].append((folded, path))

    def find(self, name: str, needs: Test = lambda _: True, *prefers: Test) -> str | None:
        """Return the path that the name fits best, of those that pass the test `needs`.

        Of several, the tests `prefers` choose, one after the other. Raises AmbiguousName if several are left.
        """
        wanted = components(name)
        if not wanted:
            return None
        for index, parts in ((self._exact, wanted), (self._folded, _folded(wanted))):
            near = [(one, path) for one, path in index.get(parts[-1], ()) if needs(path)]
            common = {path: length for one, path in near if (length := _common_end(one, parts))}
            if common:
                best = max(common.values())
                return _only(name, [path for path, length in common.items() if length == best], prefers)
        return _only(name, [path for _, path in near], prefers) if self._by_file and near else None


def _only(name: str, paths: list[str], prefers: Sequence[Test]) -> str:
    for test in prefers:
        paths = [path for path in paths if test(path)] or paths
    if len(paths) > 1:
        raise AmbiguousName(name, paths)
    return paths[0]


def components(name: str) -> Components:
    """Return the folders and the file of a path of any machine, without drive, root and dots."""
    text = _DRIVE.sub("", unicodedata.normalize("NFC", name.strip().replace("\\", "/")))
    return tuple(part for part in text.split("/") if part not in _IGNORED)


def _folded(parts: Components) -> Components:
    return tuple(unquote(part).casefold() for part in parts)


def _common_end(left: Components, right: Components) -> int:
    """Return the length of the shorter path if the other ends with it, else 0."""
    length = min(len(left), len(right))
    return length if left[-length:] == right[-length:] else 0


def image_files(folder: Path) -> list[str]:
    """Return the image files below a folder as sorted paths with `/`; hidden files do not count.

    Linked folders are entered once. Folders of runs and splits are passed over: their figures are no data.
    """
    seen: set[tuple[int, int]] = set()
    found = []
    for place, folders, files in os.walk(folder, followlinks=True):
        state = os.stat(place)
        if (state.st_dev, state.st_ino) in seen or not _OUTPUTS.isdisjoint(files):
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != _JUNK)
        inside = Path(place).relative_to(folder)
        found += [(inside / name).as_posix() for name in files if name.lower().endswith(SUFFIXES) and name[0] != "."]
    return sorted(found)


def present(place: Path) -> Path:
    """Return the file in this place, or the only one whose name differs in letter case; `place` if there is none."""
    if place.is_file() or not place.parent.is_dir():
        return place
    alike = _listed(place.parent, place.parent.stat().st_mtime_ns).get(place.name.casefold(), ())
    return place.with_name(alike[0]) if len(alike) == 1 else place


@lru_cache(maxsize=256)
def _listed(folder: Path, changed: int) -> dict[str, list[str]]:
    """Return a folder's files by folded name; `changed` is there so that a changed folder is listed again."""
    del changed
    names: dict[str, list[str]] = defaultdict(list)
    for name in os.listdir(folder):
        names[name.casefold()].append(name)
    return dict(names)


def shown(names: Iterable[str], most: int = 2) -> str:
    """Return the first of some names for a message, without what cannot be printed."""
    some = list(names)
    text = ", ".join(name.encode(errors="backslashreplace").decode() for name in some[:most])
    return f"{text}, ..." if len(some) > most else text
