"""Starts and stops the emulator: moto's server with our RDS in it, behind a log of calls and the control requests."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Optional
from urllib.parse import parse_qsl

import moto.rds.models
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from .backend import Backend
from .control import UnknownControl, control
from .emulator import Emulator
from .postgres import Programs

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

MARKER = "emulated-rds"  # a file that says: this directory is an emulator's
SECRETS = re.compile("password|presignedurl|secretstring", re.IGNORECASE)


class Gate:
    """Every request passes here: control requests are answered, AWS calls written down, refused or passed on."""

    def __init__(self, emulator: Emulator, application: Callable[..., Iterable[bytes]]) -> None:
        self.emulator, self.application = emulator, application
        self._calls = (emulator.state / "calls.jsonl").open("a", encoding="utf-8")
        self._writing = threading.Lock()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        path = environ.get("PATH_INFO", "")
        if path.startswith("/_emulator"):
            return self._control(path[len("/_emulator") :], body, start_response)
        service, region = _signed_for(environ)
        action, parameters = _action(environ, body)
        call = {"service": service, "region": region, "action": action, "parameters": parameters}
        if region in self.emulator.faults.lost:
            message = f"The region {region} is lost"
            return self._refuse(call, "503 Service Unavailable", "ServiceUnavailable", message, start_response)
        if self.emulator.faults.throttles(action):
            return self._refuse(call, "400 Bad Request", "Throttling", "Rate exceeded", start_response)
        answered: list[str] = []

        def started(status: str, headers: Any, *rest: Any) -> Any:
            answered.append(status)
            return start_response(status, headers, *rest)

        try:
            content = b"".join(self.application(environ, started))
        except Exception as mistake:  # the emulator's own
            traceback.print_exc()
            return self._refuse(call, "500 Internal Server Error", "InternalFailure", repr(mistake), start_response)
        error = re.search(rb"<Code>([^<]+)</Code>", content) if not answered[0].startswith("2") else None
        self._write(call, int(answered[0].split()[0]), error.group(1).decode() if error else None)
        return [content]

    def _control(self, path: str, body: bytes, start_response: StartResponse) -> Iterable[bytes]:
        try:
            answer, status = control(self.emulator, path, json.loads(body or b"{}")), "200 OK"
        except (UnknownControl, ValueError, KeyError) as error:
            answer, status = {"error": str(error)}, "404 Not Found"
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]

    def _refuse(self, call: Any, status: str, code: str, message: str, start_response: StartResponse) -> list[bytes]:
        self._write(call, int(status.split()[0]), code)
        start_response(status, [("Content-Type", "text/xml"), ("x-amzn-ErrorType", code)])
        error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
        return [f"<ErrorResponse>{error}<RequestId>emulated</RequestId></ErrorResponse>".encode()]

    def _write(self, call: dict[str, Any], status: int, error: Optional[str]) -> None:
        with self._writing:
            self._calls.write(json.dumps({"time": time.time(), **call, "status": status, "error": error}) + "\n")
            self._calls.flush()


def _signed_for(environ: Environ) -> tuple[str, str]:
    """Service and region that the request's signature names."""
    found = re.search(r"Credential=[^/]+/\d+/([^/]+)/([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
    return (found.group(2), found.group(1)) if found else ("", "")


def _action(environ: Environ, body: bytes) -> tuple[str, dict[str, Any]]:
    """Action and parameters as sent, without secrets: ``{"Tags.Tag.1.Key": "tier"}`` in the query protocol."""
    target = environ.get("HTTP_X_AMZ_TARGET")
    if target:
        parameters = json.loads(body or b"{}")
        action = target.rpartition(".")[2]
    else:
        parameters = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        action = parameters.pop("Action", "")
        parameters.pop("Version", None)
    return action, {name: "***" if SECRETS.search(name) else value for name, value in parameters.items()}


class Quiet(WSGIRequestHandler):
    """No line for each request: calls.jsonl has them."""

    protocol_version = "HTTP/1.1"

    def log_request(self, *_: Any) -> None:
        return


def serve(programs: Programs, state: Path, port: int, lag: float, restorable_lag: float) -> None:
    """Run until SIGTERM or SIGINT, then stop every server."""
    prepare(programs, state)
    emulator = Emulator(programs, state, port, lag, restorable_lag)
    Backend.emulator = emulator
    moto.rds.models.rds_backends.backend = Backend
    os.environ.setdefault("MOTO_PORT", str(port))
    gate = Gate(emulator, DomainDispatcherApplication(_create_application))
    server = make_server("127.0.0.1", port, gate, threaded=True, request_handler=Quiet)
    (state / "pid").write_text(str(os.getpid()))
    threading.Thread(target=emulator.replicate_backups, daemon=True).start()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"emulated RDS (PostgreSQL {programs.version}) on http://127.0.0.1:{port}, state in {state}", flush=True)
    try:
        server.serve_forever()
    finally:
        emulator.stop()
        (state / "pid").unlink(missing_ok=True)


def _create_application(service: Any) -> Any:
    """moto's, with the emulator's own mistakes printed."""
    application = create_backend_app(service)
    application.config["PROPAGATE_EXCEPTIONS"] = True
    return application


def prepare(programs: Programs, state: Path) -> None:
    """Make an empty state directory; what an earlier emulator left there goes."""
    if len(str(state)) > 75:
        raise SystemExit(f"{state} is too long a path: a Unix socket's path has at most 107 characters")
    if state.exists() and any(state.iterdir()) and not (state / MARKER).exists():
        raise SystemExit(f"{state} is not empty and no emulator made it: choose another directory")
    clean(programs, state)
    programs.own(programs.directory(state), 0o755)
    (state / MARKER).touch()
    try:
        programs.run("test", "-w", state)
    except Exception:
        raise SystemExit(f"the user {programs.user} cannot reach {state}: its parents must be open to it") from None


def clean(programs: Programs, state: Path) -> None:
    """Stop the emulator of this directory and every server below it, and delete it."""
    if not (state / MARKER).exists():
        return
    pid_file = state / "pid"
    if pid_file.exists():
        pid = int(pid_file.read_text())
        if _is_emulator(pid):
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + 60
            while _is_emulator(pid) and time.monotonic() < deadline:
                time.sleep(0.05)
    for postmaster in state.glob("*/*/data/postmaster.pid"):  # an emulator that was killed left its servers
        try:
            programs.run("pg_ctl", "stop", "-m", "immediate", "-s", "-D", postmaster.parent)
        except Exception as error:
            print(error, file=sys.stderr)
    shutil.rmtree(state)


def _is_emulator(pid: int) -> bool:
    try:
        return b"emulated_rds" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
