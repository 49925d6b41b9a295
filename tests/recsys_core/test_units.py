"""Numbers with units."""

import pytest

from recsys_core.units import format_bytes


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1 kB"), (999_600, "1 MB"), (4_812_344, "4.81 MB"),
     (7.5e9, "7.5 GB"), (2e12, "2 TB")],
)  # fmt: skip
def test_bytes_in_words(size, text):
    assert format_bytes(size) == text
