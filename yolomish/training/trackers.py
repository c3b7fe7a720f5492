"""Where a run's numbers go besides its own files: TensorBoard, MLflow, Weights & Biases, by their own libraries."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from yolomish.config import TrainConfig, to_dict
from yolomish.config.schema import flat
from yolomish.errors import unknown_name
from yolomish.files import read_text, reason, write_text

Log = Callable[[str], Any]
PROJECT = "yolomish"


class Tracker(Protocol):
    """A run in one tool. What it raises ends its record, never the training."""

    def __init__(self, out_dir: Path, config: TrainConfig) -> None: ...

    def add(self, values: Mapping[str, float], epoch: int) -> None:
        """Log an epoch's numbers: losses, rate, metrics, times."""

    def finish(self, values: Mapping[str, float]) -> None:
        """Log the final results."""

    def close(self, complete: bool) -> None:
        """Write what is left; ``complete`` is whether the training came to its end."""


class TensorBoard:
    """Event files in the run's folder."""

    def __init__(self, out_dir: Path, config: TrainConfig) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(out_dir))
        self.writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in flat(to_dict(config)).items()))

    def add(self, values: Mapping[str, float], epoch: int) -> None:
        for key, value in values.items():
            self.writer.add_scalar(key, value, epoch)

    def finish(self, values: Mapping[str, float]) -> None:
        self.add(values, 0)

    def close(self, complete: bool) -> None:
        self.writer.close()


class MLflow:
    """A run of the experiment ``yolomish``, where MLFLOW_TRACKING_URI says, else in files of ``mlruns`` beside the run's folder.

    The run's id is kept in ``mlflow.id``: a resumed training goes on in the same record.
    """

    def __init__(self, out_dir: Path, config: TrainConfig) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # of 7: a server that is away holds up the training
        where = os.environ.get("MLFLOW_TRACKING_URI", "")
        if not where:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # mlflow 3.17 asks for it; a database needs all of mlflow
            where = (out_dir.parent / "mlruns").resolve().as_uri()
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self.metric = Metric
        self.client = MlflowClient(tracking_uri=where)
        kept = out_dir / "mlflow.id"
        if kept.is_file():
            self.run = read_text(kept).strip()
            self.client.update_run(self.run, status="RUNNING")
            return
        found = self.client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else self.client.create_experiment(PROJECT)
        self.run = self.client.create_run(experiment, run_name=out_dir.name).info.run_id
        write_text(kept, self.run)
        settings = [Param(key, str(value)[:500]) for key, value in flat(to_dict(config)).items()]
        for start in range(0, len(settings), 100):  # the most that it takes at once
            self.client.log_batch(self.run, params=settings[start : start + 100])

    def add(self, values: Mapping[str, float], epoch: int) -> None:
        now = int(time.time() * 1000)
        self.client.log_batch(self.run, metrics=[self.metric(key, value, now, epoch) for key, value in values.items()])

    def finish(self, values: Mapping[str, float]) -> None:
        self.add(values, 0)

    def close(self, complete: bool) -> None:
        self.client.set_terminated(self.run, "FINISHED" if complete else "KILLED")


class WandB:
    """A run of the project ``yolomish``; with WANDB_MODE=offline in files of the run's folder, to be sent by ``wandb sync``.

    The run's id is kept in ``wandb.id``: a resumed training goes on in the same record.
    """

    def __init__(self, out_dir: Path, config: TrainConfig) -> None:
        import wandb

        kept = out_dir / "wandb.id"
        if not kept.is_file():
            write_text(kept, uuid.uuid4().hex[:8])
        self.run = wandb.init(
            project=PROJECT,
            dir=str(out_dir),
            name=out_dir.name,
            id=read_text(kept).strip(),
            resume="allow",
            config=to_dict(config),
            settings=wandb.Settings(console="off", silent=True),
        )

    def add(self, values: Mapping[str, float], epoch: int) -> None:
        self.run.log(dict(values), step=epoch)

    def finish(self, values: Mapping[str, float]) -> None:
        self.run.summary.update(dict(values))

    def close(self, complete: bool) -> None:
        self.run.finish(exit_code=0 if complete else 1)


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}


def check_trackers(names: Sequence[str]) -> None:
    """YolomishError for a tracker that is unknown."""
    for name in names:
        if name not in TRACKERS:
            raise unknown_name("--track", name, TRACKERS)


class Trackers:
    """The trackers of a run, as a context: one that is not installed or fails is said once, and no more told."""

    def __init__(self, names: Sequence[str], out_dir: Path, config: TrainConfig, log: Log) -> None:
        self.log = log
        self.live: dict[str, Tracker] = {}
        for name in names:
            self._do(name, partial(self._start, name, out_dir, config))

    def _start(self, name: str, out_dir: Path, config: TrainConfig) -> None:
        self.live[name] = TRACKERS[name](out_dir, config)

    def _do(self, name: str, call: Callable[[], Any]) -> None:
        try:
            call()
        except ImportError as error:
            extra = "logging" if name == "tensorboard" else name
            self.log(f"no {name} logs: it is not installed ({error}): pip install 'yolomish[{extra}]'")
        except Exception as error:  # whatever another's library raises
            self.live.pop(name, None)
            self.log(f"no {name} logs from here on: {reason(error)}")

    def add(self, values: Mapping[str, Any], epoch: int) -> None:
        """Log the numbers among an epoch's ``values``."""
        numbers = {key: float(value) for key, value in values.items() if value is not None and key != "epoch"}
        for name, tracker in list(self.live.items()):
            self._do(name, partial(tracker.add, numbers, epoch))

    def finish(self, values: Mapping[str, float]) -> None:
        """Log the final results, as ``final/NAME``."""
        for name, tracker in list(self.live.items()):
            self._do(name, partial(tracker.finish, {f"final/{key}": float(value) for key, value in values.items()}))

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        for name, tracker in list(self.live.items()):
            self._do(name, partial(tracker.close, kind is None))
