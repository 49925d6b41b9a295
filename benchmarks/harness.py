"""Shared by all benchmarks: options, the machine, a table, figures as JSON."""

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

LIBRARIES = ("torch", "polars", "onnxruntime", "numpy", "mlflow", "prefect")


def options(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="run a small version as a test")
    parser.add_argument("--data", type=Path, help="folder of the data")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    return parser


def peak_bytes() -> int:
    """Peak memory of this program; getrusage would include that of its parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def machine() -> dict[str, Any]:
    """The machine and the library versions of the measurement."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "python": platform.python_version(),
        **{library: version(library) for library in LIBRARIES},
    }


def finish(
    name: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    figures: Mapping[str, Any],
    out: Path | None,
) -> None:
    """Print the table and the machine, and write the figures.

    Args:
        name: Name of the benchmark.
        columns: Headings of the table.
        rows: Cells of the table; floats are shown with four digits.
        figures: Figures by name, for the JSON file.
        out: The JSON file, or None.
    """
    cells = [list(columns), *([_shown(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    for row in cells:
        first, *rest = row
        padded = [text.rjust(width) for text, width in zip(rest, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *padded]))
    facts = machine()
    print("\n" + ", ".join(f"{key} {value}" for key, value in facts.items()))
    if out:
        text = json.dumps({"benchmark": name, "machine": facts, "figures": figures}, indent=2)
        out.write_text(text + "\n", encoding="utf-8")


def _shown(cell: object) -> str:
    if cell is None:
        return "-"
    return f"{cell:.4f}" if isinstance(cell, float) else str(cell)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
