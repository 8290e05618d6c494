"""Draw one picture in the four weathers: `python docs/make_weather.py OUT.jpg [ROADSIGN.npz [PICTURE]]`.

A made-up scene, or with the file a street.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from fedssl.data.sources.shapes_synthetic import ShapesSynthetic
from fedssl.data.sources.weather import WEATHERS, render

matplotlib.use("Agg")
SEVERITIES = (1, 3, 5)


def photograph(path: str, i: int) -> np.ndarray:
    """Give picture i of the file, uint8 (height, width, 3)."""
    with np.load(path, allow_pickle=False) as content:
        start, stop = content["offsets"][i : i + 2]
        data = content["bytes"][start:stop].tobytes()
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB").resize((224, 298)))


def scene() -> np.ndarray:
    """Give a picture of `shapes_synthetic`, uint8 (224, 224, 3)."""
    return ShapesSynthetic(size=224, pictures=8, test_pictures=1, severity=0).read().train.x[0]


def figure(picture: np.ndarray, image: int) -> matplotlib.figure.Figure:
    """Give a row a severity, a column a weather."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(10, 3.4 * len(SEVERITIES)), layout="constrained")
    axes = made.subplots(len(SEVERITIES), len(WEATHERS))
    for row, severity in zip(axes, SEVERITIES, strict=True):
        for weather, (name, axis) in enumerate(zip(WEATHERS, row, strict=True)):
            axis.imshow(render(picture, weather, severity, seed=0, image=image))
            axis.set_title(name if weather == 0 else f"{name}, severity {severity}")
            axis.set_axis_off()
    return made


if __name__ == "__main__":
    out, *file = sys.argv[1:]
    number = int(file[1]) if len(file) > 1 else 300
    figure(photograph(file[0], number) if file else scene(), number).savefig(Path(out), dpi=80)
