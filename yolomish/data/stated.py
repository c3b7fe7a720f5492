"""How many pixels a picture's header says that it has, also where Pillow refuses the file and OpenCV would decode it."""

from __future__ import annotations

import io
import re
import struct
from contextlib import suppress

from PIL import Image
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, ImageFileDirectory_v2

PNG = b"\x89PNG\r\n\x1a\n"
JPEG_SIZE = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]..(.)(....)", re.DOTALL)  # ITU T.81, B.2.2


def stated_pixels(raw: bytes) -> int:
    """Width times height by the header of an image file's bytes; 0 where nothing says it, or a PNG is cut off."""
    if raw[:8] == PNG and not _chunks_fit(raw):  # OpenCV 5 makes room for what a chunk says, up to 4 GB
        return 0
    try:
        width, height = Image.open(io.BytesIO(raw)).size
        return width * height
    except Image.DecompressionBombError as error:
        return max((int(word) for word in re.findall(r"\d+", str(error).split("exceeds")[0])), default=1 << 62)
    except Exception:  # decoders of others raise anything
        pass
    with suppress(Exception):  # as above, of a TIFF's directory
        return _of_damaged(raw)
    return 0


def _chunks_fit(raw: bytes) -> bool:
    """Whether no chunk of a PNG, up to its last, says that it is longer than what is left of the file."""
    at = len(PNG)
    while at + 8 <= len(raw):
        length, kind = struct.unpack(">I4s", raw[at : at + 8])
        at += 12 + length
        if kind == b"IEND":
            break
        if at > len(raw):
            return False
    return True


def _of_damaged(raw: bytes) -> int:
    """The same for a file that Pillow refuses: one with a wrong checksum, or more samples a pixel than it knows."""
    if raw[:8] == PNG:
        width, height = struct.unpack(">II", raw[16:24])
    elif raw[:2] == b"BM":
        width, height = struct.unpack("<HH" if raw[14] == 12 else "<ii", raw[18 : 22 if raw[14] == 12 else 26])
    elif raw[:4] in (b"II*\0", b"MM\0*"):
        stream, directory = io.BytesIO(raw), ImageFileDirectory_v2(raw[:8])
        stream.seek(directory.next)
        directory.load(stream)
        width, height = directory[IMAGEWIDTH], directory[IMAGELENGTH]
    elif raw[:2] == b"\xff\xd8":  # a marker among compressed bytes may only make it larger
        return max(a * b for a, b in (struct.unpack(">HH", size) for _, size in JPEG_SIZE.findall(raw)))
    else:
        return 0
    return abs(int(width) * int(height))
