"""Pictures with boxes in a folder of one's own, and the table that says who holds which."""

from __future__ import annotations

import csv
import hashlib
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedssl.config import ConfigError, option
from fedssl.data.arrays import dataset_key
from fedssl.data.base import Dataset, DataSource, Samples
from fedssl.data.boxes import Boxes, Floats, Letterbox, Picture, pack, rarest_class, room_for
from fedssl.stages import tell

TRAIN = "train"
PARTS = (TRAIN, "val", "test")
SERVER, NOBODY = 0, -1
FORMATS = ("JPEG", "PNG", "WEBP")
COLUMNS = ("file", "part", "party", "domain")
TOTAL = "total"
_VERSION = 3
_DIGITS = 9


@dataclass(frozen=True)
class Row:
    """One picture: its file in the folder, part, party (-1 nobody, 0 the server, k + 1 client k) and weather."""

    file: str
    part: str
    party: int
    domain: str


@dataclass
class Pictures(DataSource):
    """Base of the sources of a user's pictures."""

    task: ClassVar[str] = "detection"

    path: str = option("", "the folder with pictures, annotations and table")
    size: int = option(224, "side of the square that pictures are fitted into, in pixels", low=32, multiple=32)
    classes: list[str] = option([], "names of the classes that count, in order; empty = all")
    evaluate_on: str = option(
        "test", "pictures of the test split: `test`, or `val` for every choice", choices=("test", "val")
    )

    @abstractmethod
    def rows(self) -> list[Row]:
        """Give all pictures. Raises ConfigError."""

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Give the names of all annotated classes. Raises ConfigError."""

    @abstractmethod
    def annotation_files(self) -> list[Path]:
        """Give the files whose change changes boxes."""

    @abstractmethod
    def annotated(self, row: Row, height: int, width: int) -> Boxes | None:
        """Give a picture's boxes in its pixels, classes numbered as in `names`; None if nobody annotated it."""

    def fingerprint(self) -> str:
        """Give the hash of table, names, sizes and times of files and of what else decides the samples."""
        digest = hashlib.sha256(repr((_VERSION, self.size, self.classes, self.evaluate_on)).encode())
        for row in self._used():
            digest.update(f"{row} {self.state(self.folder() / row.file)}\n".encode())
        for file in self.annotation_files():
            digest.update(f"{self.shown(file)} {self.state(file)}\n".encode())
        return digest.hexdigest()

    def client_groups(self) -> NDArray[np.int64]:
        """Give the clients' parties in the table."""
        return np.array([row.party for row in self._used() if row.part == TRAIN and row.party > SERVER], np.int64)

    def read(self) -> Dataset:
        """Decode and check everything."""
        rows = self._used()
        domains = tuple(dict.fromkeys(row.domain for row in rows if row.domain))
        names = self._chosen()
        train, test = (
            self._samples([row for row in rows if (row.part == TRAIN) == training], domains, names)
            for training in (True, False)
        )
        if not len(train.boxes):
            raise self.refuse("training pictures have a box of the classes that count")
        parties = np.unique(train.group[train.group >= 0]).tolist()
        return Dataset(
            name=self.name,
            train=train,
            test=test,
            class_names=names,
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
            key=dataset_key(self),
            server_groups=(SERVER,) if SERVER in parties else (),
            group_names=tuple("server" if party == SERVER else f"client {party - 1}" for party in parties),
            domain_names=domains,
        )

    def folder(self) -> Path:
        """Give the folder. Raises ConfigError."""
        folder = Path(self.path).expanduser()
        if not self.path or not folder.is_dir():
            raise ConfigError("data.path", self.path, "a folder with pictures and their annotations")
        return folder

    def refuse(self, allowed: str) -> ConfigError:
        """Give the error on `data.path` for what is wrong in the folder."""
        return ConfigError("data.path", self.path, f"a folder whose {allowed}")

    def _used(self) -> list[Row]:
        rows = [row for row in self.rows() if row.part in (TRAIN, self.evaluate_on)]
        for part in (TRAIN, self.evaluate_on):
            if not any(row.part == part for row in rows):
                raise self.refuse(f"table has a picture of part {part}")
        if twice := [file for file, count in Counter(row.file for row in rows).items() if count > 1]:
            raise self.refuse(f"table has {twice[0]} once")
        return rows

    def shown(self, file: Path) -> str:
        """Give a file's path as seen from the folder."""
        return os.path.relpath(file, self.folder())

    def state(self, file: Path) -> tuple[int, int]:
        """Give a file's size and time of change. Raises ConfigError."""
        try:
            found = file.stat()
        except OSError as error:
            raise self.refuse(f"{self.shown(file)} can be read ({error.strerror})") from None
        return found.st_size, found.st_mtime_ns

    def _chosen(self) -> tuple[str, ...]:
        names = self.names()
        for name in self.classes:
            if name not in names:
                raise ConfigError("data.classes", name, f"of {', '.join(names)}")
        return tuple(self.classes) or names

    def _samples(self, rows: Sequence[Row], domains: Sequence[str], names: Sequence[str]) -> Samples:
        number = np.array([names.index(name) if name in names else -1 for name in self.names()], np.int64)
        x, fitted, annotated = room_for(len(rows), self.size), [], np.ones(len(rows), bool)
        stage = f"decoding {'training' if rows[0].part == TRAIN else 'test'} pictures"
        for i, row in enumerate(rows):
            tell(stage, i, len(rows))
            picture = self._picture(row)
            height, width = picture.shape[:2]
            frame = Letterbox(height, width, self.size)
            x[i] = frame.framed(frame.resized(picture))
            given = self.annotated(row, height, width)
            if given is None and (row.part != TRAIN or row.party == SERVER):
                raise self.refuse(f"annotations have {row.file}: pictures of the server, val and test need them")
            annotated[i] = given is not None
            fitted.append(_kept(given, number, frame))
        tell(stage, len(rows), len(rows))
        domain = np.array([domains.index(row.domain) if row.domain else -1 for row in rows], np.int64)
        group = np.array([row.party if row.part == TRAIN else NOBODY for row in rows], np.int64)
        return pack(x, fitted, rarest_class(fitted, len(names)), group, domain, annotated=annotated)

    def _picture(self, row: Row) -> Picture:
        from PIL import Image

        from fedssl.data.eight_bits import eight_bits

        try:
            with Image.open(self.folder() / row.file, formats=FORMATS) as picture:
                return np.asarray(eight_bits(picture, "RGB"))
        except Exception as error:  # a damaged picture breaks its decoder in many ways
            reason = " ".join(str(error).split())[:80]
            raise self.refuse(f"{row.file} is a sound {', '.join(FORMATS)} image ({reason})") from None


