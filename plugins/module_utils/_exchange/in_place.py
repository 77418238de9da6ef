# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore over a cluster, where there is no room for a second one. What only it has is copied before."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import SIDE_INSTANCE
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._core.programs import run
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import size
from ansible_collections.dbre.recovery.plugins.module_utils._exchange import places
from ansible_collections.dbre.recovery.plugins.module_utils._exchange.cluster import (
    Known,
    links_in,
    look,
    put_configuration,
)
from ansible_collections.dbre.recovery.plugins.module_utils._exchange.exchange import (
    GUARD,
    GUARDED,
    Exchange,
    result_of,
    told_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._exchange.recovery import recovery_settings, with_recovery
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.archive import StanzaArchive
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import parse_error
from ansible_collections.dbre.recovery.plugins.module_utils._side.neighbours import tablespaces_here
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import now
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_restore import Asked as Restore
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_restore import SideRestore, existing_parent

AUTO = "postgresql.auto.conf"


class _Proof(SideRestore):
    """What a restore beside looks at before it begins, but for the room that it would take there."""

    def check_path(self, marker: Optional[Mapping[str, Any]]) -> None:
        """Nothing is made beside."""

    def plan_disk(
        self,
        backup: Mapping[str, Any],
        without: list[dict[str, Any]],
        wal_bytes: int,
        marker: Optional[Mapping[str, Any]],
    ) -> dict[str, Any]:
        """The disk has what it has."""
        return {"path": self.instance.path, "needed": 0, "free": 0}


class InPlace:
    """One restore over a cluster."""

    def __init__(
        self, exchange: Exchange, target: Mapping[str, Any], *, chosen: Optional[str] = None, repo: Optional[int] = None
    ) -> None:
        """``chosen`` is the label of the backup set, without one the newest that leads to the target."""
        if target["type"] != "lsn" or not target.get("exclusive"):
            raise RecoveryError(
                f"a cluster is brought to just before a position, not to {target}. Nothing was changed."
            )
        self.exchange, self.target, self.chosen, self.repo = exchange, target, chosen, repo

    def proof(self, known: Known, *, may_wait: bool) -> dict[str, Any]:
        """The backup set is whole, and the archive leads from it to the target; RecoveryError where it does not."""
        asked = self.exchange.asked
        restore = Restore(
            path=self.exchange.require_side(),
            stanza=asked.stanza,
            target=self.target,
            incident=asked.incident,
            config=asked.config,
            executable=asked.executable,
            repo=self.repo,
            set=self.chosen,
            system_identifier=known["system_identifier"],
            major_version=known["major"],
            bin_dir=known["bin_dir"],
            # Looked for on the disk, for the server may be stopped by now. Replay into files that are newer than the
            # backup set leaves them as they are.
            production_tablespaces=tablespaces_here(int(known["system_identifier"]), [known["data"]]),
        )
        plan = _Proof(restore, run).plan(None, may_wait=may_wait)
        return {**plan, "shown": [item for item in plan["shown"] if item["label"] not in (SIDE_INSTANCE, "Disk")]}

    def plan(self) -> dict[str, Any]:
        """What would be overwritten; RecoveryError where it cannot work."""
        exchange = self.exchange
        known = look(exchange.login, exchange.asked.bin_dir)
        data = known["data"]
        keep = places.keep_of(data, exchange.asked.incident)
        if not os.access(os.path.dirname(data), os.W_OK | os.X_OK):
            keep = f"{exchange.require_side()}.before"
        exchange.refuse_another(keep)
        if len(keep) > places.LONGEST_KEEP:
            raise RecoveryError(
                f"{keep} is too long for a socket below it. Nothing was changed. Give the incident a shorter name "
                "(dr_incident_id)."
            )
        stat = os.statvfs(existing_parent(keep))
        free, wal = stat.f_bavail * stat.f_frsize, _bytes_of(os.path.join(data, "pg_wal"))
        if wal > free:
            raise RecoveryError(
                f"there is no room on {exchange.host} for a copy of what is in pg_wal: {size(wal)} are needed for "
                f"{keep}, {size(free)} are free. Nothing was changed. Make room."
            )
        return {
            **told_of(known),
            "keep": keep,
            "in_use": exchange.in_use(),
            "needed": wal,
            "free": free,
            "restore_plan": self.proof(known, may_wait=True),
            "lines": self._lines(known, keep, wal),
        }

    def _lines(self, known: Known, keep: str, wal: int) -> list[str]:
        """What would be done, for people."""
        data, target = known["data"], self.target["value"]
        stop = f"the server is stopped before (by {known['unit'] or 'pg_ctl'})"
        kept = f"{size(wal)} of pg_wal and the control file are copied to {keep}"
        return [
            f"THE WHOLE CLUSTER IN {data}, all databases, IS OVERWRITTEN by what it was just before {target}",
            "it goes on from there on a new timeline, and nothing of what it is now is kept but its WAL",
            f"-e dr_overwrite={data} has to be given beside dr_confirm",
            f"{stop}. CLIENTS ARE WITHOUT A DATABASE for as long as the restore and the replay take",
            f"all its WAL is archived, and {kept}; with the backups, what it is now can be had again elsewhere",
            *self.exchange.hanging_on(known),
        ]

    def overwrite(self) -> dict[str, Any]:
        """Ensure that the data directory is the restored one, ready to replay to the target, not started."""
        exchange = self.exchange
        marker = exchange.marker()
        if marker.get("overwritten"):
            return {"changed": False, **result_of(marker)}
        server = exchange.server(marker)
        if not marker.get("overwriting"):
            exchange.end(marker, server)
            self._salvage(marker)
            plan = self.proof(marker["known"], may_wait=False)
            marker["restore"] = {"set": plan["set"]["label"], "repo": plan["set"]["repo"]}
            marker["target"] = {"lsn": str(self.target["value"]), "timeline": int(self.target["timeline"])}
            marker["overwriting"] = now()
            exchange.write(marker)
        if server.pid() is not None:
            raise RecoveryError(
                f"somebody has started the server in {server.data} on {exchange.host}. Stop it, and run this again."
            )
        # Nothing starts in a directory that is half the one and half the other.
        guarded = os.path.join(server.data, GUARDED)
        if os.path.exists(guarded):
            os.rename(guarded, os.path.join(server.data, GUARD))
        self._restore(marker)
        self._configure(marker)
        marker["overwritten"] = now()
        exchange.write(marker)
        return {"changed": True, **result_of(marker)}

    def _salvage(self, marker: dict[str, Any]) -> None:
        """Copy, and archive, what only this directory has: WAL to the last byte, the control file, configuration."""
        if marker.get("salvaged"):
            return
        exchange, data = self.exchange, marker["known"]["data"]
        wal = os.path.join(data, "pg_wal")
        status = os.path.join(wal, "archive_status")
        archive = StanzaArchive(
            exchange.asked.stanza, config=exchange.asked.config, executable=exchange.asked.executable
        )
        for name in sorted(os.listdir(status)):
            if name.endswith(".ready"):
                archive.push(os.path.join(wal, name[: -len(".ready")]))
        copy = os.path.join(exchange.keep, "pg_wal")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(os.path.realpath(wal), copy)
        config = os.path.join(exchange.keep, "config")
        for name in (*marker["known"]["files"], AUTO, GUARDED):
            os.makedirs(os.path.dirname(os.path.join(config, name)), mode=0o700, exist_ok=True)
            shutil.copy2(os.path.join(data, name), os.path.join(config, name))
        rc, stdout, stderr = run(["sync", "-f", exchange.keep])
        if rc != 0:
            raise RecoveryError(f"sync {exchange.keep}: {(stderr or stdout).strip()}. Nothing was overwritten.")
        marker["links"] = links_in(data)
        marker["salvaged"] = now()
        exchange.write(marker)

    def _restore(self, marker: Mapping[str, Any]) -> None:
        exchange, target = self.exchange, marker["target"]
        asked = exchange.asked
        argv = [shutil.which(asked.executable) or asked.executable, f"--stanza={asked.stanza}"]
        argv += [f"--config={asked.config}"] if asked.config else []
        argv += [f"--set={marker['restore']['set']}", f"--repo={marker['restore']['repo']}", "--delta"]
        argv += ["--type=lsn", f"--target={target['lsn']}", "--target-exclusive", "--target-action=promote"]
        argv += [f"--target-timeline={target['timeline']}", f"--pg1-path={marker['known']['data']}"]
        # Of no other link (--link-all): what it leads to would become as it was, and what is newer there be removed.
        argv += [f"--link-map=pg_wal={marker['linked']['pg_wal']}"] if "pg_wal" in marker["linked"] else []
        rc, stdout, stderr = run([*argv, "--log-level-console=warn", "--log-level-stderr=off", "restore"])
        if rc != 0:
            raise RecoveryError(
                f"pgBackRest could not restore over {marker['known']['data']} on {exchange.host} (exit code {rc}): "
                f"{parse_error(stderr, stdout)[1]}. The cluster is overwritten in part, and nothing starts in it; all "
                f"of its WAL is in the archive and in {exchange.keep}. Remove the cause and run this again: it goes on."
            )

    def _configure(self, marker: dict[str, Any]) -> None:
        """Give it the configuration that it had, and have it open at the target."""
        data, config = marker["known"]["data"], os.path.join(self.exchange.keep, "config")
        put_configuration(config, data, marker["known"]["files"], marker["links"])
        settings = recovery_settings(marker["command"], marker["target"]["timeline"], marker["target"]["lsn"])
        with open(os.path.join(config, AUTO), encoding="utf-8") as file:
            write_atomically(os.path.join(data, AUTO), with_recovery(file.read(), settings))
        write_atomically(os.path.join(data, "recovery.signal"), "")
        marker["settings"] = settings


def _bytes_of(path: str) -> int:
    total = 0
    for directory, _directories, names in os.walk(os.path.realpath(path)):
        total += sum(os.lstat(os.path.join(directory, name)).st_blocks * 512 for name in names)
    return total
