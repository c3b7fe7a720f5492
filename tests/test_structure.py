"""The house stands: imports point downwards, and the help is quick."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLOORS = [
    {"errors", "types", "config", "files", "threads", "download", "trust", "coco_names"},
    {"kernels"},
    {"activations"},
    {"nn"},
    {"networks", "darknet"},
    {"ops", "drawing"},
    {"weights"},
    {"data"},
    {"evaluation"},
    {"tasks"},
    {"training"},
    {"inference", "comparison", "analysis", "transfer"},
    {"commands", "__main__", "__init__"},
]
HEIGHT = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def test_a_module_imports_only_from_its_floor_or_below() -> None:
    wrong = []
    for path in (ROOT / "yolomish").rglob("*.py"):
        home = path.relative_to(ROOT / "yolomish").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                parts = name.split(".")
                if parts[0] == "yolomish" and len(parts) > 1 and HEIGHT[parts[1]] > HEIGHT[home]:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
                if parts[0] == "typer" and home != "commands":
                    wrong.append(f"{path.relative_to(ROOT)} imports typer")
                if parts[0] == "triton" and path.name != "triton_code.py":
                    wrong.append(f"{path.relative_to(ROOT)} imports triton")
                if parts[0] == "pycocotools" and home not in ("data", "evaluation"):
                    wrong.append(f"{path.relative_to(ROOT)} imports pycocotools")
    assert not wrong, "\n".join(wrong)


def test_help_does_not_import_torch() -> None:
    code = "import sys; import yolomish.commands; sys.exit('torch' in sys.modules or 'cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_network_is_named_outside_the_networks() -> None:
    """Classes of single architectures, parts and numbers of heads are known to ``networks`` and Darknet's adapter alone."""
    classes = {
        node.name
        for path in (ROOT / "yolomish" / "networks").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and node.name != "Network"
    }
    private = classes | {"head_layers", "STRIDES"}
    assert "YOLOv4" in private
    found = []
    for path in (ROOT / "yolomish").rglob("*.py"):
        home = path.relative_to(ROOT / "yolomish").parts[0]
        if home in ("networks", "darknet"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "name", None)
            if name in private:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {name}")
    assert not found, "\n".join(found)


def test_nobody_else_divides_by_255() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / "yolomish").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
        if isinstance(node.right, ast.Constant) and node.right.value == 255
    ]
    assert len(found) <= 2 and any(place.startswith("yolomish/types.py") for place in found), found  # and a font's mask


def test_every_package_is_in_the_wheel() -> None:
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "yolomish").rglob("__init__.py")}
    listed = set(
        re.findall(r'"(yolomish[a-z._]*)"', (ROOT / "pyproject.toml").read_text().split("packages = [")[1].split("]")[0])
    )
    assert folders == {name for name in listed if not re.search(r"\.configs|\.templates$", name)}


def test_tests_do_not_import_each_other() -> None:
    lines = [f"{path.name}: {line}" for path in (ROOT / "tests").glob("test_*.py") for line in path.read_text().splitlines()]
    assert not [line for line in lines if re.match(r"\S+: (from|import) test_", line)]


def test_every_test_against_opencvs_darknet_reader_is_in_the_pass_with_opencv_4() -> None:
    """OpenCV 5 has no such reader: what that pass leaves out is skipped everywhere."""
    (line,) = (line for line in (ROOT / "Makefile").read_text().splitlines() if "-k opencv" in line)
    given = {path for pattern in re.findall(r"tests/\S+\.py", line) for path in ROOT.glob(pattern)}
    readers = {
        path for path in (ROOT / "tests").glob("test_*.py") if re.search(r"cv2\.dnn\.readNetFromDarknet\(", path.read_text())
    }
    assert readers and readers <= given
