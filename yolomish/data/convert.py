"""One data format to another: written beside its place, read back, and only then put there; what is lost is counted."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from yolomish.config import DataConfig
from yolomish.data.datasets import DetectionData, open_data
from yolomish.data.formats import FORMATS, resolved
from yolomish.data.formats.record import SPLITS, Record, Split
from yolomish.data.formats.writing import WholeSet, Writer
from yolomish.data.images import read_headers
from yolomish.errors import YolomishError, unknown_name

RECORD = "convert.json"  # marks a folder that was written here, which alone may be replaced
ROUNDING = 1e-6  # px by which a box may differ after it was read back


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was written: images and boxes of each split, and how many of what were ``lost``."""

    source: str
    format: str
    images: dict[str, int]
    boxes: dict[str, int]
    lost: dict[str, int]


def writable() -> list[str]:
    """The formats that can be written."""
    return [name for name, kind in FORMATS.items() if kind.writer]


def convert(config: DataConfig, target: Path, form: str, *, force: bool = False, link: bool = False) -> Conversion:
    """Write all splits of a data set in ``target`` as ``form``, with its pictures (or links to them) and convert.json, which
    holds what is returned.

    ``force`` replaces a folder that an earlier conversion wrote. YolomishError, leaving ``target`` as it was, for data that
    cannot be opened or written, for a folder that is there, and where the set would not be read back as it is.
    """
    writer = FORMATS[form].writer if form in FORMATS else None
    if writer is None:
        raise unknown_name("format to write", form, writable())
    config = resolved(config)
    _check_target(target, config, force)
    lost: Counter[str] = Counter()
    opened = _open_all(config, lost)
    first = next(iter(opened.values()))
    if first.own_ids and "category ids" not in writer.keeps:
        lost["category ids"] = sum(own != new for new, own in enumerate(first.category_ids, 1))
    _check_sizes(opened)
    parts = {split: _fitting(data, writer, lost) for split, data in opened.items()}
    _lose_classes(first, parts, writer, lost)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".part", dir=target.parent))
    except OSError as error:
        raise YolomishError(f"{target} cannot be written: {error.strerror}") from None
    try:
        placed = _place_pictures(parts, part, writer, lost, link)
        writer.write(part, WholeSet(names=first.names, category_ids=first.category_ids, splits=placed))
        _read_back(part, placed, first.names)
        done = Conversion(
            source=config.root,
            format=form,
            images={split: len(records) for split, records in placed.items()},
            boxes={split: sum(len(r.labels) for r in records) for split, records in placed.items()},
            lost={what: count for what, count in lost.items() if count},
        )
        (part / RECORD).write_text(json.dumps(asdict(done), indent=1) + "\n", encoding="utf-8")
        part.chmod(0o755)  # mkdtemp makes 0700
        _put(part, target, force)
    except OSError as error:
        raise YolomishError(f"{target} cannot be written: {error.strerror or error}; what was there is intact") from None
    except UnicodeEncodeError as error:
        raise YolomishError(f"{target} cannot be written: the name {ascii(error.object)[:100]} is no Unicode text") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return done


def _check_target(target: Path, config: DataConfig, force: bool) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise YolomishError(f"{target} is there already, and no folder: name another")
    if target.is_dir() and any(target.iterdir()):
        if not force:
            raise YolomishError(f"{target} is there already: name another folder, or --force to replace an earlier conversion")
        if not (target / RECORD).is_file():
            raise YolomishError(f"{target} was not written by a conversion (it has no {RECORD}): it is not replaced")
    home = target.resolve()
    if config.root and (home == Path(config.root) or home in Path(config.root).parents):
        raise YolomishError(f"{target} holds the data that is to be converted: name another folder")


def _open_all(config: DataConfig, lost: Counter[str]) -> dict[Split, DetectionData]:
    """Every split that there is, its classes numbered as the first's; val is left out where it is train over again."""
    found: dict[Split, DetectionData] = {}
    for split in SPLITS:
        if not getattr(config, split):
            continue
        data = open_data(config, split)
        if not data.annotated:
            lost[f"images of {split}, which has no annotations"] = len(data)
        elif found and [r.path for r in data.listing.records] == [r.path for r in next(iter(found.values())).listing.records]:
            continue
        else:
            first = next(iter(found.values()), data)
            found[split] = data.with_classes(first.names, first.source)
    if not found:
        raise YolomishError(f"{config.root or config.format} has no split with annotations: nothing to convert")
    return found


def _check_sizes(opened: dict[Split, DetectionData]) -> None:
    """YolomishError where a picture is not of the size that its boxes are stated for: fractions would be of another frame."""
    for data in opened.values():
        records = data.listing.records
        for record, header in zip(records, read_headers([r.path for r in records]), strict=True):
            if header.size_hw != record.size_hw:
                seen = "{1}x{0} px".format(*header.size_hw) if header.size_hw else header.fault
                raise YolomishError(f"{record.path}: its annotation is for another size than its own, {seen}: see yolomish check")


