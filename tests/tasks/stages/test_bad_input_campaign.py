"""Malformed input of many kinds: a quarantined row or a sentence, never a lost row."""

import gzip
import io
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from inspect import unwrap
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_core.data.lake.tables import Lake
from recsys_core.data.sources.config import SourceConfig, SourceError
from recsys_core.data.sources.discovery import source_fingerprint
from recsys_core.settings import silent
from tasks.engine.night import Night
from tasks.engine.stage import StageRun
from tasks.stages.ingest import ingest

HEADER = "user_id,item_id,timestamp,weight\n"
GOOD = "".join(f"user{n},item{n % 3},2026-01-0{1 + n % 9},1\n" for n in range(9))
RUN_DATE = "2026-01-10"

Settings = dict[str, Any]


def _ingest(workspace: Path, folder: Path, **settings: Any) -> list[dict[str, Any]]:
    """What became of each file's rows."""
    given = {"interactions": folder, "timestamp_unit": "iso", **settings}
    config = SourceConfig.model_validate(given)
    night = Night(workspace, "test", date.fromisoformat(RUN_DATE), {}, None, {})
    out = workspace / "ingest"
    run = StageRun(night, "key", out, workspace / "scratch", silent, logging.getLogger("test"))
    unwrap(ingest)(run, config=config, run_date=RUN_DATE, sources=source_fingerprint(config))
    return json.loads((out / "ingest.json").read_text())["files"]


def _check_that_nothing_is_lost(workspace: Path, files: list[dict[str, Any]]) -> None:
    lake = Lake(workspace / "lake")
    kept = lake.scan("interactions").collect()
    refused = lake.scan("quarantine").collect()
    for file in files:
        parts = [file[f"rows_{part}"] for part in ("kept", "quarantined", "duplicate")]
        assert sum(parts) == file["rows_in"]
        assert kept.filter(pl.col("source") == file["source"]).height == parts[0]
        rows = refused.filter(pl.col("source") == file["source"])
        assert rows.height == parts[1]
        assert rows["row"].n_unique() == rows.height
        assert rows["raw"].null_count() == 0


@dataclass(frozen=True)
class Case:
    """A file that is not as it should be.

    Attributes:
        content: Its bytes.
        reasons: Expected reasons in quarantine.
        kept: Rows that are expected in the lake.
        name: Name of the file.
        settings: Of the source.
    """

    content: bytes | str
    reasons: dict[str, int]
    kept: int = 9
    name: str = "a.csv"
    settings: Settings = field(default_factory=dict)


def _with(line: str | bytes) -> bytes:
    raw = line if isinstance(line, bytes) else line.encode()
    return HEADER.encode() + GOOD.encode() + raw + b"\n"


def _row(**values: str) -> str:
    row = {"user": "u", "item": "i", "timestamp": "2026-01-01", "weight": "1"} | values
    return ",".join(row.values())


def _parquet(**columns: Any) -> bytes:
    file = io.BytesIO()
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    base = {"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [moment, moment]}
    pl.DataFrame(base | columns, strict=False).write_parquet(file)
    return file.getvalue()


def _json(*rows: object) -> str:
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)


JSON_ROW = {"user_id": "u", "item_id": "i", "timestamp": "2026-01-01"}
JSONL: Settings = {"format": "jsonl"}
SECONDS: Settings = {"timestamp_unit": "s"}
PARQUET: Settings = {"format": "parquet"}

