# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run pgBackRest commands; everything that understands their output lives beside this file."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

Run = Callable[[list[str]], tuple[int, str, str]]

# Commands that act on one repository. The others (stanza-create, check, archive-push) always act on all of them
# and refuse --repo (pgBackRest: src/build/config/config.yaml).
REPO_COMMANDS = frozenset(
    ["annotate", "archive-get", "backup", "expire", "info", "repo-get", "repo-ls", "restore", "verify"]
)

# Status codes of a repository that could be read, whatever is or is not in it (pgBackRest: src/command/info/info.c).
REACHED = frozenset(range(4))

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "stanza": {"type": "str", "required": True},
    "config": {"type": "path"},
    "executable": {"type": "str", "default": "pgbackrest"},
    "repo": {"type": "int"},
}

_ERROR = re.compile(r"ERROR: \[(\d+)\]:? ?(.*)", re.DOTALL)
_LOG_PREFIX = re.compile(r"^(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ )?(?:P\d+ +)?(?=[A-Z]+:)")


def parse_version(text: str) -> tuple[int, int]:
    """Return (major, minor) from the text of `pgbackrest version`, e.g. `pgBackRest 2.55.1`."""
    found = re.search(r"\b(\d+)\.(\d+)", text)
    if not found:
        raise RecoveryError(f"This is not what 'pgbackrest version' prints: {text.strip()!r}. Is it pgBackRest?")
    return int(found.group(1)), int(found.group(2))


def parse_error(stderr: str, stdout: str = "") -> tuple[int | None, str]:
    """Return pgBackRest's error code and its text with the hints, from what a failed command printed.

    The last error counts: before it pgBackRest may report errors of single files that it then retried.
    Without an `ERROR: [nnn]` line (a crash, a missing program) the code is None and the text is all there was.
    """
    lines = [_LOG_PREFIX.sub("", line) for line in (stderr or stdout).strip().splitlines()]
    starts = [index for index, line in enumerate(lines) if line.startswith("ERROR: [")]
    if not starts:
        return None, "\n".join(lines).strip()
    end = starts[-1] + 1
    while end < len(lines) and not re.match(r"(?:ERROR|WARN|INFO|DETAIL|DEBUG|TRACE|ASSERT): ?", lines[end]):
        end += 1
    text = "\n".join(line.strip() for line in lines[starts[-1] : end])
    found = _ERROR.match(text)
    return (int(found.group(1)) if found else None), text


def parse_warnings(stderr: str) -> list[str]:
    """Return the messages that pgBackRest printed as `WARN:`, hints included."""
    warnings: list[str] = []
    open_message = False
    for line in (_LOG_PREFIX.sub("", line) for line in stderr.splitlines()):
        if line.startswith("WARN:"):
            warnings.append(line[len("WARN:") :].strip())
            open_message = True
        elif re.match(r"(?:ERROR|INFO|DETAIL|DEBUG|TRACE|ASSERT): ?", line):
            open_message = False
        elif open_message and line.strip():
            warnings[-1] += "\n" + line.strip()
    return warnings


def _advice(text: str) -> str:
    """What to look at, where pgBackRest's own words leave it open."""
    if "unable to write" in text or "No space left on device" in text:
        return " The file system of the repository may be full (df -h there). What was in the repository is untouched."
    return ""


def stanza_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """The options that say which stanza, and how to reach it (``ARGUMENT_SPEC``), among those of a module."""
    return {name: params[name] for name in ARGUMENT_SPEC if name in params}


def refuse_root(command: str, euid: int | None = None) -> None:
    """Raise when a command that writes would run as root.

    Its root-owned files in repository, lock or log directory would stop the server's own archiving.
    """
    if (os.geteuid() if euid is None else euid) == 0:
        raise RecoveryError(
            f"pgBackRest {command} must not run as root on {socket.gethostname()}: root-owned files would stop "
            "archiving. Nothing was done. Run it as the operating system user of PostgreSQL "
            "('become: true' with 'become_user: postgres')."
        )