@dataclass
class Tabled(Pictures):
    """Base of the sources whose table is a CSV file."""

    dealt: ClassVar[bool] = True

    table: str = option("pictures.csv", "CSV in the folder, columns file, part, party, domain: who holds what")

    def rows(self) -> list[Row]:
        """Read the table."""
        return read_table(self, self.folder() / self.table)

    def check_size(self, name: str, told: tuple[float, float], height: int, width: int) -> None:
        """Check the width and height that an annotation tells, if it does. Raises ConfigError on `data.path`."""
        if all(told) and told != (width, height):
            turned = " (upright, by its EXIF tag if it has one)" if told == (height, width) else ""
            allowed = f"annotation {name} is of a picture of {width}x{height}{turned}, not {told[0]:g}x{told[1]:g}"
            raise self.refuse(allowed)


def read_table(source: Pictures, place: Path) -> list[Row]:
    """Read a CSV with columns `COLUMNS`.

    `part` is train, val or test; `party` of a training picture is `server`, a client's number from 0, or empty for
    nobody; `domain` is a weather or empty. Raises ConfigError with the line.
    """
    try:
        with place.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            lines = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise source.refuse(f"{place.name} can be read ({' '.join(str(error).split())[:80]})") from None
    found = reader.fieldnames or ()
    if missing := [name for name in COLUMNS if name not in found]:
        had = f"{place.name} has the columns {', '.join(COLUMNS)}, with commas between"
        raise source.refuse(f"{had} (it lacks {missing[0]}, and begins with {','.join(found)[:60]!r})")
    rows = []
    for number, line in enumerate(lines, 2):
        party = (line["party"] or "").strip()
        if line["part"] not in PARTS or not line["file"]:
            raise source.refuse(f"{place.name} has a file and one of {', '.join(PARTS)} in line {number}")
        if not (party in ("", "server") or (party.isdecimal() and len(party) <= _DIGITS)):
            allowed = f"`server`, a number of up to {_DIGITS} digits or nothing"
            raise source.refuse(f"{place.name} has as party {allowed} in line {number}")
        held = {"": NOBODY, "server": SERVER}.get(party)
        domain = (line["domain"] or "").strip()
        if domain == TOTAL:
            raise source.refuse(
                f"{place.name} has no domain `{TOTAL}`, the name of the mean over all, in line {number}"
            )
        rows.append(Row(line["file"], line["part"], int(party) + 1 if held is None else held, domain))
    return rows


def _kept(given: Boxes | None, number: np.ndarray, frame: Letterbox) -> Boxes:
    """Give the boxes of the classes that count, renumbered, cut to the picture and put into its frame."""
    if given is None or not len(given.classes):
        return Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    limit = np.array([frame.width, frame.height] * 2)
    xyxy: Floats = np.clip(given.xyxy, 0, limit).astype(np.float32)
    classes = number[given.classes]
    sound = (xyxy[:, 2:] > xyxy[:, :2]).all(axis=1) & (classes >= 0)
    return Boxes(frame.boxes(xyxy[sound]), classes[sound])
