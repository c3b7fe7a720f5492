"""From the name of weights to a file: a path, a file of the weights folder, a published one, or the demo's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from yolomish.download import check_content, fetch, pin_path
from yolomish.errors import YolomishError, unknown_name
from yolomish.files import cache_folder, shown_path
from yolomish.weights import catalogue
from yolomish.weights.catalogue import published, published_names

DEMO = "demo"
# Trained on the built-in shapes and kept in fp16: train --recipe small --imgsz 160 --epochs 60 --batch 8 --lr 0.02, of a
# yolov4 with width 0.1 and depth 0.1; AP 0.612, AP50 0.890 on their val split
DEMO_FILE = Path(__file__).with_name("demo.pt")
DEMO_ABOUT = "a small YOLOv4 that finds the built-in data's circles, squares, triangles and stars; in the package"


def weights_folder() -> Path:
    """$YOLOMISH_WEIGHTS, else ``weights/`` of the checkout that this runs from, else in the cache folder."""
    if folder := os.environ.get("YOLOMISH_WEIGHTS"):
        return Path(folder)
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file() and (checkout / "weights" / "README.md").is_file():
        return checkout / "weights"
    return cache_folder() / "weights"


def locate_weights(name: str) -> Path:
    """The file that ``name`` means: ``demo``, a path, a file of the weights folder, or a published file, fetched if needed.

    A published file in the folder is checked when first seen. YolomishError where there is no such file, and where a
    published one cannot be fetched: it then says which file to put where.
    """
    if name == DEMO:
        return DEMO_FILE
    path, wanted = Path(name), published(name)
    if os.path.isfile(name):
        return path
    stored = weights_folder() / (wanted.file if wanted else name)
    if wanted is not None:
        if not stored.is_file():
            fetch(wanted, stored)
        elif not pin_path(stored).is_file() or stored.stat().st_size != wanted.size:
            check_content(stored, wanted, keep=True)
        return stored
    if not path.is_absolute() and os.path.isfile(stored):
        return stored
    if os.path.isdir(name):
        raise YolomishError(f"{name} is a folder, not a weights file: name the file in it, such as {path / 'best.pt'}")
    if path.suffix:
        raise YolomishError(f"no such weights file: {shown_path(name)} (nor in {weights_folder()})")
    raise unknown_name("weights", name, [DEMO, *published_names()])


@dataclass(frozen=True, kw_only=True)
class WeightsEntry:
    """Weights that can be named: ``path`` where they are here, ``size`` in bytes; accuracy and BFLOPs as published, if at all."""

    name: str
    size: int
    path: Path | None
    about: str
    accuracy: str = ""
    bflops: float = 0.0


def known_weights() -> list[WeightsEntry]:
    """The demo's, the published ones, and whatever else lies in the weights folder."""
    folder = weights_folder()
    entries = [WeightsEntry(name=DEMO, size=DEMO_FILE.stat().st_size, path=DEMO_FILE, about=DEMO_ABOUT)]
    for item in catalogue.PUBLISHED:
        path = folder / item.file
        entries.append(
            WeightsEntry(
                name=item.file.removesuffix(".weights"),
                size=item.size,
                path=path if path.is_file() else None,
                about=item.about,
                accuracy=item.accuracy,
                bflops=item.bflops,
            )
        )
    others = sorted(p for p in folder.glob("*") if p.suffix in (".pt", ".weights") or ".conv." in p.name)
    for path in others:
        if published(path.name) is None and path.suffix not in (".part", ".sha256"):
            entries.append(WeightsEntry(name=path.name, size=path.stat().st_size, path=path, about="your own file"))
    return entries
