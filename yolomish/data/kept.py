"""The images of a split, decoded when asked for, or once and kept in memory or on disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolomish.data.images import read_image
from yolomish.errors import YolomishError
from yolomish.files import cache_folder


class ImageData:
    """The images of a split at ``paths``, the ``names`` of its classes, and the ``source`` that lists them."""

    def __init__(self, paths: Sequence[Path], names: tuple[str, ...], source: Path) -> None:
        self.paths, self.names, self.source = tuple(paths), names, source
        self._images: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> Path:
        """The image file."""
        return self.paths[index]

    def image(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright."""
        return self._images[index] if self._images else self.read(index)

    def read(self, index: int) -> np.ndarray:
        """The image decoded from where it lies."""
        return read_image(self.paths[index])

    def stamp(self, index: int) -> tuple[int, int]:
        """An image's size in bytes and time of change in ns; YolomishError where it is not there."""
        try:
            status = self.paths[index].stat()
        except OSError as error:
            raise YolomishError(f"{self.paths[index]} cannot be read: {error.strerror}") from None
        return status.st_size, status.st_mtime_ns

    @property
    def digest(self) -> str:
        """SHA-256 of what a run's steps follow from, but the pixels."""
        raise NotImplementedError

    @property
    def left_out(self) -> str:
        """One line that counts what was there and is not used; empty where nothing is left out."""
        return ""

    def truth(self, index: int) -> Any:
        """What results on an image are held against, in plain values."""
        raise NotImplementedError

    def keep_in_memory(self) -> int:
        """Decode every image once and hold it, shared with workers forked later; returns the bytes. YolomishError if too much.

        Augmentations never write into a sample's image, so the samples stay the same.
        """
        expected = self._decoded_bytes()
        free = _free_memory()
        if free is not None and expected > 0.8 * free:
            raise YolomishError(
                f"--cache ram needs about {expected / 2**30:.1f} GiB for {len(self)} images of {self.source}, "
                f"{free / 2**30:.1f} GiB are free: leave it off"
            )
        self._images = [self.read(index) for index in range(len(self))]
        return sum(image.nbytes for image in self._images)

    def _decoded_bytes(self) -> int:
        """About how large all images are when decoded, from every sixteenth part of them."""
        some = range(0, len(self), max(len(self) // 16, 1))
        return sum(self.read(index).nbytes for index in some) // len(some) * len(self)

    def keep_on_disk(self) -> int:
        """Decode every image once into one file in the cache folder and read from there; returns its bytes.

        The file is named by the images' paths, sizes and times, so that a later run finds it and a changed set does not.
        YolomishError where the disk has too little room.
        """
        facts = [(str(path.resolve()), *self.stamp(index)) for index, path in enumerate(self.paths)]
        name = hashlib.sha1(json.dumps(facts).encode()).hexdigest()
        folder = cache_folder() / "images"
        file, index = folder / f"{name}.u8", folder / f"{name}.json"
        if not (file.is_file() and index.is_file()):
            self._write_pixels(folder, file, index)
        shapes = json.loads(index.read_text(encoding="utf-8"))
        pixels = np.memmap(file, np.uint8, "r")
        ends = np.cumsum([h * w * 3 for h, w in shapes]).tolist()
        parts = zip(shapes, [0, *ends[:-1]], ends, strict=True)
        self._images = [pixels[start:end].reshape(h, w, 3) for (h, w), start, end in parts]
        return pixels.nbytes

    def _write_pixels(self, folder: Path, file: Path, shapes_file: Path) -> None:
        expected = self._decoded_bytes()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if expected > 0.9 * free:
                raise YolomishError(
                    f"--cache disk needs about {expected / 2**30:.1f} GiB in {folder}, {free / 2**30:.1f} GiB are free: "
                    "leave it off, or name another folder in YOLOMISH_CACHE"
                )
            partial = file.with_suffix(f".{os.getpid()}.part")
            shapes = []
            with partial.open("wb") as out:
                for index in range(len(self)):
                    image = self.read(index)
                    out.write(image.tobytes())
                    shapes.append(image.shape[:2])
            shapes_file.write_text(json.dumps(shapes), encoding="utf-8")
            os.replace(partial, file)
        except OSError as error:
            raise YolomishError(f"{folder} cannot be written: {error.strerror}; name another in YOLOMISH_CACHE") from None

    def check_classes(self, count: int, whose: str | Path) -> None:
        """YolomishError, naming ``whose`` they are, unless ``count`` classes are as many as the data has."""
        if count != len(self.names):
            raise YolomishError(f"{whose} has {count} classes, the data {len(self.names)}: wrong --data?")


def _free_memory() -> int | None:
    """Free bytes of memory; None where the system does not say (macOS, Windows)."""
    names: dict[str, int] = getattr(os, "sysconf_names", {})
    if "SC_AVPHYS_PAGES" not in names:
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
