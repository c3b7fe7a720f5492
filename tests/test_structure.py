"""The house stands: imports point downwards, and the help is quick."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLOORS = [
    {"errors", "types", "config", "files", "coco_names"},
    {"kernels"},
    {"activations"},
    {"nn"},
    {"networks"},
    {"darknet", "ops", "drawing"},
    {"weights"},
    {"data"},
    {"evaluation"},
    {"tasks"},
    {"training"},
    {"inference", "comparison", "analysis"},
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
