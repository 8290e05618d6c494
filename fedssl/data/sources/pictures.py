"""Images with boxes in a folder of one's own, and the table that says who holds which."""

from __future__ import annotations

import csv
import hashlib
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedssl.config import ConfigError, option
from fedssl.data.arrays import dataset_key
from fedssl.data.base import Dataset, DataSource, Samples
from fedssl.data.boxes import NO_BOXES, Boxes, Ints, Letterbox, Picture, pack, rarest_class, room_for
from fedssl.data.sources.box_checks import CROWD, EMPTIED, BoxCheck, Notes
from fedssl.data.sources.image_names import image_files
from fedssl.data.sources.layout import PARTS, TRAIN, Layout, domains, summary
from fedssl.progress import report_progress

SERVER, NOBODY = 0, -1
FORMATS = ("JPEG", "PNG", "WEBP")
COLUMNS = ("file", "part", "party", "domain")
TOTAL = "total"
TABLE = "pictures.csv"
_VERSION = 4
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
    reading: ClassVar[str]
    """What a box's four numbers mean in the format, one of those in `fedssl.data.sources.box_checks`."""

    path: str = option("", "the folder with images and annotations, and the table if there is one", path=True)
    size: int = option(224, "side of the square that pictures are fitted into, in pixels", low=32, multiple=32)
    classes: list[str] = option([], "names of the classes that count, in order; empty = all")
    evaluate_on: str = option(
        "test", "pictures of the test split: `test`, or `val` for every choice", choices=("test", "val")
    )

    @abstractmethod
    def rows(self) -> list[Row]:
        """Return all pictures. Raises ConfigError."""

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Return the names of all annotated classes. Raises ConfigError."""

    @abstractmethod
    def annotation_files(self) -> list[Path]:
        """Return the files whose change changes boxes."""

    @abstractmethod
    def annotated(self, row: Row, height: int, width: int) -> Boxes | None:
        """Return a picture's boxes in its pixels, classes numbered as in `names`; None if nobody annotated it."""

    @abstractmethod
    def where(self, row: Row, number: int) -> str:
        """Return what a message calls an image's box of this number."""

    def looked_for(self, row: Row) -> str:
        """Return where an image's annotations were looked for."""
        return f"for {row.file}"

    def inputs(self) -> Iterator[str]:
        """Yield the images and what is known of them before annotations are read."""
        for row in self._used():
            yield f"{row} {self.state(self.folder() / row.file)}"

    def fingerprint(self) -> str:
        """Return the hash of options, table, names, sizes and times of files."""
        options = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "path"}
        digest = hashlib.sha256(repr((_VERSION, options)).encode())
        for line in self.inputs():
            digest.update(f"{line}\n".encode(errors="surrogateescape"))
        for file in self.annotation_files():
            digest.update(f"{self.shown(file)} {self.state(file)}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def client_groups(self) -> NDArray[np.int64]:
        """Return the clients' parties in the table."""
        return np.array([row.party for row in self._used() if row.part == TRAIN and row.party > SERVER], np.int64)

    def read(self) -> Dataset:
        """Decode and check everything."""
        self.notes = Notes()
        rows = self._used()
        weathers = tuple(dict.fromkeys(row.domain for row in rows if row.domain))
        everything = self.names()
        names = self._chosen(everything)
        number = np.array([names.index(name) if name in names else -1 for name in everything], np.int64)
        train, test = (
            self._samples([row for row in rows if (row.part == TRAIN) == training], weathers, number)
            for training in (True, False)
        )
        if not len(train.boxes):
            first = next(row for row in rows if row.part == TRAIN)
            reasons = "; ".join((f"looked {self.looked_for(first)}, ...", *self.notes.lines()))
            raise self.refuse(f"training pictures have a box of the classes that count ({reasons})")
        if unused := [name for label, name in enumerate(names) if label not in train.box_class]:
            self.notes.count("classes without a box in the training images", len(unused), unused[0])
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
            domain_names=weathers,
            warnings=(*self.notes.lines(), *self.remarks()),
        )

    def remarks(self) -> tuple[str, ...]:
        """Return what there is to say of the folder."""
        return ()

    def folder(self) -> Path:
        """Return the folder. Raises ConfigError."""
        folder = Path(self.path).expanduser()
        if not self.path or not folder.is_dir():
            raise ConfigError("data.path", self.path, "a folder with pictures and their annotations")
        return folder

    def refuse(self, allowed: str) -> ConfigError:
        """Return the error on `data.path` for what is wrong in the folder."""
        # Names from files may hold line breaks, and bytes that are no text.
        printable = " ".join(allowed.encode(errors="backslashreplace").decode().split())
        return ConfigError("data.path", self.path, f"a folder whose {printable}")

    def _used(self) -> list[Row]:
        rows = [row for row in self.rows() if row.part in (TRAIN, self.evaluate_on)]
        for part in (TRAIN, self.evaluate_on):
            if not any(row.part == part for row in rows):
                raise self.refuse(f"table has a picture of part {part}")
        if twice := [file for file, count in Counter(row.file for row in rows).items() if count > 1]:
            raise self.refuse(f"table has {twice[0]} once")
        return rows

    def shown(self, file: Path) -> str:
        """Return a file's path as seen from the folder."""
        return os.path.relpath(file, self.folder())

    def state(self, file: Path) -> tuple[int, int]:
        """Return a file's size and time of change. Raises ConfigError."""
        try:
            found = file.stat()
        except OSError as error:
            raise self.refuse(f"{self.shown(file)} can be read ({error.strerror})") from None
        return found.st_size, found.st_mtime_ns

    def _chosen(self, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in self.classes:
            if name not in names:
                raise ConfigError("data.classes", name, f"of {', '.join(names)}")
        return tuple(self.classes) or names

    def _samples(self, rows: Sequence[Row], domains: Sequence[str], number: Ints) -> Samples:
        """Decode images; `number` is the class of each of `names`, -1 for those that do not count."""
        x, fitted, annotated = room_for(len(rows), self.size), [], np.ones(len(rows), bool)
        stage = f"decoding {'training' if rows[0].part == TRAIN else 'test'} pictures"
        check = BoxCheck(self.reading, self.refuse, self.notes)
        for i, row in enumerate(rows):
            report_progress(stage, i, len(rows))
            picture = self._picture(row)
            height, width = picture.shape[:2]
            frame = Letterbox(height, width, self.size)
            x[i] = frame.framed(frame.resized(picture))
            given = self.annotated(row, height, width)
            if given is None and (row.part != TRAIN or row.party == SERVER):
                needed = f"annotations have {row.file}: pictures of the server, val and test need them"
                raise self.refuse(f"{needed} (looked {self.looked_for(row)})")
            annotated[i] = given is not None
            fitted.append(self._fitted(row, given or NO_BOXES, number, frame, check))
        report_progress(stage, len(rows), len(rows))
        check.finish()
        domain = np.array([domains.index(row.domain) if row.domain else -1 for row in rows], np.int64)
        group = np.array([row.party if row.part == TRAIN else NOBODY for row in rows], np.int64)
        return pack(x, fitted, rarest_class(fitted, int(number.max()) + 1), group, domain, annotated=annotated)

    def _fitted(self, row: Row, given: Boxes, number: Ints, frame: Letterbox, check: BoxCheck) -> Boxes:
        def where(i: int) -> str:
            return self.where(row, int(given.number[i]) if len(given.number) else i + 1)

        boxes, counted = check.fitted(given, number, frame, where)
        self.notes.count(EMPTIED, int(counted > 0 and not len(boxes.classes)), row.file)
        return boxes

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
    """Base of the sources whose folder has a table, a CSV file, or else parts that its format's tools know."""

    table: str = option(
        TABLE, "CSV in the folder, columns file, part, party, domain: who holds what; need not be there"
    )
    test_share: float = option(
        0.2, "share of the training images that is scored, of a folder without table, val and test", above=0, below=1
    )

    @abstractmethod
    def layout(self, images: Sequence[str], notes: Notes) -> Layout:
        """Return the parts of a folder without a table. Raises ConfigError."""

    @property
    def dealt(self) -> bool:
        """Say whether there is a table."""
        return self.table != TABLE or (self.folder() / self.table).is_file()

    def rows(self) -> list[Row]:
        """Read the table; without one, find the parts: nobody's images, but those of domains are their clients'."""
        self._layout_notes = Notes()
        if self.dealt:
            return read_table(self, self.folder() / self.table)
        images = self.images()
        layout = self.layout(images, self._layout_notes)
        train, scored = layout.settled(images, self.evaluate_on, self.test_share, self._layout_notes, self.refuse)
        domain = domains(train, scored, self.refuse)
        party = {name: number for number, name in enumerate(sorted(set(domain.values())), SERVER + 1)}
        rows = [Row(one, TRAIN, party.get(domain.get(one, ""), NOBODY), domain.get(one, "")) for one in train]
        return rows + [Row(one, self.evaluate_on, NOBODY, domain.get(one, "")) for one in scored]

    def images(self) -> list[str]:
        """Return all images in the folder. Raises ConfigError if there are none."""
        if found := image_files(self.folder()):
            return found
        raise self.refuse(f"images are JPEG, PNG or WebP files (found: {self.summary()})")

    def summary(self) -> str:
        """Say what is in the folder."""
        return summary(self.folder(), image_files(self.folder()))

    def inputs(self) -> Iterator[str]:
        """Yield the table's rows, or the names and states of all images."""
        if self.dealt:
            yield from super().inputs()
            return
        for file in self.images():
            yield f"{file} {self.state(self.folder() / file)}"

    def remarks(self) -> tuple[str, ...]:
        """Return what there is to say of the parts that were found."""
        return self._layout_notes.lines()

    def ignored(self, count: int, where: str, row: Row, left: int) -> None:
        """Count objects of an image that do not count, of which `left` others do."""
        self.notes.drop(CROWD, count, where)
        self.notes.count(EMPTIED, int(count > 0 and not left), row.file)

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
        image = "/".join(line["file"].strip().replace("\\", "/").split("/./")).removeprefix("./")
        rows.append(Row(image, line["part"], int(party) + 1 if held is None else held, domain))
    return rows
