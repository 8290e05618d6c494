"""Parts of a folder of images that has no table: training, validation, test, unlabelled."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedssl.config import ConfigError
from fedssl.data.sources.box_checks import Notes
from fedssl.data.sources.image_names import components, shown
from fedssl.rng import Rng

TRAIN, VAL, TEST, UNLABELLED = "train", "val", "test", "unlabelled"
PARTS = (TRAIN, VAL, TEST)
_WORDS = {"train": TRAIN, "val": VAL, "test": TEST, "unlabel": UNLABELLED}
_WORD = re.compile(r"(?<![a-z])(?:(train|test)(?:ing)?|(val)(?:id(?:ation)?)?|(unlabel)(?:l?ed)?)(?![a-z])")
_PLAIN = ("images", "image", "jpegimages", "img", "imgs", "data")
_SHOWN = 4

Refuse = Callable[[str], ConfigError]


def part_of(name: str) -> str:
    """Return the part that a name says, empty if none: train2017, instances_val, valid, Testing, unlabeled."""
    found = _WORD.search(name.lower())
    return _WORDS[next(word for word in found.groups() if word)] if found else ""


def part_by_folder(path: str) -> str:
    """Return the part that the outermost folder of a path says, empty if none does."""
    return next((part for name in components(path)[:-1] if (part := part_of(name))), "")


def subfolder(path: str) -> str:
    """Return the folders of an image besides those of its part and those that only say that there are images."""
    return "/".join(name for name in components(path)[:-1] if not part_of(name) and name.lower() not in _PLAIN)


@dataclass
class Layout:
    """Images of a folder by part; those in `UNLABELLED` are trained on without labels."""

    files: dict[str, list[str]] = field(default_factory=lambda: {part: [] for part in (*PARTS, UNLABELLED)})

    def add(self, part: str, files: Iterable[str]) -> None:
        """Put images into a part."""
        self.files[part] += files

    def by_folders(self, images: Sequence[str]) -> None:
        """Put images into the parts that their folders say; if no folder says any, all into `TRAIN`."""
        parts = [part_by_folder(image) for image in images]
        unnamed = "" if any(parts) else TRAIN
        for image, part in zip(images, parts, strict=True):
            if part or unnamed:
                self.files[part or unnamed].append(image)

    def unlabelled_folders(self, images: Iterable[str]) -> None:
        """Put the images of folders that are named `unlabelled` into that part, unless a part has them."""
        known = self._all()
        self.add(UNLABELLED, (one for one in images if one not in known and part_by_folder(one) == UNLABELLED))

    def settled(
        self, images: Sequence[str], evaluate_on: str, test_share: float, notes: Notes, refuse: Refuse
    ) -> tuple[list[str], list[str]]:
        """Return the images that are trained on and those that are scored. Raises ConfigError by `refuse`.

        Scored are those of `evaluate_on`; of `VAL` where there is no `TEST`; without both, a share of `TRAIN`, always
        the same.
        """
        self._check_once(refuse)
        rest = sorted(set(images) - self._all())
        notes.count("images that belong to no part, left out", len(rest), shown(rest, 1))
        train, scored = self.files[TRAIN], self.files[evaluate_on]
        if not train:
            raise refuse(f"training images are annotated (there are {self._counts()})")
        if not scored and not self.files[TEST] and not self.files[VAL]:
            train, scored = _drawn(train, test_share, refuse)
            notes.count(f"no val or test part: images drawn from train (data.test_share={test_share:g}) are scored",
                        len(scored), scored[0])  # fmt: skip
        elif not scored and evaluate_on == TEST:
            scored = self.files[VAL]
            notes.count("no test part: images of val are scored", len(scored), scored[0])
        elif not scored:
            raise refuse(f"images have a part {evaluate_on} (there are {self._counts()})")
        return [*train, *self.files[UNLABELLED]], scored

    def _all(self) -> set[str]:
        return {file for files in self.files.values() for file in files}

    def _counts(self) -> str:
        return ", ".join(f"{len(files)} of part {part}" for part, files in self.files.items() if files) or "none"

    def _check_once(self, refuse: Refuse) -> None:
        part_by_file: dict[str, str] = {}
        for part, files in self.files.items():
            for file in files:
                if (other := part_by_file.setdefault(file, part)) != part:
                    raise refuse(f"parts share no image, but {shown([file])} is in {other} and {part}")
        if twice := [file for files in self.files.values() for file, count in Counter(files).items() if count > 1]:
            raise refuse(f"parts name each image once, but {shown(twice, 1)} is named twice")


def domains(train: Sequence[str], scored: Sequence[str], refuse: Refuse) -> dict[str, str]:
    """Return each image's domain: its subfolder, where training and scored images lie in the same two or more.

    Empty where they do not.
    """
    mine, theirs = ({subfolder(file) for file in files} for files in (train, scored))
    if mine != theirs or len(mine) < 2 or "" in mine:
        return {}
    if "total" in mine:
        raise refuse("subfolders of images are not named `total`, the name of the mean over all")
    return {file: subfolder(file) for file in (*train, *scored)}


def summary(folder: Path, images: Sequence[str]) -> str:
    """Say in a few words what is in a folder."""
    counts = Counter(str(Path(image).parent) for image in images)
    parts = [f"{count} images in {shown([place])}" for place, count in counts.most_common(_SHOWN)]
    others = sorted(one.name + "/" * one.is_dir() for one in folder.iterdir() if not one.name.startswith("."))
    return "; ".join([*(parts or ["no images"]), f"at the top: {shown(others, 2 * _SHOWN) or 'nothing'}"])


def _drawn(files: list[str], share: float, refuse: Refuse) -> tuple[list[str], list[str]]:
    count = max(1, round(share * len(files)))
    if count >= len(files):
        raise refuse(f"images suffice for a test part (there is only {shown(files)})")
    drawn = set(Rng(0).numpy("test split").permutation(len(files))[:count].tolist())
    chosen = [[file for i, file in enumerate(files) if (i in drawn) is scored] for scored in (False, True)]
    return chosen[0], chosen[1]
