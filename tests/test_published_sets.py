"""MNIST's IDX files and CIFAR's pickles in their true format, a few pictures each."""

import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from yolomish.config import DataConfig, load_data_config
from yolomish.data.classification import open_classes
from yolomish.errors import YolomishError


def idx(path: Path, array: np.ndarray) -> None:
    """http://yann.lecun.com/exdb/mnist: two zeros, 8 for unsigned bytes, the number of axes, their lengths, the values."""
    path.write_bytes(bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())


def test_mnist_is_read_from_its_own_files(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    sets = {}
    for part, count in (("train", 6), ("t10k", 4)):
        sets[part] = rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count, np.uint8)
        idx(raw / f"{part}-images-idx3-ubyte", sets[part][0])
        idx(raw / f"{part}-labels-idx1-ubyte", sets[part][1])
    for split, part in (("train", "train"), ("val", "t10k")):
        data = open_classes(load_data_config(str(tmp_path)), split)  # type: ignore[arg-type]
        images, labels = sets[part]
        assert data.labels == tuple(labels.tolist()) and len(data.names) == 10 and data.names[0] == "0 - zero"
        for index, image in enumerate(images):
            np.testing.assert_array_equal(data.image(index), np.repeat(image[..., None], 3, 2))
    train, val = (open_classes(DataConfig(format="mnist", root=str(tmp_path)), split) for split in ("train", "val"))
    assert not set(train.paths) & set(val.paths) and len({train.stamp(i) for i in range(6)}) == 6
    with pytest.raises(YolomishError, match="has the splits train and val"):
        open_classes(DataConfig(format="mnist", root=str(tmp_path)), "test")


def test_cifar10_is_read_from_its_own_files_if_they_are_the_published_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = [f"class {i}" for i in range(10)]
    pixels = {name: rng.integers(0, 256, (2, 3072), np.uint8) for name in ("data_batch_1", "data_batch_2", "test_batch")}
    contents = {name: {"data": rows, "labels": [3, 7]} for name, rows in pixels.items()} | {
        "batches.meta": {"label_names": names}
    }
    sums = {}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    config = load_data_config(str(tmp_path))
    with pytest.raises(YolomishError, match=r"does not hold cifar10 .*torchvision\.datasets\.CIFAR10\(.*download=True\)"):
        open_classes(config, "train")  # other sums than the published: pickles of others are not opened
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[n, sums[n]] for n in ("data_batch_1", "data_batch_2")])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setitem(datasets.CIFAR10.meta, "md5", sums["batches.meta"])
    train, val = open_classes(config, "train"), open_classes(config, "val")
    assert train.labels == (3, 7, 3, 7) and train.names == tuple(names) and len(val) == 2
    np.testing.assert_array_equal(train.image(3), pixels["data_batch_2"][1].reshape(3, 32, 32).transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("part", "content", "said"),
    [
        ("images", b"\0\0\x07\x03" + bytes(60), "AssertionError"),  # no type of the format's
        ("images", b"\0\0\x0d\x03" + struct.pack(">3I", 1, 1, 1) + bytes(4), "dtype"),  # floats
        ("labels", b"\0\0\x08\x01" + struct.pack(">I", 1) + bytes(1), "2 pictures, 1 labels"),
        ("labels", b"\0\0\x08\x01" + struct.pack(">I", 2) + bytes((3, 200)), "a label is 200 of 10 classes"),
    ],
)
def test_damaged_idx_files_are_one_line(tmp_path: Path, part: str, content: bytes, said: str) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train", "t10k"):
        idx(raw / f"{name}-images-idx3-ubyte", np.zeros((2, 28, 28), np.uint8))
        idx(raw / f"{name}-labels-idx1-ubyte", np.zeros(2, np.uint8))
    (raw / f"train-{part}-idx{3 if part == 'images' else 1}-ubyte").write_bytes(content)
    with pytest.raises(YolomishError, match=rf"MNIST/raw does not hold mnist \(.*{said}"):
        open_classes(DataConfig(format="mnist", root=str(tmp_path)), "train")


def test_a_pickle_where_torchvision_once_kept_mnist_is_refused_unrun(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    folder = tmp_path / "MNIST" / "processed"
    folder.mkdir(parents=True)
    (tmp_path / "MNIST" / "raw").mkdir()
    for name in ("training.pt", "test.pt"):
        (folder / name).write_bytes(pickle.dumps(Runs(), protocol=2))
    with pytest.raises(YolomishError, match=r"does not hold mnist \(Weights only load failed"):
        open_classes(DataConfig(format="mnist", root=str(tmp_path)), "train")
    assert not (tmp_path / "ran").exists()


def test_a_missing_set_says_where_it_belongs_and_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(YolomishError, match=r"MNIST/raw does not hold mnist .*torchvision\.datasets\.MNIST\(") as caught:
        open_classes(DataConfig(format="mnist", root=str(tmp_path)), "train")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
