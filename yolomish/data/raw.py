"""Annotations as they stand in their files, broken ones included: what the data check looks at."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolomish.config import DataConfig
from yolomish.data.datasets import SUFFIXES, Split, _split_list, _voc_names
from yolomish.data.shapes import shapes_root
from yolomish.errors import YolomishError


@dataclass(frozen=True, kw_only=True)
class RawBox:
    """A box as stated: ``label`` (name or number, as text), ``xyxy`` in px (YOLO: fractions), ``where`` it stands."""

    label: str
    known: bool
    xyxy: tuple[float, float, float, float]
    where: str
    crowd: bool = False


@dataclass(kw_only=True)
class RawImage:
    """An image as listed: ``key`` tells it from others of the data set, ``size_hw`` is what the annotation states."""

    path: Path
    key: str
    size_hw: tuple[int, int] | None
    boxes: list[RawBox] = field(default_factory=list)
    malformed: list[str] = field(default_factory=list)
    fractions: bool = False


def read_raw(config: DataConfig, split: Split) -> tuple[list[RawImage], tuple[str, ...]]:
    """Every listed image of a split and the class names; YolomishError where the list itself cannot be read."""
    if config.format in ("coco", "shapes"):
        root = shapes_root() if config.format == "shapes" else Path(config.root)
        name = f"{split}.json" if config.format == "shapes" else getattr(config, split)
        folder = split if config.format == "shapes" else getattr(config, f"{split}_images")
        return _raw_coco(root / name, root / folder)
    if config.format == "voc":
        root = Path(config.root)
        names = config.names or _voc_names(root, (config.train, config.val))
        return [_raw_voc(root, stem, names) for stem in _split_list(root, getattr(config, split))], names
    return _raw_yolo(Path(config.root) / getattr(config, split), config.names), config.names


def _raw_coco(file: Path, folder: Path) -> tuple[list[RawImage], tuple[str, ...]]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        names = {c["id"]: c["name"] for c in sorted(content["categories"], key=lambda c: c["id"])}
        of_image = defaultdict(list)
        for annotation in content.get("annotations", []):
            of_image[annotation["image_id"]].append(annotation)
        images = []
        for item in content["images"]:
            size = (item["height"], item["width"]) if "height" in item and "width" in item else None
            image = RawImage(path=folder / item["file_name"], key=str(item["id"]), size_hw=size)
            for a in of_image.pop(item["id"], []):
                where = f"{file.name} annotation {a.get('id')}"
                try:
                    x, y, w, h = (float(v) for v in a["bbox"])
                except (KeyError, TypeError, ValueError):
                    image.malformed.append(f"{where}: bbox {a.get('bbox')!r}")
                    continue
                known, crowd = a["category_id"] in names, bool(a.get("iscrowd", 0))
                label = names.get(a["category_id"], str(a["category_id"]))
                image.boxes.append(RawBox(label=label, known=known, xyxy=(x, y, x + w, y + h), where=where, crowd=crowd))
            images.append(image)
    except OSError as error:
        raise YolomishError(f"{file} cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise YolomishError(f"{file} is not a COCO annotation file: {type(error).__name__}: {error}") from None
    for image_id, orphans in of_image.items():
        where = f"{file.name}: {len(orphans)} annotations of image {image_id}, which is not listed"
        images.append(RawImage(path=Path(), key=str(image_id), size_hw=None, malformed=[where]))
    return images, tuple(names.values())


def _raw_voc(root: Path, stem: str, names: tuple[str, ...]) -> RawImage:
    file = root / "Annotations" / f"{stem}.xml"
    path = root / "JPEGImages" / f"{stem}.jpg"
    path = path if path.is_file() else next((p for s in SUFFIXES if (p := path.with_suffix(s)).is_file()), path)
    image = RawImage(path=path, key=stem, size_hw=None)
    try:
        tree = ET.parse(file).getroot()
        size = (int(tree.findtext("size/height", "0")), int(tree.findtext("size/width", "0")))
    except (OSError, ET.ParseError, ValueError) as error:
        image.malformed.append(f"{file.name}: {getattr(error, 'strerror', None) or error}")
        return image
    image.size_hw = size if all(size) else None
    for number, item in enumerate(tree.iter("object"), 1):
        where, name = f"{file.name} object {number}", item.findtext("name", "")
        try:
            x0, y0, x1, y1 = (float(item.findtext(f"bndbox/{k}", "")) for k in ("xmin", "ymin", "xmax", "ymax"))
        except ValueError:
            image.malformed.append(f"{where}: no complete bndbox")
            continue
        degenerate = x1 <= x0 or y1 <= y0  # VOC counts from 1 and includes the last pixel, and no box is one pixel
        box = (x0 - 1, y0 - 1, x0 - 1 if degenerate else x1, y0 - 1 if degenerate else y1)
        image.boxes.append(RawBox(label=name, known=name in names, xyxy=box, where=where))
    return image


def _raw_yolo(source: Path, names: tuple[str, ...]) -> list[RawImage]:
    if source.is_dir():
        paths = sorted(p for p in source.iterdir() if p.suffix.lower() in SUFFIXES)
    elif source.is_file():
        paths = [source.parent / line.strip() for line in source.read_text().splitlines() if line.strip()]
    else:
        raise YolomishError(f"{source} is neither a folder of images nor a list of them")
    images = []
    for path in paths:
        image = RawImage(path=path, key=str(path.resolve()), size_hw=None, fractions=True)
        parts = ["labels" if part == "images" else part for part in path.parts]
        file = next((f for f in (Path(*parts).with_suffix(".txt"), path.with_suffix(".txt")) if f.is_file()), None)
        for number, line in enumerate(file.read_text().splitlines() if file else (), 1):
            if not line.strip():
                continue
            where = f"{file}:{number}"
            try:
                label, cx, cy, w, h = (float(v) for v in line.split())
            except ValueError:
                image.malformed.append(f"{where}: not 'class cx cy w h': {line!r}")
                continue
            known = label.is_integer() and 0 <= label < len(names)
            name = names[int(label)] if known else f"{label:g}"
            box = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
            image.boxes.append(RawBox(label=name, known=known, xyxy=box, where=where))
        images.append(image)
    return images
