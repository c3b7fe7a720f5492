"""What is published: a wheel with every file that the package reads, and an sdist that builds it."""

import importlib.util
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import yolomish

ROOT = Path(__file__).resolve().parents[1]
GENERATED = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "runs", "*.egg-info")
missing = [tool for tool in ("build", "setuptools", "twine") if importlib.util.find_spec(tool) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def _not_source(folder: str, names: list[str]) -> set[str]:
    """What was made or fetched in a checkout, downloaded weights among it."""
    fetched = {n for n in names if n != "README.md"} if Path(folder) == ROOT / "weights" else set()
    return set(GENERATED(folder, names)) | fetched


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sdist and of the wheel built from it, from a copy: older builds' leavings would hide what is left out."""
    source = tmp_path_factory.mktemp("published") / "source"
    shutil.copytree(ROOT, source, ignore=_not_source)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(source.parent / "dist")]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return source.parent / "dist"


def _sources(folder: str) -> set[str]:
    return {str(p.relative_to(ROOT)) for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts}


def test_the_wheel_holds_every_file_of_the_package_and_no_other(published: Path) -> None:
    wheel = zipfile.ZipFile(published / f"yolomish-{yolomish.__version__}-py3-none-any.whl")
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == _sources("yolomish") | {f"yolomish/{name}" for name in _sources("configs")}
    assert {"yolomish/kernels/norm_act.cpp", "yolomish/weights/demo.pt", "yolomish/configs/models/yolov4.yaml"} <= held


def test_the_sdist_holds_what_tests_and_docs_need(published: Path) -> None:
    with tarfile.open(published / f"yolomish-{yolomish.__version__}.tar.gz") as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {"cli.py", "Makefile", "LICENSE", "README.md"} <= held
    for folder in ("yolomish", "configs", "docs", "tests", "benchmarks"):
        assert _sources(folder) <= held, folder


def test_twine_finds_no_fault_in_what_is_published(published: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, published.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2
