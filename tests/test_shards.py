"""Tar shards as WebDataset's own writer leaves them, read as the same pictures in folders."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.classes import NAMES, TINY, coloured_squares

from yolomish.config import DataConfig, load_data_config
from yolomish.data.classification import open_classes
from yolomish.data.classification.loader import train_loader
from yolomish.errors import YolomishError
from yolomish.training.loop import fit
from yolomish.weights.checkpoint import read_checkpoint

pytestmark = pytest.mark.usefixtures("undrawn")

webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOMISH_CACHE", str(tmp_path / "cache"))


def silent(_: str) -> None:
    pass


def written(folders: DataConfig, root: Path, *, shard: int = 5) -> Path:
    """The pictures of both splits in their order, so many a shard, by the library's writer."""
    root.mkdir()
    for split in ("train", "val"):
        data = open_classes(folders, split)
        with webdataset.ShardWriter(str(root / f"{split}-%04d.tar"), maxcount=shard, verbose=0) as writer:
            for i, (path, label) in enumerate(zip(data.paths, data.labels, strict=True)):
                writer.write({"__key__": f"{path.parent.name}/{i:05d}", "png": path.read_bytes(), "cls": label, "json": {"n": i}})
    return root


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def test_shards_train_to_the_very_weights_of_folders(tmp_path: Path) -> None:
    folders = coloured_squares(tmp_path / "folders")
    shards = written(folders, tmp_path / "shards")
    config = load_data_config(str(shards / "train-{0000..0002}.tar"))
    settings = replace(TINY, epochs=1, mixup=0.5)
    runs = {
        name: read_checkpoint(fit(replace(settings, data=data, workers=workers), tmp_path / name, log=silent).last)
        for name, data, workers in (("folders", folders, 0), ("tars", config, 2))
    }
    first, second = (run["model"] for run in runs.values())
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert (tmp_path / "folders" / "results.csv").read_bytes() == (tmp_path / "tars" / "results.csv").read_bytes()


def test_a_run_cut_off_on_shards_has_the_bits_of_a_whole_one(tmp_path: Path) -> None:
    shards = load_data_config(str(written(coloured_squares(tmp_path / "folders"), tmp_path / "shards")))
    config = replace(TINY, data=shards, cutmix=0.5)
    whole = read_checkpoint(fit(config, tmp_path / "whole", log=silent).last)["model"]

    def interrupt(text: str) -> None:
        if text.startswith("epoch 1/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(config, tmp_path / "parts", log=interrupt)
    resumed = replace(config, workers=1, cache="disk")
    parts = read_checkpoint(fit(resumed, tmp_path / "parts", resume=True, log=silent).last)["model"]
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_samples_are_the_librarys_own_in_its_order(tmp_path: Path) -> None:
    shards = written(coloured_squares(tmp_path / "folders"), tmp_path / "shards")
    stream = webdataset.WebDataset(str(shards / "train-{0000..0002}.tar"), shardshuffle=False)
    theirs = [*stream.decode("rgb8").to_tuple("png", "cls")]
    parts = ("train-{0000..0001}.tar", "train-0002.tar")
    for config in (
        load_data_config(str(shards)),
        load_data_config(str(shards / "train-{0000..0002}.tar")),
        DataConfig(format="webdataset", root=str(shards), train=parts, val="val-{0000..0001}.tar"),
    ):
        ours = open_classes(config, "train")
        assert ours.labels == tuple(label for _, label in theirs) and ours.names == ("0", "1", "2")
        for index, (image, _) in enumerate(theirs):
            np.testing.assert_array_equal(ours.image(index), image)
        assert len(open_classes(config, "val")) == 6
    named = open_classes(DataConfig(format="webdataset", root=str(shards), names=NAMES), "train")
    assert named.names == NAMES and len(set(named.paths)) == 12
    text = shards.parent / "data.yaml"
    text.write_text(
        "format: webdataset\nroot: shards\ntrain: train-{0000..0002}.tar\nval: val-{0000..0001}.tar\nnames: [b, g, r]"
    )
    assert open_classes(load_data_config(str(text)), "val").names == ("b", "g", "r")


def test_two_processes_share_the_samples(tmp_path: Path) -> None:
    data = open_classes(load_data_config(str(written(coloured_squares(tmp_path / "folders"), tmp_path / "shards"))), "train")
    whole = [batch.image_ids for batch in train_loader(data, TINY, 1, epoch=0)]
    parts = [[b.image_ids for b in train_loader(data, TINY, 1, epoch=0, rank=rank, world_size=2)] for rank in (0, 1)]
    for together, one, other in zip(whole, *parts, strict=True):
        assert sorted(together) == sorted(one + other)


def test_the_index_is_kept_and_made_anew_for_a_changed_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = written(coloured_squares(tmp_path / "folders"), tmp_path / "shards")
    config = load_data_config(str(shards))
    before = open_classes(config, "train")
    with monkeypatch.context() as patch:
        patch.setattr("tarfile.open", lambda *_: pytest.fail("scanned again"))
        assert open_classes(config, "train").digest == before.digest
    with tarfile.open(shards / "train-0002.tar", "a") as tar:
        add(tar, "new.cls", b"2")
        add(tar, "new.png", before.paths and (tmp_path / "folders" / "train" / "red" / "0.png").read_bytes())
    assert len(open_classes(config, "train")) == len(before) + 1 and open_classes(config, "train").digest != before.digest


PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("a.png", PNG)], "the sample 'a' holds no class"),
        ([("a.cls", b"1")], "the sample 'a' holds no picture"),
        ([("a.png", PNG), ("a.cls", b"cat")], "the sample 'a' has the class 'cat', not a whole number"),
        ([("a.png", PNG), ("a.PNG", PNG), ("a.cls", b"1")], "duplicate file name"),
        ([("a.png", PNG), ("a.cls", b"9" * 40)], "has the class 9{40}: there may be 100,000"),
        ([("a.png", PNG), ("a.cls", b"7")], "a.png is of class 7, names end at 2"),
    ],
)
def test_a_broken_sample_is_named_by_shard_and_key(members: list, words: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        for name, content in members:
            add(tar, name, content)
    with pytest.raises(YolomishError, match=words) as caught:
        open_classes(DataConfig(format="webdataset", root=str(tmp_path), names=NAMES), "train")
    assert "train-0.tar" in str(caught.value) and "\n" not in str(caught.value)


def test_a_picture_that_cannot_be_decoded_is_named_by_shard_and_member(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        add(tar, "deep/a.jpg", PNG)
        add(tar, "deep/a.cls", b"0")
    data = open_classes(load_data_config(str(tmp_path)), "train")
    with pytest.raises(YolomishError, match=r"train-0\.tar: deep/a\.jpg is not an image"):
        data.image(0)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.7])
