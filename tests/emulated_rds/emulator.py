"""What all regions of one emulated RDS share: programs, state directory, lags, faults, threads at work."""

from __future__ import annotations

import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, Optional

from .control import Faults
from .postgres import Archive, PostgresError, Programs, Server, address
from .tls import Authority

# A step of work on a resource: the status it shows meanwhile, and what is really done (None: time passes only).
Step = tuple[str, Optional[Callable[[], None]]]


class Emulator:
    """The machine room."""

    def __init__(self, programs: Programs, state: Path, port: int, lag: float, restorable_lag: float) -> None:
        self.programs, self.state, self.port = programs, state, port
        self.lag, self.restorable_lag = lag, timedelta(seconds=restorable_lag)
        self.authority = Authority(state / "ca.pem")
        self.faults = Faults()
        self.lock = threading.RLock()  # held by API calls and while a thread changes what they read
        self.servers: list[Server] = []
        self.backups: list[Any] = []  # automated backups that follow another region
        self._lost: list[Server] = []
        self._stopping = threading.Event()

    # --- places and names --------------------------------------------------------------------------------------------

    def server(self, owner: Any, *place: str) -> Server:
        server = Server(self.programs, self.authority, self.state.joinpath(*place), self.state / "s", owner)
        self.servers.append(server)
        return server

    def archive(self, *place: str) -> Archive:
        archive = Archive(self.programs, self.state.joinpath(*place))
        archive.make()
        return archive

    def forget(self, server: Server) -> None:
        server.delete()
        if server in self.servers:
            self.servers.remove(server)

    def address(self, region: str, *name: str) -> str:
        """The emulator's own port is part of it: two emulators on one machine never meet."""
        return address(self.port, region, *name)

    # --- work --------------------------------------------------------------------------------------------------------

    def work(self, resource: Any, steps: Iterable[Step], last: str = "available", failed: str = "failed") -> None:
        """Do the steps in a thread, each at least the lag long, one piece of work on a resource after the other."""

        def run() -> None:
            with resource.turn:
                try:
                    for status, action in steps:
                        with self.lock:
                            resource.status = status
                        time.sleep(self.lag)
                        if action:
                            action()
                    resource.status = last
                except Exception as error:
                    if not self._stopping.is_set():
                        resource.status = failed
                        print(f"{resource.arn}: {failed}", file=sys.stderr)
                        if not isinstance(error, PostgresError):
                            traceback.print_exc()
                        else:
                            print(error, file=sys.stderr, flush=True)

        threading.Thread(target=run, daemon=True).start()

    def replicate_backups(self) -> None:
        """Copy what is new of automated backups into the other regions, until the end."""
        while not self._stopping.wait(max(0.5, self.restorable_lag.total_seconds() / 2)):
            for backup in list(self.backups):
                try:
                    backup.replicate()
                except (OSError, PostgresError):
                    traceback.print_exc()

    # --- regions -----------------------------------------------------------------------------------------------------

    def lose(self, region: str) -> None:
        """A region is gone: its API answers no more, its servers stop hard."""
        with self.lock:
            self.faults.lost.add(region)
        for server in self._servers_of(region):
            if server.running:
                server.stop("immediate")
                self._lost.append(server)

    def regain(self, region: str) -> None:
        """The region is back, with the servers that ran when it was lost."""
        for server in self._servers_of(region):
            if server in self._lost:
                self._lost.remove(server)
                server.start()
        with self.lock:
            self.faults.lost.discard(region)

    def fill_storage(self, region: str, identifier: str) -> None:
        """An instance without room: its server is down until ModifyDBInstance allocates more."""
        for server in self._servers_of(region):
            instance = server.owner
            if instance is not None and instance.resource_id == identifier:
                server.stop()
                instance.status = "storage-full"
                return
        raise KeyError(f"no instance {identifier} in {region}")

    def _servers_of(self, region: str) -> list[Server]:
        return [server for server in self.servers if server.home.is_relative_to(self.state / region)]

    def stop(self) -> None:
        """Stop every server, all at once."""
        self._stopping.set()
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda server: server.stop("immediate"), list(self.servers)))
        shutil.rmtree(self.state / "s", ignore_errors=True)
