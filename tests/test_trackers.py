"""What experiment trackers are told, read back by their own means, and that none of them ends a training."""

import json
import struct
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import noise_data

from yolomish.config import ModelConfig, TrainConfig
from yolomish.errors import YolomishError
from yolomish.training import trackers
from yolomish.training.loop import FitResult, fit


@pytest.fixture
def tiny(tmp_path: Path) -> TrainConfig:
    data = noise_data(tmp_path / "data", train=2, val=1)
    model = ModelConfig(name="yolov4-n", width=0.125, depth=0.25)
    return TrainConfig(model=model, data=data, image_size=64, burn_in=2, epochs=2, batch=2, workers=0, device="cpu")


def stopped_and_resumed(config: TrainConfig, folder: Path, tracker: str, said: list[str]) -> FitResult:
    def interrupt(line: str) -> None:
        said.append(line)
        if line.startswith("epoch 1/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(config, folder, track=[tracker], log=interrupt)
    return fit(config, folder, resume=True, track=[tracker], log=said.append)


def test_mlflow_finds_one_run_with_settings_epochs_and_results(
    tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = pytest.importorskip("mlflow.tracking", reason="MLflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    said: list[str] = []
    result = stopped_and_resumed(tiny, tmp_path / "runs" / "a", "mlflow", said)
    assert not [line for line in said if line.startswith("no ")]
    client = tracking.MlflowClient(tracking_uri=(tmp_path / "runs" / "mlruns").as_uri())
    (experiment,) = [found for found in client.search_experiments() if found.name == "yolomish"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "a" and run.info.status == "FINISHED"
    assert run.data.params["peak_lr"] == str(tiny.peak_lr) and run.data.params["model.width"] == "0.125"
    for row in result.history:
        for key, value in row.items():
            if key != "epoch" and value is not None:
                steps = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, key)}
                assert steps[row["epoch"]] == value
    assert run.data.metrics["final/AP50"] == result.metrics.values["AP50"]


def records(file: Path) -> list[Any]:
    """The records of a .wandb file: 7 bytes, then LevelDB's log format in blocks of 32 KiB (google/leveldb log_format.md)."""
    internal = pytest.importorskip("wandb.proto.wandb_internal_pb2", reason="wandb keeps its records elsewhere")
    raw, at, found, whole = file.read_bytes(), 7, [], b""
    while at + 7 <= len(raw):
        if 32768 - at % 32768 < 7:  # too little room for a header
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", raw, at)
        whole += raw[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, last
            record = internal.Record()
            record.ParseFromString(whole)
            found.append(record)
            whole = b""
    return found


def test_wandb_writes_settings_epochs_and_results_offline(
    tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="W&B is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    said: list[str] = []
    result = fit(tiny, tmp_path / "a", track=["wandb"], log=said.append)
    assert not [line for line in said if line.startswith("no ")]
    (file,) = (tmp_path / "a").glob("wandb/offline-run-*/*.wandb")
    for _ in range(300):  # its own process writes, a little after finish()
        found = records(file)
        if found and found[-1].HasField("exit"):
            break
        time.sleep(0.1)
    settings = {i.key: json.loads(i.value_json) for r in found for i in (*r.run.config.update, *r.config.update) if i.key}
    assert settings["peak_lr"] == tiny.peak_lr
    rows = [
        {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in r.history.item}
        for r in found
        if r.HasField("history")
    ]
    told = {row["_step"]: row for row in rows}
    for row in result.history:
        expected = {key: value for key, value in row.items() if key != "epoch" and value is not None}
        assert {key: told[row["epoch"]][key] for key in expected} == pytest.approx(expected)
    summary = {i.key or ".".join(i.nested_key): json.loads(i.value_json) for r in found for i in r.summary.update}
    assert summary["final/AP50"] == result.metrics.values["AP50"]


@pytest.mark.parametrize("fails", ["__init__", "add", "finish", "close"])
def test_a_tracker_that_fails_is_said_once_and_ends_nothing(
    fails: str, tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def method(name: str) -> Any:
        def call(self: object, *values: object) -> None:
            told.append(name)
            if name == fails:
                raise ConnectionError("no route\nto the server")

        return call

    fake = type("Fake", (), {name: method(name) for name in ("__init__", "add", "finish", "close")})
    monkeypatch.setitem(trackers.TRACKERS, "mlflow", fake)
    said: list[str] = []
    with trackers.Trackers(["mlflow"], tmp_path, tiny, said.append) as live:
        live.add({"epoch": 1, "a": 1}, 1)
        live.finish({"AP": 0.5})
    assert told == ["__init__", "add", "finish", "close"][: len(told)] and told[-1] == fails
    assert len(said) == 1 and said[0].startswith("no mlflow logs from here on: no route") and "\n" not in said[0]


def test_what_is_not_installed_or_unknown_is_named(tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    said: list[str] = []
    with trackers.Trackers(["wandb"], tmp_path, tiny, said.append):
        pass
    assert len(said) == 1 and said[0].endswith("pip install 'yolomish[wandb]'")
    with pytest.raises(YolomishError, match=r"unknown --track 'mlfow'; did you mean 'mlflow'"):
        trackers.check_trackers(["tensorboard", "mlfow"])
