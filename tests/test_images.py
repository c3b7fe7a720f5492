"""Pixels from files of every kind, against Pillow: the right picture the right way up, or one clear line."""

import io
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, features

from yolomish import Detector
from yolomish.data.images import as_rgb, decode_image, read_headers, read_image, write_image
from yolomish.errors import YolomishError


def colours(size_hw: tuple[int, int] = (60, 90)) -> np.ndarray:
    """Smooth, unlike any of its turned or mirrored selves."""
    low = np.random.default_rng(3).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(low, size_hw[::-1], interpolation=cv2.INTER_CUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    if kind == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pillow(raw: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(raw))).convert("RGB")).astype(int)


def ours(raw: bytes) -> np.ndarray:
    return decode_image(np.frombuffer(raw, np.uint8), "it").astype(int)


def assert_same(raw: bytes, tolerance: float) -> None:
    theirs, mine = pillow(raw), ours(raw)
    assert mine.shape == theirs.shape
    assert np.abs(mine - theirs).mean() <= tolerance


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_every_format_is_upright(kind: str, orientation: int) -> None:
    image = Image.fromarray(colours())
    exif = image.getexif()
    exif[0x0112] = orientation
    expected = pillow(encoded(image, "png", exif=exif))
    raw = encoded(image, kind, exif=exif)  # Pillow moves an AVIF's orientation out of ``exif``
    assert_same(raw, 1.0)
    assert np.abs(as_rgb(Image.open(io.BytesIO(raw))).astype(int) - pillow(raw)).max() == 0
    assert ours(raw).shape == expected.shape and np.abs(ours(raw) - expected).mean() < 8  # not only as Pillow has it


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "avif", "bmp"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_headers_have_the_decoded_pictures_size(
    kind: str, orientation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.fromarray(colours())
    exif = image.getexif()
    exif[0x0112] = orientation
    raw = encoded(image, kind, **({} if kind == "bmp" else {"exif": exif}))
    if kind == "png":  # Pillow writes EXIF in front of the pixels; the standard allows it behind them
        start, end = raw.index(b"eXIf") - 4, raw.index(b"IDAT") - 4
        raw = raw[:start] + raw[end:-12] + raw[start:end] + raw[-12:]
    (tmp_path / "x").write_bytes(raw)
    shape = decode_image(np.frombuffer(raw, np.uint8), "x").shape[:2]
    monkeypatch.setattr("yolomish.data.images.decode_image", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    (header,) = read_headers([tmp_path / "x"])
    assert header.size_hw == shape and header.fault == ""
    assert header.orientation == (orientation if kind not in ("bmp", "avif") else header.orientation)


def test_headers_of_what_is_no_picture_say_what_decoding_says(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    for name in ("text.png", "empty.jpg", "gone.png"):
        with pytest.raises(YolomishError) as error:
            read_image(tmp_path / name)
        assert read_headers([tmp_path / name])[0].fault == str(error.value)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA"])
@pytest.mark.parametrize("kind", ["png", "webp", "tiff"])
def test_grey_palette_and_alpha_become_three_channels(mode: str, kind: str) -> None:
    image = Image.fromarray(colours()).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(colours()[..., 0]))
    raw = encoded(image, kind, **({"lossless": True, "exact": True} if kind == "webp" else {}))
    assert_same(raw, 1.0)


def test_a_transparent_palette_a_progressive_and_a_cmyk_jpeg() -> None:
    image = Image.fromarray(colours())
    assert_same(encoded(image.convert("P"), "png", transparency=3), 1.0)
    assert_same(encoded(image, "jpeg", progressive=True), 1.0)
    assert_same(encoded(image.convert("L"), "jpeg"), 1.0)
    assert_same(encoded(image.convert("CMYK"), "jpeg", quality=95), 2.0)


@pytest.mark.parametrize("kind", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_lose_the_lower_eight(kind: str, channels: int) -> None:
    eight = colours() if channels == 3 else colours()[..., 0]
    ok, raw = cv2.imencode(f".{kind}", eight.astype(np.uint16) * 256 + 77)
    assert ok
    mine = ours(raw.tobytes())
    expected = eight[..., ::-1] if channels == 3 else np.repeat(eight[..., None], 3, 2)
    assert np.abs(mine - expected.astype(int)).max() <= 1
    if channels == 1:
        assert np.abs(as_rgb(Image.open(io.BytesIO(raw.tobytes()))).astype(int) - mine).max() <= 1


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_an_animation_gives_its_first_picture(kind: str) -> None:
    first = Image.fromarray(colours())
    later = [first.rotate(90), first.rotate(180)]
    raw = encoded(first, kind, save_all=True, append_images=later)
    assert np.abs(ours(raw) - np.asarray(first).astype(int)).mean() < 12
    assert_same(raw, 2.0)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "avif", "bmp", "gif"])
@pytest.mark.parametrize("part", [0, 3, 30, 0.5, 0.9])
def test_a_file_that_is_cut_off_is_one_clear_line(kind: str, part: float, tmp_path: Path) -> None:
    raw = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)), kind)
    (tmp_path / f"x.{kind}").write_bytes(raw[: int(part * len(raw)) if part < 1 else int(part)])
    with warnings.catch_warnings(), pytest.raises(YolomishError, match=rf"x\.{kind} (is|cannot be read)") as error:
        warnings.simplefilter("error")
        read_image(tmp_path / f"x.{kind}")
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "locked.png").write_bytes(encoded(Image.fromarray(colours()), "png"))
    (tmp_path / "locked.png").chmod(0)
    for name, reason in (("gone.png", "No such file"), ("folder.jpg", "Is a directory"), ("text.png", "is not an image")):
        with pytest.raises(YolomishError, match=rf"{name} .*{reason}|{name} {reason}"):
            read_image(tmp_path / name)
    if os.geteuid() == 0:
        pytest.skip("root may read every file: the unreadable one is not tried")
    with pytest.raises(YolomishError, match="Permission denied"):
        read_image(tmp_path / "locked.png")


