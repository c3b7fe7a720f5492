"""One way from a file to pixels: RGB, upright by its EXIF orientation. BGR ends here."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from yolomish.data.stated import stated_pixels
from yolomish.errors import YolomishError, first_line
from yolomish.files import reason, replace_file, shown_path

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff"}
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")  # brands of ISO 23008-12
HEIC_ADVICE = "make HEIC into JPEG first (`magick mogrify -format jpg *.heic`)"
EXIF_ORIENTATION = 0x0112
MAX_PIXELS = "YOLOMISH_MAX_PIXELS"
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # there is a limit of our own, see ``max_pixels``
READERS = 4  # threads that wait for the disk


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a picture's header says: its upright (height, width), None with the ``fault`` where it cannot be read, and the
    EXIF orientation, 1 where the pixels are stored upright."""

    size_hw: tuple[int, int] | None = None
    orientation: int = 1
    fault: str = ""


def read_headers(paths: Sequence[str | Path]) -> list[Header]:
    """The header of each image; pixels are not decoded, but of the rare file that Pillow cannot read and OpenCV can."""
    with warnings.catch_warnings(), ThreadPoolExecutor(READERS) as pool:
        warnings.simplefilter("ignore")  # Pillow's, of large pictures and odd EXIF
        return list(pool.map(_read_header, paths))


def _read_header(path: str | Path) -> Header:
    try:
        with open(path, "rb") as file, Image.open(file) as picture:
            width, height = picture.size
            if isinstance(picture, TiffImagePlugin.TiffImageFile):  # its size is upright already in some versions of Pillow
                width, height = picture.tag_v2[TiffImagePlugin.IMAGEWIDTH], picture.tag_v2[TiffImagePlugin.IMAGELENGTH]
            exif = _png_exif(file) if picture.format == "PNG" else picture.getexif()
            orientation = int(exif.get(EXIF_ORIENTATION, 1))
    except Exception:  # decoders of others raise anything; what they cannot read, or find too large, is decoded
        try:
            height, width = read_image(path).shape[:2]
        except YolomishError as error:
            return Header(fault=str(error))
        return Header(size_hw=(height, width))
    return Header(size_hw=(width, height) if orientation in (5, 6, 7, 8) else (height, width), orientation=orientation)


def _png_exif(file: BinaryIO) -> Image.Exif:
    """A PNG's EXIF, which may stand behind the pixels: Pillow would decode them to get there."""
    exif = Image.Exif()
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"eXIf":
            exif.load(file.read(length))
            break
        file.seek(length + 4, io.SEEK_CUR)
    return exif


def read_image(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB with the EXIF orientation applied; YolomishError naming the file if it cannot be read."""
    try:
        raw = np.frombuffer(Path(path).read_bytes(), np.uint8)  # np.fromfile asks for a position, which a pipe has not
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        raise YolomishError(f"{shown_path(path)} cannot be read: {reason(error)}") from None
    return decode_image(raw, str(path))


def decode_image(raw: np.ndarray, name: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB from an image file's bytes (N,) uint8, upright; YolomishError with ``name`` where it is none.

    Grey becomes three equal channels, 16 bits become 8 by dropping the lower ones, alpha is dropped, of an animation
    the first picture is taken. A file that is cut off is an error, not half a picture, and so is one whose header says more
    than ``max_pixels()``, or nothing. Decoding takes at most 16 bytes per pixel beside the file, most of it for 16 bits.
    """
    if not len(raw):
        raise YolomishError(f"{name} is empty")
    pixels = stated_pixels(raw.tobytes())
    if pixels > max_pixels():
        raise YolomishError(
            f"{name} has {pixels / 1e6:.0f} megapixels, more than the {max_pixels() / 1e6:.0f} that are decoded: "
            "make it smaller, or raise --max-pixels where it is to be trusted"
        )
    if raw[4:8].tobytes() == b"ftyp" and raw[8:12].tobytes() in (b"avif", b"avis"):
        return _decode_by_pillow(raw, name)  # OpenCV (4.14, 5.0) does not turn an AVIF, and returns BGR where it has alpha
    try:
        image = cv2.imdecode(raw, cv2.IMREAD_COLOR_RGB) if pixels else None  # of no pixels OpenCV 5 makes 4 GB
    except (cv2.error, MemoryError) as error:
        if "CV_IO_MAX_IMAGE" in str(error):
            raise YolomishError(f"{name} has more pixels than OpenCV reads (2^30): make it smaller") from None
        image = None
    if image is None:
        if raw[4:8].tobytes() == b"ftyp" and any(brand in raw[8:64].tobytes() for brand in HEIC):
            raise YolomishError(f"{name} is a HEIC picture, which OpenCV does not read; {HEIC_ADVICE}")
        raise YolomishError(f"{name} is not an image that OpenCV can read, or it is cut off")
    if raw[:4].tobytes() in (b"II*\0", b"MM\0*") and _has_alpha(raw):
        return _decode_by_pillow(raw, name)  # OpenCV multiplies a TIFF's colours with its alpha
    return image


def _has_alpha(raw: np.ndarray) -> bool:
    try:
        return Image.open(io.BytesIO(raw.tobytes())).mode in ("RGBA", "LA")
    except Exception:  # decoders of others raise anything; not for Pillow, so as OpenCV read it
        return False


def max_pixels() -> int:
    """The most pixels of a picture that is decoded: $YOLOMISH_MAX_PIXELS, else Pillow's own limit of 179 million."""
    given = os.environ.get(MAX_PIXELS, "")
    return int(given) if given.isdecimal() else 178_956_970


def _decode_by_pillow(raw: np.ndarray, name: str) -> np.ndarray:
    try:
        return as_rgb(Image.open(io.BytesIO(raw.tobytes())))
    except UnidentifiedImageError:
        raise YolomishError(f"{name} is an image that Pillow cannot read: is it whole? (AVIF needs Pillow 11.3)") from None
    except Exception as error:  # decoders of others raise anything
        raise YolomishError(f"{name} cannot be read: {first_line(error)}") from None


def as_rgb(image: object) -> np.ndarray:
    """A PIL image (EXIF orientation applied) or an array (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA of uint8 as
    (H, W, 3) uint8 RGB; alpha is dropped. YolomishError on anything else."""
    if isinstance(image, Image.Image):
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):  # Pillow would clip, not scale
            return as_rgb((np.array(upright) >> 8).astype(np.uint8))
        return np.array(upright.convert("RGB"))
    if not isinstance(image, np.ndarray):
        raise YolomishError(f"an image must be a path, a PIL image or an array, not {type(image).__name__}")
    if image.dtype != np.uint8:
        raise YolomishError(f"an image array must be uint8 with values 0..255, not {image.dtype}")
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or not image.size:
        raise YolomishError(f"an image array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {image.shape}")
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image[..., :3])


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB in the format of the file's suffix; YolomishError naming the file on failure."""
    try:
        ok, raw = cv2.imencode(Path(path).suffix or ".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error:
        ok = False
    if not ok:
        h, w = image.shape[:2]
        raise YolomishError(f"{path} cannot be written: OpenCV has no such format, or it does not hold {w}x{h} px")
    replace_file(path, lambda temporary: temporary.write_bytes(raw.tobytes()), sync=False)
