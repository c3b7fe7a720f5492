"""A baseline JPEG as Darknet sees it: decoded with the whole-number arithmetic of stb_image.h, which Darknet carries.

libjpeg, and so OpenCV and Pillow, rounds otherwise in the inverse DCT, in widening the chroma and in the colours: the same
file differs by up to two levels of 255, in one pixel of a hundred.
"""

from pathlib import Path

import numpy as np

ZIGZAG = np.array(sorted(range(64), key=lambda i: (i // 8 + i % 8, (i // 8 if (i // 8 + i % 8) % 2 else i % 8))))


Table = list[tuple[int, int, int]]


def _huffman_table(counts: bytes, symbols: bytes) -> Table:
    """Of every 16 bits that may come: length of the code, zeros before the value, size of the value."""
    table, code, index = [(0, 0, 0)] * 65536, 0, 0
    for length in range(1, 17):
        for _ in range(counts[length - 1]):
            start, size = code << (16 - length), 1 << (16 - length)
            table[start : start + size] = [(length, symbols[index] >> 4, symbols[index] & 15)] * size
            code, index = code + 1, index + 1
        code <<= 1
    return table


class _Bits:
    """Blocks of a scan, one after the other."""

    def __init__(self, data: bytes) -> None:
        raw = np.frombuffer(data.replace(b"\xff\x00", b"\xff") + bytes(8), np.uint8).astype(np.int64)
        self.words = sum(raw[i : len(raw) - 4 + i] << (32 - 8 * i) for i in range(5)).tolist()  # 40 bits from every byte on
        self.at = 0

    def block(self, dc: Table, ac: Table, places: list[int], values: list[int]) -> int:
        """The DC's difference; where the other coefficients stand, in their order of coming, and which they are."""
        words, at, i, first, table = self.words, self.at, 0, 0, dc
        while i < 64:
            word = words[at >> 3] >> (8 - (at & 7)) & 0xFFFFFFFF
            length, zeros, size = table[word >> 16]
            at += length + size
            if size:
                value = (word >> (32 - length - size)) & ((1 << size) - 1)
                if not value >> (size - 1):
                    value += 1 - (1 << size)
                i += zeros
                if i:
                    places.append(i)
                    values.append(value)
                else:
                    first = value
            elif i:
                if zeros != 15:
                    break
                i += 15
            i += 1
            table = ac
        self.at = at
        return first


def _fixed(x: float) -> int:
    return int(x * 4096 + 0.5)  # stbi__f2f, towards 0


def _idct(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """STBI__IDCT_1D over the first axis (8, ...): the even and the odd half of the sum."""
    p1 = (s[2] + s[6]) * _fixed(0.5411961)
    t2, t3 = p1 + s[6] * _fixed(-1.847759065), p1 + s[2] * _fixed(0.765366865)
    t0, t1 = (s[0] + s[4]) * 4096, (s[0] - s[4]) * 4096
    even = np.stack((t0 + t3, t1 + t2, t1 - t2, t0 - t3))
    p5 = (s[7] + s[3] + s[5] + s[1]) * _fixed(1.175875602)
    p1, p2 = p5 + (s[7] + s[1]) * _fixed(-0.899976223), p5 + (s[5] + s[3]) * _fixed(-2.562915447)
    p3, p4 = (s[7] + s[3]) * _fixed(-1.961570560), (s[5] + s[1]) * _fixed(-0.390180644)
    t0, t1 = s[7] * _fixed(0.298631336) + p1 + p3, s[5] * _fixed(2.053119869) + p2 + p4
    t2, t3 = s[3] * _fixed(3.072711026) + p2 + p3, s[1] * _fixed(1.501321110) + p1 + p4
    return even, np.stack((t3, t2, t1, t0))


def _pixels(blocks: np.ndarray) -> np.ndarray:
    """(N, 8, 8) coefficients as (N, 8, 8) pixels 0..255 (stbi__idct_block)."""
    even, odd = _idct(np.moveaxis(blocks, 1, 0))
    columns = np.concatenate((even + 512 + odd, (even + 512 - odd)[::-1])) >> 10  # (8, N, 8)
    even, odd = _idct(np.moveaxis(columns, 2, 0))
    even = even + 65536 + (128 << 17)
    rows = np.concatenate((even + odd, (even - odd)[::-1])) >> 17  # (8 columns, 8 rows, N)
    return rows.transpose(2, 1, 0).clip(0, 255)


def _widened(plane: np.ndarray, across: int, down: int) -> np.ndarray:
    """A chroma plane at full size (stbi__resample_row_hv_2, _h_2 and _v_2)."""
    if (across, down) == (1, 1):
        return plane
    rows = plane
    if down == 2:
        far = plane[np.stack((np.r_[0, : len(plane) - 1], np.r_[1 : len(plane), len(plane) - 1]), 1)]  # (H, 2, W)
        rows = (3 * plane[:, None] + far).reshape(-1, plane.shape[1])
        if across == 1:
            return (rows + 2) >> 2
    bits = 2 if down == 1 else 4
    out = np.empty((len(rows), 2 * rows.shape[1]), np.int64)
    out[:, 2::2] = (3 * rows[:, 1:] + rows[:, :-1] + (1 << bits - 1)) >> bits
    out[:, 1:-1:2] = (3 * rows[:, :-1] + rows[:, 1:] + (1 << bits - 1)) >> bits
    out[:, 0], out[:, -1] = (rows[:, [0, -1]].T + (2 if down == 2 else 0)) >> (bits - 2)
    if down == 1:
        out[:, -2] = (3 * rows[:, -2] + rows[:, -1] + 2) >> 2  # its own slip
    return out


def _colours(y: np.ndarray, cb: np.ndarray, cr: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB (stbi__YCbCr_to_RGB_row)."""
    y, cb, cr = (y << 20) + (1 << 19), cb - 128, cr - 128
    red, green_r, green_b, blue = (_fixed(f) << 8 for f in (1.402, 0.71414, 0.34414, 1.772))
    rgb = (y + cr * red, y - cr * green_r + ((-cb * green_b) & ~0xFFFF), y + cb * blue)
    return (np.stack(rgb, -1) >> 20).clip(0, 255).astype(np.uint8)


def read_jpeg(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a baseline JPEG in YCbCr or grey; ValueError for another kind."""
    data, at = path.read_bytes(), 2
    quantised: dict[int, np.ndarray] = {}
    tables: dict[int, Table] = {}
    restart = 0
    while True:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        part, at = data[at + 4 : at + 2 + length], at + 2 + length
        if marker == 0xDB:
            for start in range(0, len(part), 65):
                quantised[part[start] & 15] = np.frombuffer(part[start + 1 : start + 65], np.uint8)
        elif marker == 0xC4:
            while part:
                count = sum(part[1:17])
                tables[part[0]] = _huffman_table(part[1:17], part[17 : 17 + count])
                part = part[17 + count :]
        elif marker == 0xDD:
            restart = int.from_bytes(part, "big")
        elif marker in (0xC0, 0xC1):
            height, width = (int.from_bytes(part[i : i + 2], "big") for i in (1, 3))
            parts = [(part[i], part[i + 1] >> 4, part[i + 1] & 15, part[i + 2]) for i in range(6, len(part), 3)]
        elif marker == 0xC2:
            raise ValueError(f"{path} is progressive")
        elif marker == 0xDA:
            chosen = [(part[i + 1] >> 4, 16 | part[i + 1] & 15) for i in range(1, 1 + 2 * part[0], 2)]
            break
    scan = data[at : data.rindex(b"\xff\xd9")]
    pieces = [scan] if not restart else [p[2:] if i else p for i, p in enumerate(_split_at_restarts(scan))]
    most_h, most_v = max(p[1] for p in parts), max(p[2] for p in parts)
    wide, high = -(-width // (8 * most_h)), -(-height // (8 * most_v))
    blocks = [np.zeros((high * v, wide * h, 64), np.int64) for _, h, v, _ in parts]
    for number, piece in enumerate(pieces):
        bits, before = _Bits(piece), [0] * len(parts)
        for unit in range(number * restart, min(high * wide, (number + 1) * restart) if restart else high * wide):
            for k, ((_, h, v, _), (dc, ac)) in enumerate(zip(parts, chosen, strict=True)):
                for y in range(v):
                    for x in range(h):
                        block = blocks[k][unit // wide * v + y, unit % wide * h + x]
                        places, values = [], []
                        before[k] += bits.block(tables[dc], tables[ac], places, values)
                        block[0] = before[k]
                        block[places] = values
    planes = []
    for (_, h, v, q), coefficients in zip(parts, blocks, strict=True):
        rows, columns = coefficients.shape[:2]
        pixels = (
            _pixels((coefficients * quantised[q])[..., np.argsort(ZIGZAG)].reshape(-1, 8, 8))
            .reshape(rows, columns, 8, 8)
            .transpose(0, 2, 1, 3)
        )
        across, down = most_h // h, most_v // v
        plane = pixels.reshape(rows * 8, columns * 8)[: -(-height // down), : -(-width // across)]
        planes.append(_widened(plane, across, down)[:height, :width])
    return _colours(*planes) if len(planes) == 3 else planes[0].astype(np.uint8)[..., None].repeat(3, 2)


def _split_at_restarts(scan: bytes) -> list[bytes]:
    cuts = [i for i in range(len(scan) - 1) if scan[i] == 0xFF and 0xD0 <= scan[i + 1] <= 0xD7]
    return [scan[a:b] for a, b in zip([0, *cuts], [*cuts, len(scan)], strict=True)]