class PgBackRest:
    """pgBackRest for one stanza, run by an injected runner as the user the runner has."""

    def __init__(
        self,
        run: Run,
        *,
        stanza: str,
        config: str | None = None,
        executable: str = "pgbackrest",
        repo: int | None = None,
    ) -> None:
        self._run = run
        self.stanza = stanza
        self.config = config
        self.executable = executable
        self.repo = repo
        self.warnings: list[str] = []

    def command(self, command: str, *options: str, repo: int | None = None) -> list[str]:
        """Return the argument vector of a command: no console log, warnings and errors on stderr without time."""
        argv = [self.executable, f"--stanza={self.stanza}"]
        if self.config:
            argv.append(f"--config={self.config}")
        repo = repo or self.repo
        if repo is not None and command in REPO_COMMANDS:
            argv.append(f"--repo={repo}")
        argv += ["--log-level-console=off", "--log-level-stderr=warn", "--no-log-timestamp"]
        return [*argv, *options, command]

    def run(self, command: str, *options: str, arguments: tuple[str, ...] = (), repo: int | None = None) -> str:
        """Run a command and return its standard output; raise RecoveryError with pgBackRest's own error text."""
        argv = [*self.command(command, *options, repo=repo), *arguments]
        rc, stdout, stderr = self._run(argv)
        self.warnings += parse_warnings(stderr)
        if rc != 0:
            code, text = parse_error(stderr, stdout)
            raise RecoveryError(
                f"pgBackRest {command} of stanza '{self.stanza}' failed on {socket.gethostname()} "
                f"with exit code {rc}: {text}{_advice(text)}",
                command=command,
                stanza=self.stanza,
                rc=rc,
                code=code,
                pgbackrest_error=text,
            )
        return stdout

    def version(self) -> tuple[int, int]:
        """Return (major, minor) of the installed pgBackRest."""
        rc, stdout, stderr = self._run([self.executable, "version"])
        if rc != 0:
            raise RecoveryError(
                f"'{self.executable} version' failed on {socket.gethostname()} with exit code {rc}: "
                f"{(stderr or stdout).strip()}. Is pgBackRest installed (role dbre.recovery.pgbackrest)?"
            )
        return parse_version(stdout)

    def info(self, set: str | None = None, patience: float | None = None) -> dict[str, Any]:
        """Return the stanza's object of `info --output=json`; of a stanza never made it has status code 1.

        With `set` (a backup label) it holds that backup only, in detail. `patience` are the seconds after which a
        repository that does not answer counts as unreachable, instead of pgBackRest's usual minute.
        """
        options = ["--output=json"] + ([f"--set={set}"] if set else [])
        options += [f"--io-timeout={patience:g}"] if patience else []  # 20.0 is refused from some version on
        stanzas = self._json(self.run("info", *options), "info")
        for stanza in stanzas:
            if stanza.get("name") == self.stanza:
                return dict(stanza)
        raise RecoveryError(f"'{self.executable} info' says nothing of stanza '{self.stanza}'.")

    def settle(self, patience: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Ask for the stanza, and from then on use one repository alone when others cannot be reached.

        Returns (info, the repositories that cannot be reached). Every command would wait for those, up to a minute
        each time.
        """
        info = self.info(patience=patience)
        repositories = info.get("repo") or []
        lost = [repo for repo in repositories if repo["status"]["code"] not in REACHED]
        if self.repo is None and lost and len(lost) < len(repositories):
            self.repo = next(repo["key"] for repo in repositories if repo not in lost)
        return info, lost

    def help(self, command: str, option: str) -> str:
        """Return the help text of an option; it shows the value in force as `current: <value>`."""
        argv = [self.executable, f"--stanza={self.stanza}", *([f"--config={self.config}"] if self.config else [])]
        rc, stdout, stderr = self._run([*argv, "help", command, option])
        if rc != 0:
            raise RecoveryError(
                f"'pgbackrest help {command} {option}' failed on {socket.gethostname()}: "
                f"{parse_error(stderr, stdout)[1]}"
            )
        return stdout

    def verify(self, repo: int | None = None, process_max: int | None = None) -> tuple[int, str, str]:
        """Exit status, text and log of `verify`, all of which must be understood: it exits 0 over errors.

        The names of bad files are logged as INFO. ``process_max``: processes, else as many as the host has configured.
        """
        processes = (f"--process-max={process_max}",) if process_max else ()
        argv = self.command("verify", "--output=text", "--verbose", *processes, repo=repo)
        return self._run(
            ["--log-level-stderr=info" if word.startswith("--log-level-stderr=") else word for word in argv]
        )

    def repo_ls(self, path: str, recurse: bool = False, repo: int | None = None) -> dict[str, Any]:
        """Return {name: {type, size, time}} below a path relative to the repository, e.g. `archive/main/15-1`."""
        options = ["--output=json"] + (["--recurse"] if recurse else [])
        return dict(self._json(self.run("repo-ls", *options, arguments=(path,), repo=repo), "repo-ls"))

    def repo_get(self, path: str, repo: int | None = None) -> str:
        """Return the text of a file at a path relative to the repository, decrypted where it is encrypted."""
        return self.run("repo-get", arguments=(path,), repo=repo)

    def _json(self, text: str, command: str) -> Any:
        try:
            # Not strict: a repository read with a wrong passphrase puts what it decrypted into the message.
            return json.loads(text, strict=False)
        except ValueError as error:
            raise RecoveryError(
                f"pgBackRest {command} of stanza '{self.stanza}' did not print JSON ({error}): {text[:200]!r}"
            ) from None
