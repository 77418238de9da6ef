"""A running emulator, as tests and the demo use it: started, asked, told what goes wrong, stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Callable, Optional

import boto3
import psycopg2
from botocore.config import Config

TESTS = Path(__file__).resolve().parents[1]
HOME, AWAY = "eu-central-1", "eu-west-1"
PASSWORD = "correct-horse-battery"


class EmulatedRds:
    """A running emulator, and the ways to it."""

    def __init__(self, url: str, state: Path) -> None:
        self.url, self.state = url, state
        self.ca = state / "ca.pem"

    def client(self, service: str = "rds", region: str = HOME, **settings: Any) -> Any:
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 1}, **settings),
        )

    def control(self, path: str, **body: Any) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}/_emulator/{path}", json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.state / "calls.jsonl").read_text().splitlines()]

    def create(self, identifier: str, region: str = HOME, **settings: Any) -> dict[str, Any]:
        """An instance with a database ``shop`` whose master user is ``boss``; available when this returns."""
        self.client(region=region).create_db_instance(
            DBInstanceIdentifier=identifier,
            **{
                "DBInstanceClass": "db.t4g.micro",
                "Engine": "postgres",
                "AllocatedStorage": 20,
                "DBName": "shop",
                "MasterUsername": "boss",
                "MasterUserPassword": PASSWORD,
                "BackupRetentionPeriod": 7,
                **settings,
            },
        )
        return self.available(identifier, region)

    def instance(self, identifier: str, region: str = HOME) -> dict[str, Any]:
        found: dict[str, Any] = self.client(region=region).describe_db_instances(DBInstanceIdentifier=identifier)
        return dict(found["DBInstances"][0])

    def available(self, identifier: str, region: str = HOME) -> dict[str, Any]:
        """Wait until the instance is available with nothing pending."""

        def ready() -> Optional[dict[str, Any]]:
            found = self.instance(identifier, region)
            assert found["DBInstanceStatus"] not in ("failed", "incompatible-restore"), found
            done = found["DBInstanceStatus"] == "available" and not found.get("PendingModifiedValues")
            return found if done else None

        return wait(ready)

    def sql(self, found: dict[str, Any], *statements: str, password: str = PASSWORD, database: str = "shop") -> Any:
        """Run statements as the master user, each its own transaction; the first value of the last one."""
        place: dict[str, Any] = {
            "host": found["Endpoint"]["Address"],
            "port": found["Endpoint"]["Port"],
            "dbname": database,
        }
        trust: dict[str, Any] = {"sslmode": "verify-full", "sslrootcert": str(self.ca)}
        with closing(psycopg2.connect(**place, **trust, user="boss", password=password)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return cursor.fetchone()[0] if cursor.description else None


def wait(ready: Callable[[], Any], seconds: float = 40) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        if found := ready():
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(state: Path, lag: float = 0.1, restorable_lag: float = 0.5) -> Iterator[EmulatedRds]:
    """An emulator of its own with everything it makes in ``state``; all of it is stopped at the end."""
    port = free_port()
    command = [sys.executable, "-m", "emulated_rds", "--port", str(port), "--state", str(state)]
    command += ["--lag", str(lag), "--restorable-lag", str(restorable_lag)]
    process = subprocess.Popen(command, cwd=TESTS, env=dict(os.environ), stdout=subprocess.DEVNULL)
    try:
        emulator = EmulatedRds(f"http://127.0.0.1:{port}", state)
        wait(lambda: _answers(emulator.url) or process.poll() is not None)
        assert process.poll() is None, "the emulator did not start"
        yield emulator
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        left = [path for path in state.glob("*/*/data/postmaster.pid") if path.exists()]
        assert not left, "the emulator left servers running"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/_emulator"):
            return True
    except OSError:
        return False