QUARANTINED = {
    "unbalanced quote": Case(_with('u,"i,2026-01-01,1'), {"unbalanced quotes": 1}),
    "quote inside a field": Case(_with('u,i"x",2026-01-01,1'), {"unbalanced quotes": 1}),
    "quoted line break": Case(_with('u,"i\nj",2026-01-01,1'), {"unbalanced quotes": 2}),
    "too few fields": Case(_with("u,i"), {"wrong number of fields": 1}),
    "too many fields": Case(_with("u,i,2026-01-01,1,9,9"), {"wrong number of fields": 1}),
    "bytes that are no UTF-8": Case(_with(b"\xff\xfe\xfd,i,2026-01-01,1"), {"not UTF-8": 1}),
    "a latin-1 letter": Case(_with("Zoë,i,2026-01-01,1".encode("latin-1")), {"not UTF-8": 1}),
    "1e308 as weight": Case(_with(_row(weight="1e308")), {"weight not finite": 1}),
    "NaN as weight": Case(_with(_row(weight="NaN")), {"weight not finite": 1}),
    "infinity as weight": Case(_with(_row(weight="-inf")), {"weight not finite": 1}),
    "text as weight": Case(_with(_row(weight="many")), {"unreadable weight": 1}),
    "1e308 as timestamp": Case(
        HEADER + "u,i,1e308,1\n", {"timestamp out of range": 1}, 0, settings=SECONDS
    ),
    "NaN as timestamp": Case(
        HEADER + "u,i,NaN,1\n", {"unreadable timestamp": 1}, 0, settings=SECONDS
    ),
    "negative timestamp": Case(
        HEADER + "u,i,-5,1\n", {"timestamp out of range": 1}, 0, settings=SECONDS
    ),
    "13 digits where seconds belong": Case(
        HEADER + "u,i,1767225600000,1\n", {"timestamp out of range": 1}, 0, settings=SECONDS
    ),
    "seconds where 13 digits belong": Case(
        HEADER + "u,i,1767225600,1\n",
        {"timestamp out of range": 1},
        0,
        settings={"timestamp_unit": "ms"},
    ),
    "more digits than an integer has": Case(
        HEADER + f"u,i,{'9' * 40},1\n", {"timestamp out of range": 1}, 0, settings=SECONDS
    ),
    "a day that does not exist": Case(
        _with(_row(timestamp="2026-02-30")), {"unreadable timestamp": 1}
    ),
    "another way to write dates": Case(
        _with(_row(timestamp="01/02/2026")), {"unreadable timestamp": 1}
    ),
    "an hour that clocks skip": Case(
        HEADER + "u,i,2025-03-30 02:30,1\nu,j,2025-03-30 03:30,1\n",
        {"unreadable timestamp": 1},
        1,
        settings={"timestamp_zone": "Europe/Berlin"},
    ),
    "a time to come": Case(
        _with(_row(timestamp="2026-01-10")), {"timestamp on or after the run date": 1}
    ),
    "blanks for an id": Case(_with(_row(user="   ")), {"missing user_id": 1}),
    "nothing for an item": Case(_with(_row(item="")), {"missing item_id": 1}),
    "nothing for a time": Case(_with(_row(timestamp="")), {"missing timestamp": 1}),
    "a kind that is not listed": Case(
        "user_id,item_id,timestamp,event_type\nu,i,2026-01-01,view\nu,i,2026-01-01,hack\n",
        {"unknown event_type": 1},
        1,
        settings={"event_types": {"view": 1.0}},
    ),
    "no JSON": Case(
        _json(JSON_ROW, "{broken", "[1, 2]", "7", '{"user_id": "u"'),
        {"not a JSON object": 4},
        1,
        "a.jsonl",
        JSONL,
    ),
    "nested JSON values": Case(
        _json(JSON_ROW, JSON_ROW | {"timestamp": {"at": 1}}, JSON_ROW | {"weight": [1]}),
        {"unreadable timestamp": 1, "unreadable weight": 1},
        1,
        "a.jsonl",
        JSONL,
    ),
    "mixed types in JSON": Case(
        _json(JSON_ROW, JSON_ROW | {"user_id": 7}, JSON_ROW | {"user_id": None}, {}),
        {"missing user_id": 2},
        2,
        "a.jsonl",
        JSONL,
    ),
    "nulls in Parquet": Case(
        _parquet(user_id=[None, "v"]), {"missing user_id": 1}, 1, "a.parquet", PARQUET
    ),
    "ids in a dictionary of Parquet": Case(
        _parquet(user_id=pl.Series([None, "v"], dtype=pl.Categorical)),
        {"missing user_id": 1},
        1,
        "a.parquet",
        PARQUET,
    ),
    "fractions as ids in Parquet": Case(
        _parquet(user_id=[1.5, 2.0]), {"unreadable user_id": 1}, 1, "a.parquet", PARQUET
    ),
    "text as time in Parquet": Case(
        _parquet(timestamp=["2026-01-01", "soon"]),
        {"unreadable timestamp": 1},
        1,
        "a.parquet",
        PARQUET,
    ),
}


@pytest.mark.parametrize("case", QUARANTINED.values(), ids=QUARANTINED.keys())
def test_bad_rows_are_quarantined_and_good_ones_kept(tmp_path: Path, case: Case) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    raw = case.content if isinstance(case.content, bytes) else case.content.encode()
    (folder / case.name).write_bytes(raw)
    files = _ingest(tmp_path / "workspace", folder, **case.settings)
    _check_that_nothing_is_lost(tmp_path / "workspace", files)
    (file,) = files
    assert (file["reasons"], file["rows_kept"]) == (case.reasons, case.kept)


