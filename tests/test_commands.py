"""The command line as a whole: what it says of this machine, completes, and what README and docs say of it."""

import importlib.metadata
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.commands.env import ENGINES
from yolomish.commands.help import GROUPS, group_of

ROOT = Path(__file__).resolve().parents[1]
PRICES = (ROOT / "README.md", ROOT / "benchmarks" / "results" / "acts-cpu.md")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_env_names_versions_and_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package == "openvino":
            raise importlib.metadata.PackageNotFoundError(package)
        return f"{package}'s"

    monkeypatch.setattr(sys.modules["yolomish.commands.env"], "version", version)
    printed = CliRunner().invoke(app, ["env"], catch_exceptions=False).output
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in printed.splitlines())
    assert rows["torch"] == torch.__version__ and rows["openvino"] == "not installed" and rows["numpy"] == "numpy's"


def test_version_names_torch_cuda_and_engines_as_env_does() -> None:
    lines = CliRunner().invoke(app, ["--version"], catch_exceptions=False).output.splitlines()
    env = CliRunner().invoke(app, ["env"], catch_exceptions=False).output
    assert lines[0] == f"yolomish {importlib.metadata.version('yolomish')}" or lines[0] in " ".join(env.split())
    assert lines[1].startswith(f"torch {torch.__version__} (") and (torch.version.cuda or "no CUDA") in lines[1]
    assert [part.split()[0] for part in lines[2].removeprefix("engines: ").split(", ")] == list(ENGINES)
    assert all(part in " ".join(env.split()) for part in lines[2].removeprefix("engines: ").split(", "))


def commands_of(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The commands below a group, by their names as they are typed."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands_of(typer.main.get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_in_groups_that_are_readable_at_80_columns(name: str) -> None:
    text = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "80"}, catch_exceptions=False).output
    assert max(map(len, text.splitlines())) <= 80
    _, *parts = re.split(r"^(\w+):\n", text, flags=re.M)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    assert set(sections) <= {"Arguments", *GROUPS, "Examples"} and list(sections)[-1] == "Examples"
    for parameter in COMMANDS[name].params:
        if parameter.param_type_name == "option":
            rows = re.split(r"^  (?=-)", sections[group_of(name.split()[-1], parameter.name)], flags=re.M)
            (row,) = [row for row in rows if parameter.opts[-1] in re.split(r"[\s,]+", row.split("  ")[0])]
            assert len(row.rstrip().splitlines()) <= 5, f"too long for one option: {row}"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_at_the_end_of_help_are_commands_as_click_reads_them(name: str) -> None:
    lines = COMMANDS[name].epilog.replace("\\\n", " ").splitlines()
    assert lines
    for line in lines:
        words = shlex.split(re.split("[|>]", line)[0])
        own = ["yolomish", *name.replace("predict", "detect").split()]
        assert words[: len(own)] == own, line
        COMMANDS[name].make_context(name, words[len(own) :]).close()


def test_every_group_is_of_options_that_exist() -> None:
    known = {(path.split()[-1], p.name) for path, command in COMMANDS.items() for p in command.params} | {("train", "help")}
    names = {name for _, name in known}
    for entry in " ".join(GROUPS.values()).split():
        command, dot, name = entry.rpartition(".")
        assert (command, name) in known if dot else name in names, entry


@pytest.mark.parametrize("name", COMMANDS)
def test_a_number_that_has_a_least_value_has_a_most_one(name: str) -> None:
    """Whole numbers without both are fields of a configuration, which checks them."""
    hints = get_type_hints(inspect.unwrap(COMMANDS[name].callback), include_extras=True)
    marks = {key: mark for key, hint in hints.items() for mark in getattr(hint, "__metadata__", ())}
    open_ended = [key for key, mark in marks.items() if getattr(mark, "min", None) is not None and mark.max is None]
    assert not open_ended
    for key, mark in marks.items():
        if getattr(mark, "max", None) is not None:
            option = next(p for p in COMMANDS[name].params if p.name == key).opts[-1]
            done = CliRunner().invoke(app, [*name.split(), option, "9" * 30])
            assert done.exit_code == 2 and re.search(f"Invalid value for .*{option}.* less than or equal", done.output), (
                done.output
            )


def test_the_shell_completes_commands() -> None:
    asked = {"_YOLOMISH_COMPLETE": "complete_bash", "COMP_WORDS": "yolomish ex", "COMP_CWORD": "1"}
    command = [sys.executable, "-c", "import sys; sys.argv[0] = 'yolomish'; from yolomish.commands import main; main()"]
    done = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["export"], done.stderr


def written_commands(page: Path) -> Iterator[str]:
    """The ``yolomish ...`` lines of a page's code blocks, continued lines joined, comments left out."""
    for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.match(r"(?:torchrun .*-m |\S+=\S+ )*(yolomish .*)", line.strip()):
                yield found.group(1)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_pages_name_commands_and_options_that_exist(page: Path) -> None:
    for line in written_commands(page):
        words = shlex.split(line, comments=True)[1:]
        command: Any = typer.main.get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands") or not words or words[0].startswith("-"), f"{page.name}: {line}"
        known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
        unknown = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)} - known
        assert not unknown, f"{page.name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_pages_link_to_files_that_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_readmes_prices_are_the_measured_ones() -> None:
    rows = [
        re.findall(r"^\| ((?:relu|leaky_relu|silu|gelu|mish) \| .*)$", page.read_text(encoding="utf-8"), re.M) for page in PRICES
    ]
    assert len(rows[0]) == 5 and set(rows[0]) <= set(rows[1])


def test_the_site_has_every_page_once() -> None:
    def leaves(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in leaves(part)]

    shown = leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    written = [path for pattern in ("*.md", "docs/**/*.md", "benchmarks/results/*.md") for path in ROOT.glob(pattern)]
    assert sorted(shown) == sorted(path.relative_to(ROOT).as_posix() for path in written)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the site needs the extra docs")
    pytest.importorskip("mkdocstrings", reason="the site needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    home = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="docs/detect/"' in home and 'src="docs/img/report.png"' in home
    assert "detect_batch" in (tmp_path / "docs" / "api" / "index.html").read_text(encoding="utf-8")


def test_citing_names_the_papers_of_the_citation_file() -> None:
    papers = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"]
    page = (ROOT / "docs" / "citing.md").read_text(encoding="utf-8")
    assert {paper["url"].rpartition("/")[2] for paper in papers} == set(re.findall(r"eprint += \{(.*)\}", page))
