"""The data doctor: all that is wrong with a data set, as findings with an id and a severity. It writes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from yolomish.config import DataConfig
from yolomish.data.classes import class_places
from yolomish.data.formats import read_listing
from yolomish.data.formats.faults import in_order
from yolomish.data.formats.record import CHECKS, Finding, Folders, Listing, Record, Split, class_counts
from yolomish.data.images import Header, decode_image, read_headers
from yolomish.errors import YolomishError


@dataclass(frozen=True, kw_only=True)
class _Pixels:
    """What a file turned out to hold: its upright (height, width) and SHA-1, or why not."""

    size_hw: tuple[int, int] | None = None
    sha1: str = ""
    fault: str = ""


def check_data(config: DataConfig, *, fast: bool = False, workers: int = 4) -> list[Finding]:
    """All findings of the train and val splits, in the order of ``CHECKS``: those that opening raises, and what only
    pictures tell.

    ``fast`` reads images' headers alone: no broken pictures and no equal contents are found.
    """
    found: list[Finding] = []
    listings: dict[Split, Listing] = {}
    hashes: dict[Split, dict[str, str]] = {}
    splits: tuple[Split, ...] = ("train", "val")
    for split in splits:
        try:
            listing = listings[split] = read_listing(config, split)
        except YolomishError as error:
            found.append(Finding(check="split-unreadable", split=split, message=str(error)))
            continue
        found += listing.findings
        folders = Folders()  # what is missing or without a size is a finding of the listing already
        records = [record for record in listing.records if record.size_hw and folders.has(record.path)]
        headers = read_headers([record.path for record in records])
        with ThreadPoolExecutor(workers) as pool:
            pixels = list(pool.map(_as_header_says if fast else _decoded, records, headers))
        hashes[split] = {}
        for record, header, seen in zip(records, headers, pixels, strict=True):
            for check, message in _check_image(record, header, seen):
                found.append(Finding(check=check, split=split, message=message))
            if seen.sha1 and (first := hashes[split].setdefault(seen.sha1, str(record.path))) != str(record.path):
                found.append(Finding(check="image-duplicate", split=split, message=f"{record.path} equals {first}"))
    if len(listings) == 2:
        found += _check_pair(listings["train"], listings["val"], hashes)
    return in_order(found)


def _decoded(record: Record, _: Header) -> _Pixels:
    try:
        raw = np.fromfile(record.path, np.uint8)
        h, w = decode_image(raw, str(record.path)).shape[:2]
    except YolomishError as error:
        return _Pixels(fault=str(error))
    except OSError as error:
        return _Pixels(fault=f"{record.path} cannot be read: {error.strerror}")
    return _Pixels(size_hw=(h, w), sha1=hashlib.sha1(raw.tobytes()).hexdigest())


def _as_header_says(_: Record, header: Header) -> _Pixels:
    return _Pixels(size_hw=header.size_hw, fault=header.fault)


def _check_image(record: Record, header: Header, seen: _Pixels) -> Iterator[tuple[str, str]]:
    if seen.fault:
        yield "image-unreadable", seen.fault
    if header.orientation != 1:
        yield "exif-rotated", f"{record.path} is stored turned or mirrored (EXIF {header.orientation}) and is shown upright"
    if seen.size_hw and record.size_hw and seen.size_hw != record.size_hw:
        turned = " (its sides swapped: an EXIF rotation the annotation ignored?)" if seen.size_hw == record.size_hw[::-1] else ""
        h, w = record.size_hw
        yield "size-differs", f"{record.path} is {seen.size_hw[1]}x{seen.size_hw[0]} px, its annotation says {w}x{h}{turned}"


def _check_pair(train: Listing, val: Listing, hashes: dict[Split, dict[str, str]]) -> Iterator[Finding]:
    if val.names != train.names:
        counts = class_counts(val.records, val.names)
        try:
            class_places(val.names, train.names, counts, source=val.source, whose=train.source)
        except YolomishError as error:
            yield Finding(check="classes-differ", split="both", message=str(error))
        else:
            message = f"{val.source} does not number its classes as {train.source} does: they are compared by name"
            yield Finding(check="classes-reordered", split="both", message=message)
    shared = {record.path for record in train.records} & {record.path for record in val.records}
    if len(shared) == len(val.records) > 1:
        message = f"all {len(shared)} images of val are in train: what is learnt by heart cannot be told from what is learnt"
        yield Finding(check="train-val-overlap-file", split="both", message=message)
        return
    for path in sorted(shared):
        yield Finding(check="train-val-overlap-file", split="both", message=f"{path} is in train and in val")
    for sha1 in sorted(hashes["train"].keys() & hashes["val"].keys()):
        one, other = hashes["train"][sha1], hashes["val"][sha1]
        if one != other:
            message = f"{other} in val equals {one} in train"
            yield Finding(check="train-val-overlap-content", split="both", message=message)


def counts(findings: list[Finding]) -> dict[str, int]:
    """The number of findings of each severity."""
    numbers = dict.fromkeys(("error", "warning", "info"), 0)
    for finding in findings:
        numbers[finding.severity] += 1
    return numbers


def by_check(findings: list[Finding]) -> dict[str, list[Finding]]:
    """The findings of each check that found something, in the order of ``CHECKS``."""
    groups = {check: [finding for finding in findings if finding.check == check] for check in CHECKS}
    return {check: group for check, group in groups.items() if group}