def test_a_shard_that_is_cut_off_or_overwritten_is_named(keep: float, tmp_path: Path) -> None:
    shards = written(coloured_squares(tmp_path / "folders"), tmp_path / "shards")
    shard = shards / "train-0001.tar"
    whole = shard.read_bytes()
    cut = int(len(whole) * keep) // 512 * 512
    for content in (whole[:cut], whole[: cut + 100], whole[:cut] + b"x" * 512 * 40):
        shard.write_bytes(content)
        with pytest.raises(YolomishError, match=r"train-0001\.tar(: the sample .* holds no| is cut off or damaged behind)"):
            open_classes(load_data_config(str(shards)), "train")


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = written(coloured_squares(tmp_path / "folders"), tmp_path / "shards")
    with pytest.raises(YolomishError, match=r"train-0003\.tar cannot be read: No such file"):
        open_classes(load_data_config(str(shards / "train-{0000..0003}.tar")), "train")
    for pattern, words in (
        ("t{0..9999999999}.tar", "it names 10000000000 shards, over 1,000,000"),
        ("{a,b}" * 40 + ".tar", "it names 1099511627776 shards"),
        ("{" * 500 + ".tar", "is no pattern of shards: Unbalanced braces"),
        ("{" * 5000 + "}" * 5000 + ".tar", "is no pattern of shards: maximum recursion"),
    ):
        with pytest.raises(YolomishError, match=words):
            open_classes(replace(load_data_config(str(shards)), format="webdataset", train=pattern), "train")
    for path in shards.glob("val*"):
        path.unlink()
    with pytest.raises(YolomishError, match="whose name speaks of val"):
        open_classes(load_data_config(str(shards)), "val")
    (shards / "train-0000.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(YolomishError, match="gunzip"):
        open_classes(load_data_config(str(shards)), "train")
    monkeypatch.setitem(__import__("sys").modules, "webdataset", None)
    with pytest.raises(YolomishError, match=r"pip install 'yolomish\[webdataset\]'"):
        open_classes(load_data_config(str(shards / "train-{0000..0002}.tar")), "train")
