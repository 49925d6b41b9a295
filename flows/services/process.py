"""Background processes: start one, find it from another command, stop it with its children.

A service is identified by process id and creation time, because ids are reused. Its children are
identified by a mark in their environment, which remains when their parent is killed.
"""

import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from recsys_core.artifacts import read_json, write_json

MARK = "RECDISTILL_SERVICE"
LOOPBACK = "127.0.0.1"
_STOP_SECONDS = 15
_POLL_SECONDS = 0.25
_CLOCK_TOLERANCE_SECONDS = 1.0
_SHOWN_LOG_LINES = 15


class ServiceError(RuntimeError):
    """A service can't be started or reached; the message says which, why and what to do."""


@dataclass(frozen=True)
class Service:
    """One background process of a workspace.

    Attributes:
        workspace: Folder of everything that nights write, absolute.
        name: Stem of its files.
        title: Name in messages.
    """

    workspace: Path
    name: str
    title: str

    @property
    def log(self) -> Path:
        """The file that takes what the process prints."""
        return self.workspace / "logs" / f"{self.name}.log"

    @property
    def url(self) -> str | None:
        """The address that it was started with; None for a service without one."""
        return self._record().get("url")

    @property
    def running(self) -> psutil.Process | None:
        """The process, or None if it has ended."""
        record = self._record()
        try:
            process = psutil.Process(record["pid"])
            same = abs(process.create_time() - record["created"]) < _CLOCK_TOLERANCE_SECONDS
            alive = same and process.status() != psutil.STATUS_ZOMBIE
        except (KeyError, psutil.NoSuchProcess):
            return None
        return process if alive else None

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], *, url: str | None = None
    ) -> subprocess.Popen[bytes]:
        """Start the process in the background; it outlives this command.

        Args:
            command: Program and arguments.
            environment: All of its environment.
            url: Where it will answer.

        Returns:
            The child process, for callers that wait for its end.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".previous.log"))
        with self.log.open("w", encoding="utf-8") as log:
            child = subprocess.Popen(  # noqa: S603 - the commands are our own
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, MARK: self._mark},
                start_new_session=True,
            )
        created = psutil.Process(child.pid).create_time()
        write_json(self._file, {"pid": child.pid, "created": created, "url": url})
        return child

    def wait(self, healthy: Callable[[], bool], *, timeout_seconds: float = 180) -> None:
        """Wait until the service is healthy.

        Args:
            healthy: Polled until it is true.
            timeout_seconds: Longest wait.

        Raises:
            ServiceError: The process ended, or time ran out; the message shows the end of its log.
        """
        deadline = time.monotonic() + timeout_seconds
        while not healthy():
            if not self.running:
                problem = "ended"
            elif time.monotonic() > deadline:
                problem = f"is not healthy after {timeout_seconds:.0f} s"
            else:
                time.sleep(_POLL_SECONDS)
                continue
            msg = f"The {self.title} {problem}. {self.log} ends with:\n{self._last_lines()}"
            raise ServiceError(msg)

    def stop(self) -> bool:
        """Stop the process and all its children: terminate first, then kill.

        Returns:
            Whether anything was running.
        """
        leader = self.running
        members = self._members()
        if leader is not None:
            members = list({*members, leader, *leader.children(recursive=True)})
            leader.terminate()
            psutil.wait_procs([leader], timeout=_STOP_SECONDS)
        for signal in ("terminate", "kill"):
            # What ended meanwhile is skipped by psutil, even where its id is in use again.
            rest = [process for process in members if process.is_running()]
            for process in rest:
                _send(process, signal)
            psutil.wait_procs(rest, timeout=_STOP_SECONDS)
        self._file.unlink(missing_ok=True)
        return bool(members)

    @property
    def _file(self) -> Path:
        return self.workspace / "services" / f"{self.name}.json"

    @property
    def _mark(self) -> str:
        return f"{self.name}:{self.workspace}"

    def _last_lines(self) -> str:
        with self.log.open(encoding="utf-8", errors="replace") as lines:
            return "".join(deque(lines, _SHOWN_LOG_LINES)).rstrip()

    def _record(self) -> dict:
        return read_json(self._file) if self._file.exists() else {}

    def _members(self) -> list[psutil.Process]:
        """All processes with this service's mark, also those whose parent has ended."""
        members = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self._mark:
                    members.append(process)
            except (psutil.Error, OSError):
                continue
        return members


def require_free_port(port: int, *, title: str, option: str) -> None:
    """Check that a service can listen.

    Raises:
        ServiceError: Another program listens there.
    """
    with socket.socket() as probe:
        # Without it, connections that were closed a moment ago would count as a listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            msg = (
                f"Port {port} is taken by another program, so {title} can't listen there. "
                f"Stop that program, or choose another port with {option}."
            )
            raise ServiceError(msg) from error


def _send(process: psutil.Process, signal: str) -> None:
    try:
        getattr(process, signal)()
    except psutil.NoSuchProcess:
        return