KEPT = {
    "a byte order mark": ("\ufeff" + HEADER + GOOD, 9, {}),
    "lines that end as on Windows": ((HEADER + GOOD).replace("\n", "\r\n"), 9, {}),
    "lines that end as on the old Mac": ((HEADER + GOOD).replace("\n", "\r"), 9, {}),
    "blank lines": ((HEADER + GOOD).replace("\n", "\n\n \n"), 9, {}),
    "no line end at the end": ((HEADER + GOOD).rstrip("\n"), 9, {}),
    "a carriage return inside a line": (HEADER + "u\rv,i,2026-01-01,1\n", 1, {}),
    "NUL bytes in an id": (HEADER + "u\0v,i,2026-01-01,1\n", 1, {}),
    "a field of 10 MB": (HEADER + f"{'u' * 10_000_000},i,2026-01-01,1\n", 1, {}),
    "formulas": (HEADER + '=cmd()|a,"@SUM(1,2)",2026-01-01,1\n', 1, {}),
    "a replacement character that was there": (HEADER + "u\ufffd,i,2026-01-01,1\n", 1, {}),
    "another encoding": (
        (HEADER + "Zoë,Käse,2026-01-01,1\n").encode("cp1252"),
        1,
        {"encoding": "cp1252"},
    ),
    "1e3 as an id": (HEADER + "1e3,007,2026-01-01,1\n", 1, {}),
}


