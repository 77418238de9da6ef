# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The crash of a copy that has a standby, while it is written to; and whether the standby took its place with all."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from datetime import datetime, timezone
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._core.programs import run
from ansible_collections.dbre.recovery.plugins.module_utils._drill.damage import COMMITS, SCHEMA, TABLE, DrilledCopy
from ansible_collections.dbre.recovery.plugins.module_utils._drill.pair import ROLES, Pair, unit_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import owner_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.lookup import find_relations, require_known
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name, parse_relation_list
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import translated_errors
from ansible_collections.dbre.recovery.plugins.module_utils._verification.clean_up import processes_below

with suppress(ImportError):  # connect() says so
    import psycopg2

CRASH = "crash"
START_TIMEOUT = 300  # seconds
WRITING_TIMEOUT = 60.0  # seconds that the commits may take
ENDING = 30.0  # seconds that killed processes have to be gone
_WRITE = f"INSERT INTO {SCHEMA}.{TABLE} VALUES (%s, pg_catalog.clock_timestamp()) RETURNING at"
# After the failover; the drill's own commits have other numbers.
_AFTERWARDS = -1


class DrilledPair(DrilledCopy):
    """The copy and its standby; the one that is to be the primary answers."""

    def __init__(self, path: str, database: str) -> None:
        super().__init__(path, database)
        self.pair = Pair(path)
        if "standby" not in self.marker:
            raise RecoveryError(
                f"the copy at {self.instance.path} on {self.instance.host} has no standby. Nothing was touched."
            )

    def crash(self, tables: Sequence[str], commits: int = COMMITS) -> dict[str, Any]:
        """Commit all the time, keep what is there and what was acknowledged, and kill the copy meanwhile."""
        isolation = self.pair.wait_streaming(START_TIMEOUT)
        with closing(self.session()) as connection, translated_errors():
            wanted = parse_relation_list(tables)
            found = find_relations(connection, wanted)
            require_known(found, [(item["schema"], item["name"]) for item in wanted], "table", connection)
            owners = {owner_of(connection, item["oid"]) for item in found.values()} or {self.marker["superuser"]}
            self.write(connection, min(owners), 0)
            before = self.look(connection, wanted)
            connection.rollback()
        written = self._killed(commits)
        at = datetime.now(timezone.utc).isoformat()
        write_atomically(self.kept, json.dumps({**before, "written": written}))
        return {
            "kind": CRASH,
            "tables": [display_name(item["schema"], item["name"]) for item in wanted],
            "names": [],
            "xid": None,
            "at": at,
            "rows": sum(int(one.get("rows") or 0) for one in before["content"].values()),
            "written": len(written),
            "isolation": isolation,
        }

    def _killed(self, commits: int) -> list[list[Any]]:
        """What was acknowledged until every process of the copy was killed, ``commits`` at least."""
        written: list[list[Any]] = []
        session = self.session()

        def live() -> None:
            with suppress(psycopg2.Error):
                for number in range(10**6):
                    at = value(session, _WRITE, (number,))
                    session.commit()
                    written.append([number, at.isoformat()])
                    time.sleep(0.001)

        life = threading.Thread(target=live, daemon=True)
        life.start()
        deadline = time.monotonic() + WRITING_TIMEOUT
        while len(written) < commits and life.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        self._kill()
        life.join(ENDING)
        if len(written) < commits:
            raise RecoveryError(
                f"only {len(written)} of {commits} rows were committed to the copy at {self.instance.path} on "
                f"{self.instance.host} before it was killed. Its log is {self.instance.log_file}."
            )
        return written

    def _kill(self) -> None:
        """End all at once, as when the machine loses power, but for what the kernel was given to write."""
        server = self.instance.pid()
        deadline = time.monotonic() + ENDING
        first = [server] if server is not None else []
        while processes := [*first, *(pid for pid in processes_below(self.instance.data) if pid not in first)]:
            for pid in processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise RecoveryError(f"processes {processes} of the copy on {self.instance.host} do not end by SIGKILL")
            first = []
            time.sleep(0.05)

    def compare(self) -> dict[str, Any]:
        """Whether the standby takes writes, has every acknowledged row, and stands where the copy was, alone."""
        old, self.instance = self.instance, self.pair.second
        self.marker = self.instance.marker()
        found = super().compare()
        wrong = [] if self._takes_writes() else ["the standby takes no writes"]
        how, alone = self._old_primary(old)
        wrong += [] if alone else [f"the old primary {how}"]
        return {
            **found,
            "equal": found["equal"] and not wrong,
            "different": [*found["different"], *wrong],
            "old_primary": how,
        }

    def _takes_writes(self) -> bool:
        try:
            with closing(self.session()) as connection:
                value(connection, _WRITE, (_AFTERWARDS,))
                connection.commit()
                return bool(rows(connection, f"SELECT 1 FROM {SCHEMA}.{TABLE} WHERE id = %s", (_AFTERWARDS,)))
        except (psycopg2.Error, RecoveryError):
            return False

    def _old_primary(self, old: Any) -> tuple[str, bool]:
        """What became of it, and whether it cannot take writes beside the new one."""
        service = unit_name(self.marker["standby"]["stanza"], ROLES[0])
        if os.path.exists(os.path.join(old.data, "standby.signal")):
            return "is a standby", True
        if old.pid() is not None:
            return "runs, and is no standby", False
        if not run(["systemctl", "is-enabled", service])[1].strip().startswith("masked"):
            return "is off, and may be started again", False
        return "is shut off, its unit masked", True

    @staticmethod
    def compared(connection: Any, before: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
        if key == "content" and not before["hit"]:
            return []
        return DrilledCopy.compared(connection, before, key)


def drilled(path: str, database: str) -> DrilledCopy:
    """What is drilled on at a path: a copy, or one with a standby."""
    copy = DrilledCopy(path, database)
    return DrilledPair(path, database) if "standby" in copy.marker else copy
