"""A watch over every reader: whatever an input holds, it is read or refused with one short line."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from reference.hostile import FORMATS, attempt

EXAMPLES = int(os.environ.get("YOLOMISH_FUZZ", "60"))


@pytest.mark.parametrize("format", FORMATS)
def test_an_input_is_read_or_refused_with_one_line(format: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    for package in FORMATS[format].needs:
        pytest.importorskip(package, reason=f"{package} reads these files")
    folder, read = tmp_path_factory.mktemp(format), []

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(FORMATS[format].inputs)
    def watch(content: bytes) -> None:
        read.append(attempt(FORMATS[format], content, folder))

    watch()
    assert any(read) and not all(read)  # mutations of what is good, and some of them are bad