def test_names_with_spaces_and_other_alphabets_are_written_and_read(tmp_path: Path) -> None:
    for name in ("a b.png", "größe 图 🐕.png", "semi;colon'quote.png", "[x].png"):
        write_image(tmp_path / name, colours())
        assert np.array_equal(read_image(tmp_path / name), colours())
    with pytest.raises(YolomishError, match=r"x\.xyz cannot be written: OpenCV has no such format"):
        write_image(tmp_path / "x.xyz", colours())
    with pytest.raises(YolomishError, match="No such file or directory"):
        write_image(tmp_path / "gone" / "x.png", colours())


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 20_000), (20_000, 2), (1, 2), (3000, 1)])
def test_extreme_sizes_keep_their_frame(size_hw: tuple[int, int], tmp_path: Path) -> None:
    h, w = size_hw
    write_image(tmp_path / "x.png", np.full((h, w, 3), 99, np.uint8))
    assert read_image(tmp_path / "x.png").shape == (h, w, 3)
    found = Detector("demo", conf=0.001, device="cpu").detect(tmp_path / "x.png")
    assert (found.boxes >= 0).all() and (found.boxes <= torch.tensor([w, h, w, h])).all()


def test_boxes_are_in_the_upright_pictures_frame(tmp_path: Path) -> None:
    upright = Image.fromarray(colours((120, 300)))
    exif = upright.getexif()
    exif[0x0112] = 6  # stored turned; a viewer turns it back
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "x.png", exif=exif)
    detector = Detector("demo", conf=0.001, device="cpu")
    from_file, plain = detector.detect(tmp_path / "x.png"), detector.detect(np.asarray(upright))
    assert len(plain) and torch.equal(from_file.boxes, plain.boxes)
    assert plain.boxes[:, 2].max() > 200
