"""A detector outside a run: boxes of pictures of any size, as a table and as drawings.

from fedssl.predict.load import load
predict = load("runs/x")
boxes = predict([picture])
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedssl.config import ConfigError
from fedssl.data.boxes import Letterbox
from fedssl.data.views.modality import model_input
from fedssl.files import expanded, printable, write_atomically
from fedssl.metrics.detection import FlatBoxes
from fedssl.palette import PALETTE
from fedssl.predict.images import image_files, open_image, read_npz
from fedssl.predict.model_file import Meta

if TYPE_CHECKING:
    import torch
    from PIL import Image

Picture = NDArray[np.uint8]
SCORE = 0.25
"""Least confidence of a box that is shown, unless the user chose another."""
COLUMNS = ("name", "label", "class_name", "confidence", "left", "top", "right", "bottom")
_BATCH = 32


@dataclass(frozen=True)
class BoxPredictor:
    """The detector of a run; call it on pictures."""

    model: torch.nn.Module
    meta: Meta

    def __call__(self, pictures: Sequence[Picture], score: float = SCORE) -> FlatBoxes:
        """Return the boxes of pictures uint8 (height, width, 3), in their own pixels, of at least this confidence.

        Raises ConfigError for any other kind of pictures.
        """
        parts = [self._found(pictures[i : i + _BATCH], score) for i in range(0, len(pictures), _BATCH)]
        return FlatBoxes.join(parts)

    def _found(self, pictures: Sequence[Picture], score: float) -> FlatBoxes:
        import torch

        from fedssl.tasks.detection import found

        size = self.meta.shape[0]
        sides = [_check(picture).shape for picture in pictures]
        frames = [Letterbox(height, width, size) for height, width, _ in sides]
        squares = [
            frame.framed(frame.resized(np.ascontiguousarray(picture)))
            for frame, picture in zip(frames, pictures, strict=True)
        ]
        x = model_input(torch.from_numpy(np.stack(squares)), self.meta.mean, self.meta.std)
        with torch.no_grad():
            boxes = found(self.model, x).above(score)
        owner = np.repeat(np.arange(len(frames)), np.diff(boxes.offsets))
        return FlatBoxes(_unframed(boxes.xyxy, owner, frames), boxes.label, boxes.offsets, boxes.score)


def _check(picture: Any) -> Picture:
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        given = f"{picture.dtype} {'x'.join(map(str, picture.shape))}" if isinstance(picture, np.ndarray) else picture
        raise ConfigError("pictures", given, "uint8 arrays (height, width, 3)")
    return picture


def _unframed(xyxy: NDArray[np.float32], owner: NDArray[np.int64], frames: Sequence[Letterbox]) -> NDArray[np.float32]:
    """Map boxes from the square that the model saw into each picture, and clip them to it."""
    corner = np.array([frame.corner[::-1] * 2 for frame in frames], np.float64).reshape(-1, 4)[owner]
    inner = np.array([frame.inner[::-1] * 2 for frame in frames], np.float64).reshape(-1, 4)[owner]
    sides = np.array([(frame.width, frame.height) * 2 for frame in frames], np.float64).reshape(-1, 4)[owner]
    return np.clip((xyxy - corner) * (sides / inner), 0, sides).astype(np.float32)


def predict_files(
    predictor: BoxPredictor, data: str | Path, out: str | Path, drawn: str | Path | None, score: float = SCORE
) -> tuple[int, int]:
    """Write a CSV of the boxes of a picture, a folder or an .npz, and, if asked, each picture with its boxes.

    Returns the numbers of images and boxes. `drawn` is a folder, made if missing: apart from `data`, and nothing in it
    is replaced. The drawing of `a.jpg` is `a.jpg.png`. Raises ConfigError naming the file; no drawing is left then.
    """
    names, read = _opened(data)
    targets = _targets(Path(data), Path(drawn), names) if drawn is not None else []
    table = StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(COLUMNS)
    total = 0
    with ExitStack() as made:
        for start in range(0, len(names), _BATCH):
            some = slice(start, start + _BATCH)
            batch = read(some)
            boxes = predictor(batch, score)
            total += len(boxes.label)
            writer.writerows(_rows(names[some], boxes, predictor.meta.class_names))
            for place, target in enumerate(targets[some]):
                one = draw(batch[place], boxes.take(np.array([place])), predictor.meta.class_names)
                _write(one, target)
                made.callback(target.unlink, missing_ok=True)
        try:
            write_atomically(Path(out), table.getvalue().encode())
        except OSError as error:
            raise ConfigError("--out", str(out), f"a file that can be written ({error.strerror})") from None
        made.pop_all()
    return len(names), total


def _opened(data: str | Path) -> tuple[list[str], Callable[[slice], list[Picture]]]:
    """Return all names, and a reader of some of the images: a folder may hold more than fit into memory."""
    path = expanded(data)
    if path.suffix == ".npz" and path.is_file():
        array = read_npz(path)
        return [str(row) for row in range(len(array))], lambda some: list(array[some])
    files = image_files(path)
    names = [name for name, _ in files]
    return names, lambda some: [np.asarray(open_image(file, "RGB")) for _, file in files[some]]


def _targets(data: Path, drawn: Path, names: Sequence[str]) -> list[Path]:
    """Return the file of each drawing. Raises ConfigError if one could replace a file or be taken for a picture."""
    source, folder = (Path(os.path.realpath(path)) for path in (expanded(data), drawn))
    if source.is_relative_to(folder) or folder.is_relative_to(source):
        raise ConfigError("--draw", str(drawn), f"a folder apart from --data={data}")
    targets = [drawn / f"{name}.png" for name in names]
    for target in targets:
        if os.path.lexists(target):
            raise ConfigError("--draw", str(target), "a drawing that does not exist yet")
    return targets


def _rows(names: Sequence[str], boxes: FlatBoxes, class_names: Sequence[str]) -> Iterable[list[Any]]:
    for place, name in enumerate(names):
        for row in range(boxes.offsets[place], boxes.offsets[place + 1]):
            label = int(boxes.label[row])
            sides = [f"{side:.2f}" for side in boxes.xyxy[row]]
            yield [printable(name), label, class_names[label], f"{boxes.score[row]:.6f}", *sides]


def draw(picture: Picture, boxes: FlatBoxes, class_names: Sequence[str]) -> Image.Image:
    """Draw the boxes of one picture into it, the surest on top, each with its class and confidence."""
    from PIL import Image, ImageDraw, ImageFont

    shown = Image.fromarray(picture)
    pen = ImageDraw.Draw(shown)
    unit = max(1, min(picture.shape[:2]) // 200)
    height = 10 + 3 * unit
    font = ImageFont.load_default(height)
    for row in np.argsort(boxes.score, kind="stable"):
        label = int(boxes.label[row])
        left, top, right, bottom = map(float, boxes.xyxy[row])
        color = PALETTE[label % len(PALETTE)]
        pen.rectangle((left, top, right, bottom), outline=color, width=unit)
        text = f"{class_names[label]} {100 * boxes.score[row]:.0f}%"
        place = pen.textbbox((left, top), text, font=font, anchor="lb" if top > height else "lt")
        pen.rectangle(place, fill=color)
        pen.text(place[:2], text, fill="white", font=font, anchor="lt")
    return shown


def _write(picture: Image.Image, path: Path) -> None:
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise ConfigError("--draw", str(path), f"a file that can be written ({error.strerror})") from None
