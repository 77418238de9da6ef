# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only an old primary has: kept and listed before anything is done to its disk, and whether there is any.

A crashed primary whose valid WAL does not go beyond where the new timeline began has nothing of its own. It can stream
from the new primary as it is: its pages are not ahead of its WAL, and that WAL is in the new timeline's past.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import sync_directory, write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn, parse_lsn, parse_segment_name
from ansible_collections.dbre.recovery.plugins.module_utils._core.programs import ENVIRONMENT
from ansible_collections.dbre.recovery.plugins.module_utils._failover.last_rows import end_left_behind, keep_rows
from ansible_collections.dbre.recovery.plugins.module_utils._failover.survey import Place, find_place, read_control
from ansible_collections.dbre.recovery.plugins.module_utils._failover.wal_end import read_end, segments_in
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir
from ansible_collections.dbre.recovery.plugins.module_utils._side.controldata import control_value
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import server_pid
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import (
    count_changes,
    count_inserts,
    count_rows,
    subxacts_of,
)

REJOIN, RESTORE, FOLLOWS = "rejoin", "restore", "follows"
_TOLD = 100
_COMMIT = re.compile(
    rb"tx: +(\d+), lsn: [^\n]*?, desc: "
    rb"COMMIT(?:_PREPARED (\d+):)? (\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d\.\d{6}) UTC([^\n]*)"
)
_KEPT_ALSO = ("global/pg_control", "postgresql.auto.conf", "backup_label")


def judge(end: Optional[int], checkpoint: int, fork: int) -> str:
    """Whether an old primary can stream from the new one as it is, or has left it and must be restored.

    ``end`` is where its valid WAL ends, ``checkpoint`` the last one that its control file tells of, ``fork`` where the
    new timeline began. A checkpoint beyond the end says that WAL was there which is not valid any more.
    """
    known = end if end is not None else checkpoint
    return REJOIN if known <= fork and checkpoint <= known else RESTORE


def prepare(
    port: int,
    fork_lsn: str,
    timeline: int,
    keep: str,
    *,
    superuser: str,
    data: Optional[str],
    bin_dir: Optional[str],
    check_mode: bool,
) -> dict[str, Any]:
    """Keep and list what only the old primary has, and make it a standby where that is nothing; the module's result.

    ``timeline`` is the old one, ``keep`` a directory to be made. RecoveryError where a server runs there.
    """
    place = find_place(port, data, None)
    if not check_mode:
        end_left_behind(place.data, keep)
    if server_pid(place.data) is not None:
        if os.path.exists(os.path.join(place.data, "standby.signal")):
            return {"changed": False, "way": FOLLOWS, "kept": "", "own": {}}
        raise RecoveryError(
            f"a server that is no standby runs in {place.data} on {socket.gethostname()}, which was to be shut off. It "
            "was not touched. See who writes to it, stop it, and run this again with the same dr_incident_id."
        )
    signal = os.path.join(place.data, "standby.signal")
    if os.path.exists(signal) or os.path.exists(f"{place.data.rstrip('/')}.restoring"):
        # An earlier run came so far.
        if os.path.isdir(keep):
            return {"changed": False, "way": RESTORE, "kept": keep, "own": _told(_kept(keep))}
        return {"changed": False, "way": REJOIN, "kept": "", "own": {}}
    programs = find_bin_dir(place.major, bin_dir)
    control = read_control(programs, place.data)
    fork, size = parse_lsn(fork_lsn), int(control_value(control, "Bytes per WAL segment"))
    checkpoint = parse_lsn(control_value(control, "Latest checkpoint location"))
    wal = os.path.join(place.data, "pg_wal")
    redo = parse_lsn(control_value(control, "Latest checkpoint's REDO location"))
    end = read_end(programs, wal, timeline, min(redo, fork), size).end
    way = judge(end, checkpoint, fork)
    own: dict[str, Any] = {}
    if way == RESTORE and os.path.isdir(keep):
        # An earlier run may have started its server since, which wrote WAL of its own.
        own = _kept(keep)
    elif way == RESTORE:
        own = _own(_dump(programs, wal, timeline, fork), fork, end)
    if not check_mode:
        if way == RESTORE and not os.path.isdir(keep):
            _keep(place.data, wal, timeline, fork, size, keep, own)
        if own.get("transactions") and "rows" not in own:
            text = _dump(programs, os.path.join(keep, "pg_wal"), timeline, fork)
            own.update(_rows(place, programs, keep, superuser, control, text))
            write_atomically(os.path.join(keep, "transactions.json"), json.dumps(own, indent=1) + "\n")
        # From here on it takes no writes, whoever starts it.
        write_atomically(signal, "")
    return {"changed": True, "way": way, "kept": keep if way == RESTORE else "", "own": _told(own)}


