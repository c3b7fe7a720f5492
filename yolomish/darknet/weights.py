"""Darknet's ``.weights``: a header, then float32 little-endian: for each convolution the BN or bias, then the kernel.

Format: Darknet src/parser.c load_weights_upto and save_weights_upto. The file stores no activation, class name or
anchor: weights trained with another activation load without a complaint from anyone.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from yolomish.config import ModelConfig
from yolomish.darknet.order import file_order, size
from yolomish.errors import YolomishError
from yolomish.files import foreign_kind, replace_file
from yolomish.networks import Network
from yolomish.networks.registry import outline

MOST_CLASSES = 10_000  # more would be the length of another network by chance


@dataclass(frozen=True, kw_only=True)
class FileHeader:
    """The first ``size`` bytes of a file: Darknet's version and how many images the weights have seen in training."""

    version: tuple[int, int, int]
    images_seen: int
    size: int


@dataclass(frozen=True, kw_only=True)
class WeightsHeader:
    """What a file said and how far it went: ``convolutions``, and other sections with weights, loaded of ``total`` (fewer for
    a .conv.137 file)."""

    version: tuple[int, int, int]
    images_seen: int
    convolutions: int
    total: int


MINORS = {0: (1, 2), 1: (0,)}  # of the major versions that Darknet wrote; later forks count on in the last place


def is_darknet_file(path: str | Path) -> bool:
    """Whether a file is Darknet weights, by its header and length whatever its name (``.backup``, ``.conv.137``,
    ``.weights.1``), or a damaged one by its name (``.weights``, but no zip as torch writes it); False where there is none."""
    try:
        with open(path, "rb") as file:
            start = file.read(20)
    except OSError:
        return False
    return _has_header(start, os.path.getsize(path)) or (Path(path).suffix == ".weights" and not start.startswith(b"PK"))


def _has_header(start: bytes, length: int) -> bool:
    if len(start) < 16 or length % 4:
        return False
    major, minor, revision = struct.unpack_from("<3i", start)
    wide = major * 10 + minor >= 2
    return minor in MINORS.get(major, ()) and 0 <= revision < 100 and length >= (20 if wide else 16)


def parse_header(start: bytes, path: str | Path) -> FileHeader:
    """The header in a file's first 20 bytes or more; YolomishError where there is none."""
    if not _has_header(start, os.path.getsize(path)):
        what = foreign_kind(path)
        reason = f"it is {what}" if what else "it has no Darknet header, or is not whole floats; was the download complete?"
        raise YolomishError(f"{path} ({os.path.getsize(path)} bytes) is not a Darknet .weights file: {reason}")
    major, minor, revision = struct.unpack_from("<3i", start)
    wide = major * 10 + minor >= 2
    seen = struct.unpack_from("<Q" if wide else "<I", start, 12)[0]
    return FileHeader(version=(major, minor, revision), images_seen=seen, size=20 if wide else 16)


def with_classes(config: ModelConfig, count: int) -> ModelConfig:
    """``config`` with another number of classes, and without the counts of each class that a cfg states."""
    return replace(config, num_classes=count, cfg=re.sub(r"(?m)^counters_per_class=.*\n", "", config.cfg))


def fitting_classes(path: str | Path, config: ModelConfig) -> int | None:
    """The number of classes, at most ``MOST_CLASSES``, with which ``config``'s whole file is as long as ``path``; None if there
    is no such.

    YolomishError where ``path`` is no Darknet file.
    """
    with open(path, "rb") as file:
        header = parse_header(file.read(20), path)
    floats = (os.path.getsize(path) - header.size) / 4
    one = size(outline(with_classes(config, 1)))
    if floats < one:
        return None
    more, rest = divmod(floats - one, max(1, size(outline(with_classes(config, 2))) - one))
    return int(more) + 1 if more < MOST_CLASSES and not rest else None


def read_weights(path: str | Path, model: Network) -> WeightsHeader:
    """Load ``path`` into ``model``, whole or cut off at the end of any convolution (such as yolov4.conv.137).

    YolomishError, with the model untouched, where the file is missing, is no Darknet file, ends inside a layer, or
    is longer than the model.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise YolomishError(f"{path} cannot be read: {error.strerror}") from None
    header = parse_header(raw, path)
    start = header.size
    layers = list(file_order(model))
    sizes = [sum(t.numel() for t in stored.tensors()) for stored in layers]
    available, expected = len(raw) - start, 4 * sum(sizes)
    if available > expected:
        raise YolomishError(
            f"{path} holds {len(raw)} bytes, {available - expected} more than the {start + expected} that "
            f"{model.name} with {model.config.num_classes} classes takes: wrong cfg or class count for these weights?"
        )
    loaded, used = 0, 0
    for stored, floats_here in zip(layers, sizes, strict=True):
        if used == available:
            break
        if used + 4 * floats_here > available:
            raise YolomishError(
                f"{path} ends {used + 4 * floats_here - available} bytes early at {stored}: it holds {len(raw)} bytes, "
                f"{start + expected} make the whole of {model.name} with {model.config.num_classes} classes; "
                f"wrong cfg or class count for these weights?"
            )
        used += 4 * floats_here
        loaded += 1
    if loaded == 0:
        raise YolomishError(f"{path} holds a header and no weights")
    floats = np.frombuffer(raw, dtype="<f4", offset=start, count=used // 4)
    position = 0
    with torch.no_grad():
        for stored in layers[:loaded]:
            for tensor in stored.tensors():
                values = floats[position : position + tensor.numel()].astype(np.float32)
                tensor.copy_(torch.from_numpy(values).view(tensor.shape))
                position += tensor.numel()
    return WeightsHeader(version=header.version, images_seen=header.images_seen, convolutions=loaded, total=len(layers))


def write_weights(
    path: str | Path, model: Network, images_seen: int = 0, *, convolutions: int | None = None, minor: int = 2
) -> None:
    """Write ``model`` as Darknet does (version 0.2.5, 20-byte header), or its first ``convolutions`` only.

    92 convolutions of yolov4 make a yolov4.conv.137. ``minor`` 1 writes the old 16-byte header. The file replaces
    an older one only when it is complete.
    """

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            file.write(struct.pack("<3i", 0, minor, 5) + struct.pack("<Q" if minor >= 2 else "<I", images_seen))
            for stored in islice(file_order(model), convolutions):
                for tensor in stored.tensors():
                    file.write(tensor.detach().cpu().contiguous().numpy().astype("<f4").tobytes())

    replace_file(path, write)
