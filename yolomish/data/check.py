"""The data doctor: all that is wrong with a data set, as findings with an id and a severity. It writes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from tqdm import tqdm

from yolomish.config import DataConfig
from yolomish.data.classes import class_places
from yolomish.data.formats import read_listing, resolved
from yolomish.data.formats.faults import corners, in_order
from yolomish.data.formats.record import CHECKS, SPLITS, Finding, Folders, Listing, Record, Split, class_counts
from yolomish.data.images import Header, decode_image, read_headers
from yolomish.data.near import BITS, NEAR, alike, distances, perceptual_hash
from yolomish.data.summary import Boxes, Summary, all_boxes, summarise
from yolomish.errors import YolomishError
from yolomish.types import SizeHW, size_text

TINY = 3.0  # px at the network's size: YOLOv5 utils/autoanchor.py calls boxes with a side below it extremely small


@dataclass(frozen=True, kw_only=True)
class _Pixels:
    """What a file turned out to hold: its upright (height, width), SHA-1 and perceptual hash, or why not."""

    size_hw: tuple[int, int] | None = None
    sha1: str = ""
    hashed: np.ndarray | None = None
    fault: str = ""


@dataclass(frozen=True)
class _Seen:
    """The records of a split whose pictures were read, and what they hold."""

    records: list[Record]
    pixels: list[_Pixels]

    def hashed(self, wanted: Iterable[int]) -> tuple[np.ndarray, list[int]]:
        """The perceptual hashes (N, 4) of the ``wanted`` records that have one, and which these are."""
        kept = [i for i in wanted if self.pixels[i].hashed is not None]
        return np.array([self.pixels[i].hashed for i in kept], np.uint64).reshape(-1, 4), kept


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What was found, in the order of ``CHECKS``, and what the splits hold that could be read."""

    findings: list[Finding]
    summaries: dict[str, Summary]


def check_data(config: DataConfig, *, fast: bool = False, workers: int = 4) -> list[Finding]:
    """The findings of ``examine``."""
    return examine(config, fast=fast, workers=workers).findings


def examine(
    config: DataConfig, *, fast: bool = False, workers: int = 4, size_hw: SizeHW = (416, 416), keep_aspect: bool = False
) -> Examination:
    """All findings of the splits that ``config`` names: those that opening raises, and what only pictures tell.

    ``fast`` reads images' headers alone: no broken pictures and none that are equal or look alike are found. Boxes are called
    tiny at the network's ``size_hw`` in px, both axes scaled alike where ``keep_aspect``. ``workers`` threads decode.
    """
    config = resolved(config)
    found: list[Finding] = []
    listings: dict[Split, Listing] = {}
    summaries: dict[str, Summary] = {}
    seen: dict[str, _Seen] = {}
    for split in SPLITS:
        if not (getattr(config, split) or (split == "val" and (config.split or config.held_out))):
            continue
        try:
            listing = listings[split] = read_listing(config, split)
        except YolomishError as error:
            check = "test-unreadable" if split == "test" else "split-unreadable"
            found.append(Finding(check=check, split=split, message=str(error)))
            continue
        found += listing.findings
        boxes = all_boxes(listing, size_hw, keep_aspect=keep_aspect)
        summaries[split] = summarise(listing, boxes)
        found += _tiny(listing, boxes, split, size_hw)
        folders = Folders()  # what is missing or without a size is a finding of the listing already
        records = [record for record in listing.records if record.size_hw and folders.has(record.path)]
        headers = read_headers([record.path for record in records])
        with ThreadPoolExecutor(workers) as pool:
            work = pool.map(_as_header_says if fast else _decoded, records, headers)
            seen[split] = _Seen(records, list(tqdm(work, f"check {split}", len(records), leave=False, disable=None)))
        for record, header, pixels in zip(records, headers, seen[split].pixels, strict=True):
            found += _check_image(record, header, pixels, split)
        found += _twice(seen[split], split)
    for one, other in combinations(listings, 2):
        found += _classes(one, listings[one], other, listings[other])
        found += _leaks(one, seen[one], other, seen[other])
    return Examination(findings=in_order(list(dict.fromkeys(found))), summaries=summaries)


def _decoded(record: Record, _: Header) -> _Pixels:
    try:
        raw = np.fromfile(record.path, np.uint8)
        image = decode_image(raw, str(record.path))
    except YolomishError as error:
        return _Pixels(fault=str(error))
    except OSError as error:
        return _Pixels(fault=f"{record.path} cannot be read: {error.strerror}")
    h, w = image.shape[:2]
    return _Pixels(size_hw=(h, w), sha1=hashlib.sha1(raw.data).hexdigest(), hashed=perceptual_hash(image))


def _as_header_says(_: Record, header: Header) -> _Pixels:
    return _Pixels(size_hw=header.size_hw, fault=header.fault)


def _check_image(record: Record, header: Header, seen: _Pixels, split: str) -> Iterator[Finding]:
    def finding(check: str, message: str) -> Finding:
        return Finding(check=check, split=split, message=message, image=record.path)

    if seen.fault:
        yield finding("image-unreadable", seen.fault)
    if header.orientation != 1:
        shown = f"is stored turned or mirrored (EXIF {header.orientation}) and is shown upright"
        yield finding("exif-rotated", f"{record.path} {shown}")
    if seen.size_hw and record.size_hw and seen.size_hw != record.size_hw:
        turned = " (its sides swapped: an EXIF rotation the annotation ignored?)" if seen.size_hw == record.size_hw[::-1] else ""
        h, w = record.size_hw
        sizes = f"{seen.size_hw[1]}x{seen.size_hw[0]} px, its annotation says {w}x{h}"
        yield finding("size-differs", f"{record.path} is {sizes}{turned}")


