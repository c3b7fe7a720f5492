"""Which files of the repository are pages of the site: each keeps its path, so that the links between them hold in both."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["*.md", "CITATION.cff", "docs/**/*.md", "docs/img/*", "benchmarks/results/*.md"]


def on_files(files: Files, config: Any) -> Files:
    """The theme's files and, in place of what lies in ``docs_dir``, the repository's pages and pictures."""
    for found in [*files.documentation_pages(), *files.media_files()]:
        if found.src_dir == config.docs_dir:
            files.remove(found)
    for path in sorted(path for pattern in PAGES for path in ROOT.glob(pattern)):
        files.append(File(path.relative_to(ROOT).as_posix(), str(ROOT), config.site_dir, config.use_directory_urls))
    return files