@pytest.mark.parametrize(("content", "kept", "given"), KEPT.values(), ids=KEPT.keys())
def test_what_is_only_unusual_is_kept(
    tmp_path: Path, content: str | bytes, kept: int, given: Settings
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    raw = content if isinstance(content, bytes) else content.encode()
    (folder / "it's = ü %20.csv").write_bytes(raw)
    files = _ingest(tmp_path / "workspace", folder, **given)
    _check_that_nothing_is_lost(tmp_path / "workspace", files)
    assert files[0]["rows_kept"] == files[0]["rows_in"] == kept


def test_formulas_and_leading_zeros_stay_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.csv").write_text(HEADER + '=1+1,007,2026-01-01,1\n1e3,"+49",2026-01-01,1\n')
    _ingest(tmp_path, folder)
    rows = Lake(tmp_path / "lake").scan("interactions").sort("arrival").collect()
    assert rows.select("user_id", "item_id").rows() == [("=1+1", "007"), ("1e3", "+49")]


def _packed(text: str) -> bytes:
    return gzip.compress(text.encode() * 1000)


def _zstd(text: str) -> bytes:
    import pyarrow as pa

    return pa.compress(text.encode() * 1000, codec="zstd", asbytes=True)


Make = Callable[[Path], object]

REFUSED: dict[str, tuple[Make, str, Settings]] = {
    "an empty file": (lambda at: (at / "a.csv").touch(), r"a\.csv is empty \(0 bytes\)", {}),
    "blank lines only": (lambda at: (at / "a.csv").write_text("\n \n"), r"a\.csv is empty", {}),
    "no file at all": (lambda at: (at / "a.txt").touch(), r"holds no \.csv .*there: a\.txt", {}),
    "a folder called like a file": (
        lambda at: (at / "a.csv").mkdir(),
        r"No interactions found",
        {},
    ),
    "a pipe": (lambda at: os.mkfifo(at / "a.csv"), r"No interactions found", {}),
    "a link to nowhere": (
        lambda at: (at / "a.csv").symlink_to(at / "gone"),
        r"No interactions found",
        {},
    ),
    "links in a circle": (lambda at: (at / "round").symlink_to(at), r"No interactions found", {}),
    "UTF-16": (
        lambda at: (at / "a.csv").write_bytes((HEADER + GOOD).encode("utf-16")),
        r"a\.csv is UTF-16\. Export it as UTF-8",
        {},
    ),
    "a column that comes twice": (
        lambda at: (at / "a.csv").write_text("user_id,item_id,item_id\n"),
        r"column 'item_id' twice in its header",
        {},
    ),
    "nothing but a carriage return": (
        lambda at: (at / "a.csv").write_text("\r"),
        r"a\.csv is empty",
        {},
    ),
    "a header with a carriage return": (
        lambda at: (at / "a.csv").write_bytes(b"user_id,it\rem_id,timestamp\nu,i,1\n"),
        r"no column 'item_id'",
        {},
    ),
    "a header with an open quote": (
        lambda at: (at / "a.csv").write_text('user_id,"item_id,timestamp\n'),
        r"first line is no CSV header",
        {},
    ),
    "a missing column": (
        lambda at: (at / "a.csv").write_text("user_id,sku,timestamp\n"),
        r"no column 'item_id' .*Set source\.columns\.item_id",
        {},
    ),
    "another separator": (
        lambda at: (at / "a.csv").write_text(HEADER.replace(",", ";")),
        r"no column 'user_id' .*its columns: user_id;item_id",
        {},
    ),
    "a gzip that ends early": (
        lambda at: (at / "a.csv.gz").write_bytes(_packed(HEADER + GOOD)[:-20]),
        r"a\.csv\.gz can't be read beyond \d+ bytes .*export it again",
        {},
    ),
    "a gzip that is none": (
        lambda at: (at / "a.csv.gz").write_text(HEADER + GOOD),
        r"a\.csv\.gz can't be read beyond 0 bytes",
        {},
    ),
    "a zstd that ends early": (
        lambda at: (at / "a.csv.zst").write_bytes(_zstd(HEADER + GOOD)[:-8]),
        r"a\.csv\.zst can't be read beyond",
        {},
    ),
    "a Parquet file that ends early": (
        lambda at: (at / "a.parquet").write_bytes(_parquet()[:-40]),
        r"a\.parquet can't be read as parquet",
        PARQUET,
    ),
    "a Parquet file with a damaged page": (
        lambda at: (at / "a.parquet").write_bytes(_damaged(_parquet())),
        r"a\.parquet can't be read as parquet",
        PARQUET,
    ),
    "CSV called Parquet": (
        lambda at: (at / "a.parquet").write_text(HEADER + GOOD),
        r"a\.parquet can't be read as parquet",
        PARQUET,
    ),
    "lists for ids": (
        lambda at: (at / "a.parquet").write_bytes(_parquet(user_id=[["u"], ["v"]])),
        r"column user_id holds List\(String\) values",
        PARQUET,
    ),
    "bytes for ids": (
        lambda at: (at / "a.parquet").write_bytes(_parquet(user_id=[b"u", b"v"])),
        r"column user_id holds Binary values",
        PARQUET,
    ),
    "a JSON object over many lines": (
        lambda at: (at / "a.json").write_text('{\n "user_id": 1\n}\n'),
        r"a\.json is no file of JSON lines: it begins with '\{'",
        JSONL,
    ),
}


def _damaged(content: bytes) -> bytes:
    middle = content.index(b"PAR1") + 4
    return content[:middle] + bytes(60) + content[middle + 60 :]


@pytest.mark.parametrize(("make", "sentence", "given"), REFUSED.values(), ids=REFUSED.keys())
def test_a_file_that_can_not_be_read_is_refused_with_a_sentence(
    tmp_path: Path, make: Make, sentence: str, given: Settings
) -> None:
    folder, workspace = tmp_path / "in", tmp_path / "workspace"
    folder.mkdir()
    make(folder)
    with pytest.raises(SourceError, match=sentence):
        _ingest(workspace, folder, **given)
    if (workspace / "lake").exists():
        assert Lake(workspace / "lake").version("interactions") == 0
        assert not any(workspace.glob("lake/interactions/date=*/*"))
    assert not (workspace / "ingest" / "ingest.json").exists()


def test_a_name_never_leaves_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "..hidden").mkdir(parents=True)
    (folder / "a..csv").write_text(HEADER + GOOD)
    (folder / "..hidden" / "b.csv").write_text(HEADER + GOOD)
    files = _ingest(tmp_path / "workspace", folder / ".." / "in")
    assert [file["source"] for file in files] == ["interactions/a..csv"]
    outside = {path.name for path in tmp_path.iterdir()}
    assert outside == {"in", "workspace"}


BYTES = st.binary(max_size=80) | st.text(max_size=80).map(str.encode)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(BYTES, st.sampled_from(["csv", "jsonl", "parquet"]), st.integers(0, 200))
def test_random_bytes_end_in_rows_or_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, kind: str, cut: int
) -> None:
    workspace = tmp_path_factory.mktemp("noise")
    folder = workspace / "in"
    folder.mkdir()
    good = {
        "csv": (HEADER + GOOD).encode(),
        "jsonl": _json(*[JSON_ROW] * 4).encode(),
        "parquet": _parquet(),
    }[kind]
    (folder / f"a.{kind}").write_bytes(good[:cut] + noise + good[cut:])
    refused = None
    try:
        files = _ingest(workspace, folder, format=kind)
    except SourceError as error:
        files, refused = [], str(error)
    _check_that_nothing_is_lost(workspace, files)
    assert files or (refused and f"a.{kind}" in refused and refused.endswith("."))
