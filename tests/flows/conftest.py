"""A real web server, a small archive in MovieLens' form, and the workspace of a finished night."""

import shutil
import sqlite3
import ssl
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest
from werkzeug.serving import make_ssl_devcert

from flows.config import NightlyConfig
from tests.tiny import RUN_DATE, tiny_settings

RATINGS = "userId,movieId,rating,timestamp\n1,10,4.0,1537799250\n2,20,0.5,1537000000\n"
MOVIES = 'movieId,title,genres\n10,"One, Two (1999)",Drama|War\n20,Café (2001),Comedy\n'


NAMED_USER = "a-user-to-forget"
"""A user of the finished night, whose name is found wherever it is written."""


@dataclass
class FileServer:
    """What a server offers, how it fails, and what it was asked.

    Attributes:
        url: Of its root, without a slash at the end.
        files: Path to content.
        cut_after: It hangs up after this many bytes of a body.
        stall: It sends no body until the test ends.
        status: It answers everything with this error.
        moved: Path to the address where the file is now.
        asked: Path of every request.
    """

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: int | None = None
    stall: threading.Event | None = None
    status: int | None = None
    moved: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        self.asked.append(request.path)
        if self.status is not None:
            request.send_error(self.status)
        elif request.path in self.moved:
            request.send_response(302)
            request.send_header("Location", self.moved[request.path])
            request.end_headers()
        elif request.path not in self.files:
            request.send_error(404)
        else:
            self._send(request, self.files[request.path])

    def _send(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if self.stall is not None:
            self.stall.wait(10)
            return
        request.wfile.write(body[: self.cut_after])


@pytest.fixture
def file_server() -> Iterator[FileServer]:
    """A server that offers nothing yet."""
    with _serving() as state:
        yield state


@pytest.fixture
def secure_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """The same over https, with a certificate that downloads trust."""
    certificate, key = make_ssl_devcert(str(tmp_path / "server"), host="localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
    with _serving(context) as state:
        yield state


@contextmanager
def _serving(context: ssl.SSLContext | None = None) -> Iterator[FileServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        origin = f"http://127.0.0.1:{server.server_port}"
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            origin = f"https://localhost:{server.server_port}"
        state = FileServer(origin)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        if state.stall is not None:
            state.stall.set()
        server.shutdown()
        thread.join()


def write_zip(path: Path, members: Mapping[str, str | bytes]) -> Path:
    """A zip archive with these members."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def small_archive(tmp_path: Path) -> Path:
    """An archive in the form of ml-latest-small, with a file that no night needs."""
    members = {"README.txt": "Terms", "ratings.csv": RATINGS, "movies.csv": MOVIES, "tags.csv": "x"}
    return write_zip(
        tmp_path / "ml-latest-small.zip",
        {f"ml-latest-small/{name}": text for name, text in members.items()},
    )


@pytest.fixture(scope="session")
def finished_night(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the tiny night ran in, once for all tests; they work on copies."""
    from flows.nightly import nightly
    from tasks.chores.synthesise import synthesise

    folder, config = tmp_path_factory.mktemp("finished"), _config()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        world = config.synthetic
        synthesise(world.folder, world.world, days=world.days, run_date=RUN_DATE)
        _name_a_user(world.folder)
        nightly(config, RUN_DATE)
    return folder


@pytest.fixture
def first_night(
    finished_night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> NightlyConfig:
    """The configuration of a night that has run once, in a workspace of the test's own."""
    folder = shutil.copytree(finished_night, tmp_path / "first-night")
    _move_artifacts(folder / "workspace" / "mlflow.db", finished_night, folder)
    monkeypatch.chdir(folder)
    return _config()


def _move_artifacts(database: Path, old: Path, new: Path) -> None:
    """Let MLflow look for the artifacts of a copied workspace there: it stores whole paths."""
    columns = {
        "experiments": ("artifact_location",),
        "runs": ("artifact_uri",),
        "model_versions": ("source", "storage_location"),
    }
    with closing(sqlite3.connect(database)) as connection, connection:
        for table, names in columns.items():
            for name in names:
                replaced = f"UPDATE {table} SET {name} = replace({name}, ?, ?)"  # noqa: S608
                connection.execute(replaced, (str(old), str(new)))


def _config() -> NightlyConfig:
    """The tiny night in the current folder, with its source files outside of the workspace."""
    settings = tiny_settings(Path("workspace"))
    settings["synthetic"]["folder"] = "world"
    return NightlyConfig.model_validate(settings)


def _name_a_user(world: Path) -> None:
    """Give the name to the most active of the users of the first day who came on the last too."""
    days = [(path, pl.read_parquet(path)) for path in sorted((world / "interactions").iterdir())]
    first, last = (days[at][1]["user_id"].unique().implode() for at in (0, -1))
    known = days[0][1].filter(pl.col("user_id").is_in(last), pl.col("user_id").is_in(first))
    most = known["user_id"].mode().sort()[0]
    for path, rows in days:
        name = pl.when(pl.col("user_id") == most).then(pl.lit(NAMED_USER)).otherwise("user_id")
        rows.with_columns(name.alias("user_id")).write_parquet(path)
