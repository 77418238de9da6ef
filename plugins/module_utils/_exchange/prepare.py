# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove a restored cluster while production serves, and make it complete to take its place: files, links, settings."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._core.programs import run
from ansible_collections.dbre.recovery.plugins.module_utils._exchange.cluster import (
    READ_CATALOGUE,
    links_in,
    put_configuration,
)
from ansible_collections.dbre.recovery.plugins.module_utils._exchange.exchange import Exchange
from ansible_collections.dbre.recovery.plugins.module_utils._exchange.places import IN_PLACE
from ansible_collections.dbre.recovery.plugins.module_utils._exchange.recovery import recovery_settings, with_recovery
from ansible_collections.dbre.recovery.plugins.module_utils._side.controldata import control_value
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import TAKEN, SideInstance
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_ready import read_control
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import SideRecovery, ensure_state

_NAMES = "SELECT datname::text, datallowconn FROM pg_catalog.pg_database ORDER BY 1"


class Preparation:
    """One restored cluster, which is still a side instance."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.instance = SideInstance(exchange.require_side())

    def prepare(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """Ensure that it is proved and complete; the module's result."""
        wanted = {"lsn": str(target["value"]), "timeline": int(target["timeline"])}
        found = self.exchange.forget_unless_for(wanted)
        if found is not None and found.get("prepared"):
            serves = self.exchange.serves(found)
            return {"changed": False, "serves": serves, **self._in_use(serves), **found["prepared"]}
        proved = (found or {}).get("proved") or self._prove(target)
        marker = self.exchange.begin(self.instance.path, proved, wanted)
        known = marker["known"]
        if known["system_identifier"] != self.instance.marker()["system_identifier"]:
            raise RecoveryError(
                f"what is restored in {self.instance.path} is another cluster than {known['data']}. Nothing was moved."
            )
        self._check_pages(marker)
        self._sync(marker)
        # From here on it is not to be started by itself: its links lead to where production's lead.
        self.instance.write_marker({**self.instance.marker(), "state": TAKEN})
        self._link(marker)
        self._configure(marker, int(target["timeline"]), str(target["value"]))
        marker["prepared"] = {"reached": proved["reached"], "databases": proved["databases"], "pages": marker["pages"]}
        self.exchange.write(marker)
        return {"changed": True, "serves": True, **self._in_use(True), **marker["prepared"]}

    def _in_use(self, serves: bool) -> dict[str, Any]:
        return {"in_use": self.exchange.in_use() if serves else []}

    def _prove(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """Replay has stopped at the target, and a session in each database reads its catalogue."""
        if target["type"] != "lsn" or not target.get("exclusive"):
            raise RecoveryError(f"a cluster is brought to just before a position, not to {target}. Nothing was moved.")
        state = ensure_state(self.instance, "paused", target=target, timeout=self.exchange.asked.timeout)
        recovery = SideRecovery(self.instance, self.exchange.asked.timeout)
        names = recovery.rows(_NAMES)
        for name, lets_in in names:
            if lets_in:
                recovery.rows(READ_CATALOGUE, database=name)
        return {"reached": state["instance"]["reached"], "databases": [name for name, _lets_in in names]}

    def _check_pages(self, marker: dict[str, Any]) -> None:
        """Stop it, and have every page read."""
        if "pages" in marker:
            return
        side = self.instance.marker()
        self.instance.stop(side)
        state = control_value(read_control(self.instance, side["bin_dir"]), "Database cluster state")
        if state != "shut down in recovery":
            raise RecoveryError(
                f"the restored cluster in {self.instance.data} did not end in order ({state}). Nothing was moved. Run "
                "this again."
            )
        marker["pages"] = "not checked: data checksums are off"
        if marker["known"]["checksums"]:
            rc, stdout, stderr = run(
                [os.path.join(side["bin_dir"], "pg_checksums"), "--check", "-D", self.instance.data]
            )
            if rc != 0:
                raise RecoveryError(
                    f"the restored cluster in {self.instance.data} has damaged pages: {(stderr or stdout).strip()}. "
                    "Nothing was moved, and production serves. Remove it (dr-abandon), and restore another backup set "
                    "(dr_set)."
                )
            marker["pages"] = "every page has its checksum"
        self.exchange.write(marker)

    def _sync(self, marker: dict[str, Any]) -> None:
        """Have it on disk: a side instance runs without fsync."""
        if marker.get("synced"):
            return
        self._must([os.path.join(self.instance.marker()["bin_dir"], "initdb"), "--sync-only", "-D", self.instance.data])
        marker["synced"] = True
        self.exchange.write(marker)

    def _link(self, marker: Mapping[str, Any]) -> None:
        """Have its links lead where those of the cluster in use lead, and what they lead to lie beside that."""
        data = self.instance.data
        here = set(os.listdir(os.path.join(data, "pg_tblspc")))
        other = here ^ {os.path.basename(link) for link in marker["linked"] if link != "pg_wal"}
        if other:
            raise RecoveryError(
                f"tablespaces were made or dropped after the target (OID {', '.join(sorted(other))}), so that not each "
                "has a place to be exchanged in. Nothing was moved, and production serves. Restore over the cluster: "
                f"{IN_PLACE}"
            )
        waiting = {place["live"]: place["incoming"] for place in marker["places"]}
        for link, live in marker["linked"].items():
            incoming, ours = waiting[live], os.path.join(data, link)
            leads_to = live if link == "pg_wal" else os.path.dirname(live)
            if not os.path.isdir(incoming):
                scratch = f"{incoming}.part"
                shutil.rmtree(scratch, ignore_errors=True)
                if link == "pg_wal":
                    os.mkdir(scratch, 0o700)
                else:
                    self._must(["cp", "-a", os.path.join(os.path.realpath(ours), os.path.basename(live)), scratch])
                    self._must(["sync", "-f", scratch])
                os.rename(scratch, incoming)
            if os.path.realpath(ours) != leads_to:
                if os.path.isdir(ours) and not os.path.islink(ours):
                    shutil.rmtree(ours)
                else:
                    os.unlink(ours)
                os.symlink(leads_to, ours)
        # All WAL that it needs comes out of the archive, as it did here.
        wal = waiting[marker["linked"]["pg_wal"]] if "pg_wal" in marker["linked"] else os.path.join(data, "pg_wal")
        shutil.rmtree(wal)
        os.makedirs(os.path.join(wal, "archive_status"), mode=0o700)
        os.chmod(wal, 0o700)

    def _configure(self, marker: dict[str, Any], timeline: int, lsn: str) -> None:
        """Give it the configuration that production has now, and have it open where it was proved."""
        data, known = self.instance.data, marker["known"]
        put_configuration(known["data"], data, known["files"], links_in(known["data"]))
        settings = recovery_settings(marker["command"], timeline, lsn)
        with open(os.path.join(known["data"], "postgresql.auto.conf"), encoding="utf-8") as file:
            write_atomically(os.path.join(data, "postgresql.auto.conf"), with_recovery(file.read(), settings))
        for name in ("postgresql.auto.conf.production", "standby.signal", "postmaster.pid", "backup_label.old"):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(data, name))
        write_atomically(os.path.join(data, "recovery.signal"), "")
        marker["settings"] = settings
        self._must(["sync", "-f", data])

    def _must(self, argv: list[str]) -> None:
        rc, stdout, stderr = run(argv)
        if rc != 0:
            raise RecoveryError(
                f"{' '.join(argv)} failed on {self.instance.host}: {(stderr or stdout).strip()}. Nothing was moved, "
                "and production serves. Run this again when that is mended."
            )