def _fitting(data: DetectionData, writer: Writer, lost: Counter[str]) -> list[Record]:
    """The records as the format can hold them."""
    records = []
    lost["outlines (boxes are kept)"] += data.listing.outlines
    checks = [finding.check for finding in data.listing.findings]
    there = sum(int((r.boxes[:, 2:] <= r.boxes[:, :2]).any(1).sum()) for r in data.listing.records)
    lost["boxes without area"] += checks.count("box-degenerate") - there  # those left out when it was read
    for check in ("image-passed-over", "label-passed-over"):
        lost[f"{check}: see yolomish check"] += checks.count(check)
    if data.own_ids and "image ids" not in writer.keeps:
        lost["image ids"] += len(data)
    for record in data.listing.records:
        boxes, keep = record.boxes, np.ones(len(record.labels), bool)
        if "crowds" not in writer.keeps:
            keep &= ~record.crowd
            lost["crowds (left out)"] += int(record.crowd.sum())
        if writer.clips:
            h, w = record.size_hw or (0, 0)
            boxes = boxes.clip(0, (w, h, w, h))
            lost["parts of boxes beyond their picture"] += int((keep & (abs(boxes - record.boxes) > ROUNDING).any(1)).sum())
        small = ~(boxes[:, 2:] - boxes[:, :2] > writer.least).all(1)
        lost["boxes without area" if writer.least <= 0 else "boxes of one pixel or less"] += int((keep & small).sum())
        keep &= ~small
        if "difficult marks" not in writer.keeps:
            lost["difficult marks (boxes are kept)"] += int((keep & record.ignore).sum())
        sides = record.boxes[:, 2:] - record.boxes[:, :2]
        if "areas" not in writer.keeps:
            lost["areas of outlines"] += int((keep & ~np.isclose(record.areas, sides.prod(1), rtol=1e-6)).sum())
        columns = {name: getattr(record, name)[keep] for name in ("labels", "areas", "crowd", "ignore")}
        records.append(replace(record, boxes=boxes[keep], where=(), **columns))
    return records


def _lose_classes(first: DetectionData, parts: dict[Split, list[Record]], writer: Writer, lost: Counter[str]) -> None:
    used = {int(label) for records in parts.values() for record in records for label in record.labels}
    names = [first.names[label] for label in sorted(used)]
    if "empty classes" not in writer.keeps:
        lost["classes without a box"] = len(first.names) - len(used)
    if "class order" not in writer.keeps and names != sorted(names):
        lost["places of classes (they go by alphabet)"] = sum(a != b for a, b in zip(names, sorted(names), strict=True))


def _place_pictures(
    parts: dict[Split, list[Record]], folder: Path, writer: Writer, lost: Counter[str], link: bool
) -> dict[Split, list[Record]]:
    """The records with their pictures copied to ``folder``, or linked; of equal names all but the first are numbered."""
    put: Callable[[Path, Path], object] = (lambda a, b: os.symlink(a.resolve(), b)) if link else shutil.copyfile
    taken: set[str] = set()
    placed: dict[Split, list[Record]] = {}
    for split, records in parts.items():
        home = folder / writer.pictures(split)
        home.mkdir(parents=True, exist_ok=True)
        placed[split] = []
        for record in records:
            stem, number = record.path.stem, 1
            while stem.lower() in taken:
                number += 1
                stem = f"{record.path.stem}-{number}"
            taken.add(stem.lower())
            lost["names of pictures (numbered)"] += number > 1
            path = home / f"{stem}{record.path.suffix}"
            put(record.path, path)
            placed[split].append(replace(record, path=path))
    return placed


def _read_back(folder: Path, placed: dict[Split, list[Record]], names: tuple[str, ...]) -> None:
    """YolomishError where the new folder does not hold the same boxes of the same pictures."""
    config = resolved(DataConfig(format="auto", root=str(folder)))
    for split, records in placed.items():
        there = {record.path.name: record for record in open_data(config, split).with_classes(names, folder).listing.records}
        for record in records:
            other = there.get(record.path.name)
            if other is None or not _same(record, other):
                raise YolomishError(f"{record.path.name} cannot be written in this format as it is: a name of other characters?")


def _same(a: Record, b: Record) -> bool:
    rows: Sequence[np.ndarray] = [np.column_stack((r.labels, r.boxes)) for r in (a, b)]
    return rows[0].shape == rows[1].shape and bool((abs(rows[0] - rows[1]) <= ROUNDING).all())


def _put(part: Path, target: Path, force: bool) -> None:
    """Put the finished folder in its place, by ``force`` in that of an earlier one, which goes only then."""
    old = part.with_suffix(".old")
    if target.exists():
        if force:
            os.replace(target, old)
        else:
            target.rmdir()  # an empty folder; refused where another conversion was faster
    try:
        os.replace(part, target)
    except OSError:
        if old.exists():
            os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
