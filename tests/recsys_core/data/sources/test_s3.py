"""Sources on S3, against a real S3 server process on this machine."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs

from recsys_core.data.sources.config import SourceConfig, SourceError
from recsys_core.data.sources.discovery import (
    exists,
    find_sources,
    fingerprint,
    local_file,
    source_fingerprint,
)

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "eu-central-1"}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **KEYS},
    )
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def store(server: str, monkeypatch: pytest.MonkeyPatch) -> fs.S3FileSystem:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = fs.S3FileSystem(
        endpoint_override=server.removeprefix("http://"),
        scheme="http",
        allow_bucket_creation=True,
    )
    store.create_dir("shop")
    return store


def _put(store: fs.S3FileSystem, path: str, content: str) -> None:
    with store.open_output_stream(path) as stream:
        stream.write(content.encode())


def _config(server: str, place: str, **settings: object) -> SourceConfig:
    s3 = {"endpoint": server, "region": "eu-central-1"}
    return SourceConfig.model_validate({"interactions": place, "s3": s3, **settings})


def test_folders_globs_and_single_objects_are_found(store: fs.S3FileSystem, server: str) -> None:
    for name in ("a/date=1/x.csv", "a/date=2/x.csv", "a/_draft/x.csv", "a/notes.txt"):
        _put(store, f"shop/{name}", "text")
    names = {
        place: [one.name for one in find_sources(_config(server, f"s3://shop/{place}"))]
        for place in ("a", "a/date=*/*.csv", "a/date=2/x.csv")
    }
    assert names == {
        "a": ["interactions/date=1/x.csv", "interactions/date=2/x.csv"],
        "a/date=*/*.csv": ["interactions/date=1/x.csv", "interactions/date=2/x.csv"],
        "a/date=2/x.csv": ["interactions/x.csv"],
    }


def test_an_object_is_copied_and_the_copy_is_gone_afterwards(
    store: fs.S3FileSystem, server: str, tmp_path: Path
) -> None:
    _put(store, "shop/b/x.csv", "user_id,item_id,timestamp\n" * 9)
    config = _config(server, "s3://shop/b")
    (source,) = find_sources(config)
    with local_file(source, config, tmp_path) as path:
        assert path.read_text() == "user_id,item_id,timestamp\n" * 9
    assert list(tmp_path.iterdir()) == []


def test_a_changed_object_has_another_fingerprint_and_is_not_read_as_the_old_one(
    store: fs.S3FileSystem, server: str, tmp_path: Path
) -> None:
    _put(store, "shop/c/x.csv", "one")
    config = _config(server, "s3://shop/c")
    (before,) = find_sources(config)
    assert source_fingerprint(config) == {before.name: fingerprint(before)}
    _put(store, "shop/c/x.csv", "three")
    (after,) = find_sources(config)
    assert fingerprint(after) != fingerprint(before)
    with (
        pytest.raises(SourceError, match="changed while the night was running"),
        local_file(before, config, tmp_path),
    ):
        pass


def test_a_marker_is_looked_for(store: fs.S3FileSystem, server: str) -> None:
    config = _config(server, "s3://shop/d")
    assert not exists("s3://shop/d/_SUCCESS", config)
    _put(store, "shop/d/_SUCCESS", "")
    assert exists("s3://shop/d/_SUCCESS", config)


@pytest.mark.parametrize("place", ["s3://nowhere/a", "s3://shop/empty", "s3://nowhere/*.csv"])
def test_what_is_not_there_is_a_sentence(store: fs.S3FileSystem, server: str, place: str) -> None:
    with pytest.raises(SourceError, match=r"can't be read \(.*source\.s3|No interactions found"):
        find_sources(_config(server, place))


def test_a_server_that_does_not_answer_is_a_sentence(store: fs.S3FileSystem) -> None:
    with pytest.raises(SourceError, match=r"s3://shop/a can't be read .*keys in the environment"):
        find_sources(_config("http://127.0.0.1:9", "s3://shop/a"))
