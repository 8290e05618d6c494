"""A folder of pictures of one's own, and the table of who holds which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

TABLE = """file,part,party,domain
images/a.png,train,server,clear
images/b.png,train,server,clear
images/c.png,train,0,rain
images/d.png,train,1,clear
images/e.png,train,1,rain
images/f.png,train,,rain
images/g.png,val,,clear
images/h.png,test,,clear
images/i.png,test,,rain
"""


def pictures(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    for i, name in enumerate("abcdefghij"):
        Image.fromarray(np.full((20, 40, 3), 20 * i, np.uint8)).save(folder / "images" / f"{name}.png")
    (folder / "pictures.csv").write_text(TABLE)