def _tiny(listing: Listing, boxes: Boxes, split: str, size_hw: SizeHW) -> Iterator[Finding]:
    """One finding per image with boxes too small for the network to see, at the smallest of them."""
    small = np.flatnonzero((boxes.sides < TINY).any(1))
    small = small[np.lexsort((boxes.sides[small].prod(1), boxes.owner[small]))]
    owners, first, counts = np.unique(boxes.owner[small], return_index=True, return_counts=True)
    for owner, i, count in zip(owners, small[first], counts, strict=True):
        record, index, (w, h) = listing.records[owner], int(boxes.index[i]), boxes.sides[i]
        what = f"{record.place(index)}: {listing.names[boxes.labels[i]]} of {w:.1f}x{h:.1f} px at {size_text(size_hw)} px"
        more = f", the smallest of {count}" if count > 1 else ""
        box = corners(record.boxes[index])
        yield Finding(check="box-tiny", split=split, message=what + more, image=record.path, box=box)


def _twice(seen: _Seen, split: str) -> Iterator[Finding]:
    """Pictures of a split that equal an earlier one or look like it."""
    first: dict[str, Record] = {}
    equal: set[int] = set()
    for i, (record, pixels) in enumerate(zip(seen.records, seen.pixels, strict=True)):
        if pixels.sha1 and (earlier := first.setdefault(pixels.sha1, record)) is not record:
            equal.add(i)
            message = f"{record.path} equals {earlier.path}"
            yield Finding(check="image-duplicate", split=split, message=message, image=record.path, other=earlier.path)
    hashes, kept = seen.hashed([i for i in range(len(seen.records)) if i not in equal])
    for i, j in enumerate(alike(hashes)):
        if j >= 0:
            one, other = seen.records[kept[i]].path, seen.records[kept[j]].path
            message = f"{one} looks like {other} ({_bits(hashes[i], hashes[j])})"
            yield Finding(check="image-near-duplicate", split=split, message=message, image=one, other=other)


def _classes(one: str, first: Listing, other: str, second: Listing) -> Iterator[Finding]:
    """What is to be said of two splits whose classes are not the same in the same order."""
    if first.names == second.names:
        return
    splits, counts = f"{one}, {other}", class_counts(second.records, second.names)
    try:
        class_places(second.names, first.names, counts, source=second.source, whose=first.source)
    except YolomishError as error:
        yield Finding(check="classes-differ", split=splits, message=str(error))
    else:
        message = f"{second.source} does not number its classes as {first.source} does: they are compared by name"
        yield Finding(check="classes-reordered", split=splits, message=message)


def _leaks(one: str, first: _Seen, other: str, second: _Seen) -> Iterator[Finding]:
    """Pictures that two splits share: as a file, by content or by their looks, each told once."""
    splits, shared = f"{one}, {other}", {record.path for record in first.records} & {record.path for record in second.records}
    if len(shared) == len(second.records) > 1:
        message = f"all {len(shared)} images of {other} are in {one}: what is learnt by heart cannot be told from what is learnt"
        yield Finding(check="split-overlap-file", split=splits, message=message)
        return
    for path in sorted(shared):
        message = f"{path} is in {one} and in {other}"
        yield Finding(check="split-overlap-file", split=splits, message=message, image=path)
    by_sha1 = {pixels.sha1: record.path for record, pixels in zip(first.records, first.pixels, strict=True)}
    left = []
    for i, (record, pixels) in enumerate(zip(second.records, second.pixels, strict=True)):
        if record.path in shared:
            continue
        if pixels.sha1 and (equal := by_sha1.get(pixels.sha1)):
            message = f"{record.path} in {other} equals {equal} in {one}"
            yield Finding(check="split-overlap-content", split=splits, message=message, image=record.path, other=equal)
        else:
            left.append(i)
    (hashes, kept), (among, owners) = second.hashed(left), first.hashed(range(len(first.records)))
    for i, j in enumerate(alike(hashes, among)):
        if j >= 0:
            mine, theirs = second.records[kept[i]].path, first.records[owners[j]].path
            message = f"{mine} in {other} looks like {theirs} in {one} ({_bits(hashes[i], among[j])})"
            yield Finding(check="split-overlap-near", split=splits, message=message, image=mine, other=theirs)


def _bits(one: np.ndarray, other: np.ndarray) -> str:
    return f"{distances(one, other)} of {BITS} bits of their hashes differ, up to {NEAR} are reported"


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """The number of findings of each severity."""
    numbers = dict.fromkeys(("error", "warning", "info"), 0)
    for finding in findings:
        numbers[finding.severity] += 1
    return numbers


def by_check(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    """The findings of each check that found something, in the order of ``CHECKS``."""
    groups: dict[str, list[Finding]] = {check: [] for check in CHECKS}
    for finding in findings:
        groups[finding.check].append(finding)
    return {check: group for check, group in groups.items() if group}