def _rows(
    place: Place, programs: str, keep: str, superuser: str, control: Mapping[str, str], text: bytes
) -> dict[str, Any]:
    """What the transactions left in tables, copied; or why not, where the server does not start. The WAL is kept."""
    counted: Counter[tuple[tuple[int, int, int], int, str]] = Counter()
    count_changes(text, counted)
    xids = committed_in(text)
    files = {file for file, xid, kind in counted if xid in xids and kind != "delete"}
    try:
        return {
            "rows": keep_rows(place, programs, keep, superuser, control, xids, files) if files else [],
            "unread": "",
        }
    except RecoveryError as error:
        return {"rows": [], "unread": error.msg}


def committed_in(text: bytes) -> set[int]:
    """Transactions and subtransactions that were committed in pg_waldump's text."""
    found: set[int] = set()
    for own, prepared, _day, _clock, rest in _COMMIT.findall(text):
        found.update((int(prepared or own), *subxacts_of(rest)))
    return found


def _dump(programs: str, wal: str, timeline: int, fork: int) -> bytes:
    """What pg_waldump tells of all valid WAL behind the fork."""
    argv = [os.path.join(programs, "pg_waldump"), f"--path={wal}", f"--timeline={timeline}"]
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        [*argv, f"--start={format_lsn(fork)}"], capture_output=True, check=False, env={**os.environ, **ENVIRONMENT}
    )
    return done.stdout


def _own(text: bytes, fork: int, end: Optional[int]) -> dict[str, Any]:
    """Transactions behind the fork: ``{from, end, bytes, transactions: [{xid, time, rows}]}``."""
    return {
        "from": format_lsn(fork),
        "end": None if end is None else format_lsn(end),
        "bytes": max((end or fork) - fork, 0),
        "transactions": transactions_in(text),
    }


def transactions_in(text: bytes) -> list[dict[str, Any]]:
    """Transactions that were committed in pg_waldump's text, with the rows that each inserted, updated and deleted."""
    inserted: Counter[int] = Counter()
    touched: Counter[tuple[int, str]] = Counter()
    count_inserts(text, inserted)
    count_rows(text, touched)
    found = []
    for own, prepared, day, clock, rest in _COMMIT.findall(text):
        xid = int(prepared or own)
        xids = (xid, *subxacts_of(rest))
        rows = {
            "insert": sum(inserted[each] for each in xids),
            "update": sum(touched[each, "update"] for each in xids),
            "delete": sum(touched[each, "delete"] for each in xids),
        }
        found.append({"xid": xid, "time": f"{day.decode()}T{clock.decode()}+00:00", "rows": rows})
    return found


def _keep(data: str, wal: str, timeline: int, fork: int, size: int, keep: str, own: Mapping[str, Any]) -> None:
    """Copy WAL from the fork on, and what tells of the state, before anything else writes there."""
    scratch = f"{keep}.new"
    shutil.rmtree(scratch, ignore_errors=True)
    os.makedirs(scratch, mode=0o700)
    names = [name for name in segments_in(wal, timeline) if parse_segment_name(name, size)[1] >= fork // size]
    histories = [name for name in os.listdir(wal) if name.endswith(".history")]
    there = [name for name in _KEPT_ALSO if os.path.exists(os.path.join(data, name))]
    for path in [*(os.path.join("pg_wal", name) for name in [*names, *histories]), *there]:
        target = os.path.join(scratch, path)
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        shutil.copy2(os.path.join(data, path), target)
    write_atomically(os.path.join(scratch, "transactions.json"), json.dumps(own, indent=1) + "\n")
    sync_directory(scratch)
    os.rename(scratch, keep)


def _kept(keep: str) -> dict[str, Any]:
    with open(os.path.join(keep, "transactions.json"), encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


def _told(own: Mapping[str, Any]) -> dict[str, Any]:
    """For the record, which is no place for thousands of them: how many, and the last ones."""
    if not own:
        return {}
    transactions = own["transactions"]
    return {**own, "commits": len(transactions), "transactions": transactions[-_TOLD:]}
