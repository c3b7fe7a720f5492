"""WebDataset's tar shards: indexed once, then each picture is read where it lies, in whatever order the seed says.

Names, extensions and braces are read as the ``webdataset`` library reads them; its streaming is not used, because the order
of a stream follows from the number of workers.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolomish.config import DataConfig
from yolomish.config.schema import MOST_CLASSES
from yolomish.data.classification.listing import ClassListing
from yolomish.data.formats.record import Split, split_of, split_paths
from yolomish.data.images import SUFFIXES, decode_image
from yolomish.errors import YolomishError, first_line, shown
from yolomish.files import cache_folder, make_folder, reason, shown_path, write_text

TAR = ".tar"
PICTURES = tuple(suffix.removeprefix(".") for suffix in sorted(SUFFIXES))
CLASS = "cls"  # webdataset/autodecode.py: a whole number from 0
MOST_SHARDS = 1_000_000  # that a pattern may name
VERSION = 1  # of the index files


@dataclass(frozen=True, kw_only=True)
class ShardPicture:
    """A picture in a shard: ``name`` in the tar, ``size`` bytes from ``offset`` on; ``changed`` is the shard's time in ns."""

    shard: Path
    name: str
    offset: int
    size: int
    changed: int

    def read(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright; YolomishError naming shard and member where it cannot be read."""
        try:
            with self.shard.open("rb") as file:
                file.seek(self.offset)
                raw = file.read(self.size)
        except OSError as error:
            raise YolomishError(f"{shown_path(self.shard)} cannot be read: {reason(error)}") from None
        return decode_image(np.frombuffer(raw, np.uint8), f"{shown_path(self.shard)}: {shown_path(self.name)}")

    def stamp(self) -> tuple[int, int]:
        return self.size, self.changed


def of_shards(config: DataConfig, split: Split) -> ClassListing:
    """The samples of a split's shards, in the shards' order; the classes are ``names``, else the numbers up to train's largest.

    YolomishError, naming shard and key, for a sample without a picture or class, and for a shard that is cut off.
    """
    rows = [row for shard in _shards(config, split) for row in _indexed(shard)]
    names = config.names
    if not names:
        train = rows if split == "train" else [row for shard in _shards(config, "train") for row in _indexed(shard)]
        names = tuple(map(str, range(1 + max((label for _, label in train), default=0))))
    for member, label in rows:
        if label >= len(names):
            given = "names" if config.names else "train's classes"
            raise YolomishError(f"{member.shard}: {shown_path(member.name)} is of class {label}, {given} end at {len(names) - 1}")
    return ClassListing(
        source=Path(config.root) if Path(config.root).suffix != TAR else Path(config.root).parent,
        names=names,
        paths=tuple(member.shard / member.name for member, _ in rows),
        labels=tuple(label for _, label in rows),
        stored=tuple(member for member, _ in rows),
    )


def holds_shards(folder: Path) -> bool:
    """Whether tar shards lie in ``folder``."""
    return any(folder.glob(f"*{TAR}"))


def _shards(config: DataConfig, split: Split) -> list[Path]:
    """The shards of a split: those that its patterns name, else those of the folder whose names speak of it.

    A ``root`` that is a pattern itself is the split that it speaks of, or train.
    """
    root = Path(config.root)
    folder, patterns = root, split_paths(config, split)
    if root.suffix == TAR:
        folder, patterns = root.parent, (root.name,) if (split_of(root.name) or "train") == split else (split,)
    found: list[Path] = []
    for pattern in patterns:
        if pattern.endswith(TAR):
            found += [folder / name for name in _expanded(pattern)]
        else:
            found += sorted(path for path in folder.glob(f"*{TAR}") if split_of(path.name) == split)
    if not found:
        raise YolomishError(
            f"{shown_path(folder)} holds no {TAR} whose name speaks of {split}: name them in a YAML, {split}: ..."
        )
    return found


def _expanded(pattern: str) -> list[str]:
    """The names that the library makes of a pattern, which makes all at once: YolomishError for too many."""
    try:
        count = math.prod(abs(int(high) - int(low)) + 1 for low, high in re.findall(r"(-?\d+)\.\.(-?\d+)", pattern))
        count *= math.prod(parts.count(",") + 1 for parts in re.findall(r"{([^{}]*)}", pattern))
        if count > MOST_SHARDS:
            raise ValueError(f"it names {shown(count)} shards, over {MOST_SHARDS:,}")
        names: list[str] = _library().shardlists.expand_urls(pattern)
        return names
    except (ValueError, RuntimeError) as error:  # unbalanced braces; braces nested beyond Python's depth
        raise YolomishError(f"{shown(pattern)} is no pattern of shards: {first_line(error)}") from None


def _library() -> Any:
    try:
        import webdataset
    except ImportError:
        raise YolomishError(
            "tar shards are read by webdataset, which is not installed: pip install 'yolomish[webdataset]'"
        ) from None
    return webdataset


def _indexed(shard: Path) -> list[tuple[ShardPicture, int]]:
    """The pictures of a shard with their classes, from the index in the cache folder, which is made where there is none."""
    try:
        status = shard.stat()
    except (OSError, ValueError) as error:
        raise YolomishError(f"{shown_path(shard)} cannot be read: {reason(error)}") from None
    facts = [VERSION, str(shard.resolve()), status.st_size, status.st_mtime_ns]
    file = cache_folder() / "shards" / f"{hashlib.sha1(json.dumps(facts).encode()).hexdigest()}.json"
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or cut off
        rows = [list(row) for row in _scan(shard)]
        make_folder(file.parent)
        write_text(file, json.dumps(rows), sync=False)
    place: dict[str, Any] = {"shard": shard, "changed": status.st_mtime_ns}
    return [(ShardPicture(name=n, offset=offset, size=size, **place), label) for n, offset, size, label in rows]


def _scan(shard: Path) -> Iterator[tuple[str, int, int, int]]:
    """Name, offset, size and class of each sample's picture, read from a tar's headers."""
    tariterators, last = _library().tariterators, ""
    try:
        with tarfile.open(shard, "r:") as tar:

            def files() -> Iterator[dict[str, Any]]:
                nonlocal last
                for info in tar:
                    if info.isreg() and not info.name.startswith(tariterators.meta_prefix):
                        last = info.name
                        yield {"fname": info.name, "data": info, "__url__": str(shard)}

            for sample in tariterators.group_by_keys(files()):
                yield _sample(tar, sample, shard)
            end = tar.fileobj
            assert end is not None
            end.seek(tar.offset)
            if end.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:  # tarfile takes a broken header for the end
                raise tarfile.ReadError("no header, nor the end of a tar")
    except (tarfile.TarError, OSError) as error:
        behind = f" behind {last[:100]!r}" if last else ", or no plain tar (gunzip it)"
        raise YolomishError(f"{shown_path(shard)} is cut off or damaged{behind}: {reason(error)}") from None
    except ValueError as error:  # the library's, of a name twice in one sample
        raise YolomishError(f"{shown_path(shard)}: {first_line(error.args[0])}") from None


def _sample(tar: tarfile.TarFile, sample: dict[str, Any], shard: Path) -> tuple[str, int, int, int]:
    where = f"{shown_path(shard)}: the sample {sample['__key__'][:100]!r}"
    picture = next((sample[kind] for kind in PICTURES if kind in sample), None)
    if picture is None:
        raise YolomishError(f"{where} holds no picture (.jpg, .png, ...)")
    if CLASS not in sample:
        raise YolomishError(f"{where} holds no class: .{CLASS}, a whole number from 0")
    content = tar.extractfile(sample[CLASS])
    text = content.read(40) if content else b""
    if not text.strip().isdigit():
        raise YolomishError(f"{where} has the class {shown(text.decode(errors='replace'))}, not a whole number from 0")
    if (label := int(text)) >= MOST_CLASSES:
        raise YolomishError(f"{where} has the class {shown(label)}: there may be {MOST_CLASSES:,}")
    return picture.name, picture.offset_data, picture.size, label
