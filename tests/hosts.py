# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The test hosts of an Ansible inventory, reached as Ansible reaches them, and the life beside incidents on them."""

from __future__ import annotations

import json
import shlex
import subprocess
import tarfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any, Optional


class Host:
    """One host, reached as Ansible reaches it."""

    def __init__(self, name: str, variables: dict[str, Any]) -> None:
        self.name = name
        self.variables = variables

    def run(self, script: str, *, user: str = "postgres", stdin: Optional[str] = None, check: bool = True) -> str:
        """Run a shell script as ``user`` and return what it printed; an error carries both outputs."""
        v = self.variables
        command = [
            "ssh",
            *shlex.split(str(v.get("ansible_ssh_common_args", "")) + " " + str(v.get("ansible_ssh_args", ""))),
        ]
        command += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        command += ["-o", "ControlPath=/tmp/dbre-e2e-%C"]
        if v.get("ansible_ssh_private_key_file"):
            command += ["-i", str(v["ansible_ssh_private_key_file"])]
        if v.get("ansible_port"):
            command += ["-p", str(v["ansible_port"])]
        command += [f"{v.get('ansible_user', 'root')}@{v.get('ansible_host', self.name)}"]
        command += [f"cd / && sudo -H -u {user} bash -c {shlex.quote(script)}"]
        done = subprocess.run(
            command, input=stdin, text=True, errors="backslashreplace", capture_output=True, timeout=300, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{self.name}: {script}\nrc {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout


def hosts_of(inventory: str) -> dict[str, Host]:
    """Every host of an inventory by its name."""
    words = ["ansible-inventory", "-i", inventory, "--list"]
    listing = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return {name: Host(name, variables) for name, variables in listing["_meta"]["hostvars"].items()}


class LifeOnHost:
    """The life beside (``tests/life``) on a server of a host, kept in ``folder`` there, which postgres owns."""

    def __init__(self, host: Host, folder: str, socket: str, port: int) -> None:
        self.host, self.folder = host, folder
        self._words = f"--socket {socket} --port {port}"

    def bring(self) -> None:
        packed = BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for path in sorted((Path(__file__).parent / "life").glob("*.py")):
                archive.add(path, f"life/{path.name}")
        unpack = "python3 -c 'import sys; sys.stdout.buffer.write(bytes.fromhex(sys.stdin.read()))' | tar x"
        self.host.run(f"mkdir -p {self.folder} && cd {self.folder} && {unpack}", stdin=packed.getvalue().hex())

    def start(self, *inside: str, pause: float = 1, seconds: float = 900) -> None:
        """Returns once its databases are there and its sessions work."""
        words = " ".join([self._words, *(f"--inside {name}" for name in inside)])
        words += f" --pause {pause} --seconds {seconds} --status {self.folder}/status.json"
        self.host.run(
            f"cd {self.folder} && rm -f status.json || exit 1;"
            f" nohup python3 -m life {words} > log 2>&1 < /dev/null & echo $! > pid;"
            "for i in $(seq 300); do test -e status.json && exit 0; sleep 0.1; done; cat log; exit 1"
        )

    def done(self) -> int:
        """How much of it was done until now."""
        return sum(json.loads(self.host.run(f"cat {self.folder}/status.json"))["done"].values())

    def wait_for(self, more: int, timeout: float = 60) -> None:
        """Wait until so much more of it is done."""
        end, goal = time.monotonic() + timeout, self.done() + more
        while self.done() < goal:
            said = self.host.run(f"cat {self.folder}/status.json {self.folder}/log")
            assert time.monotonic() < end, f"the life beside stands still: {said}"
            time.sleep(1)

    def stop(self) -> None:
        self.host.run(
            f"cd {self.folder} 2> /dev/null || exit 0; test -e pid || exit 0; kill $(cat pid) 2> /dev/null;"
            "for i in $(seq 200); do kill -0 $(cat pid) 2> /dev/null || break; sleep 0.1; done; rm pid"
        )

    def remove(self, *inside: str) -> None:
        """Remove all that lives have made on the server."""
        words = " ".join([self._words, *(f"--inside {name}" for name in inside)])
        self.host.run(f"cd {self.folder}; python3 -m life {words} --remove")
