# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put a restored cluster in the place of the one in use, and take that back.

Each step looks where the directories are, so that a run that was killed goes on. What is put into its place is complete
before it is there: whoever starts the server starts the right one, and a directory that is kept has no control file
under its name, so that nothing starts there.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import sync_directory, write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._core.programs import run
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import seconds_since, size
from ansible_collections.dbre.recovery.plugins.module_utils._exchange import afterwards, places
from ansible_collections.dbre.recovery.plugins.module_utils._exchange.cluster import (
    Known,
    Server,
    look,
    version_directory,
)
from ansible_collections.dbre.recovery.plugins.module_utils._exchange.recovery import (
    recovery_settings,
    require_before,
    require_fork,
    restore_command,
    with_recovery,
    without_recovery,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login, connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.trusted import read_own_file
from ansible_collections.dbre.recovery.plugins.module_utils._side.controldata import control_value
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import now, server_pid
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_restore import existing_parent
from ansible_collections.dbre.recovery.plugins.module_utils._wal.server import name_of_database, raw

MARKER = "exchange.json"
# Nothing is committed to template0, where it is as initdb has made it.
_DATABASES = f"""
SELECT {raw("datname")} AS name, pg_catalog.pg_encoding_to_char(encoding) AS encoding, datallowconn AS open,
  ARRAY(SELECT gid FROM pg_catalog.pg_prepared_xacts p WHERE p.database = d.datname ORDER BY 1) AS prepared
FROM pg_catalog.pg_database d
WHERE datname <> 'template0' OR datallowconn ORDER BY 1
"""
GUARDED, GUARD = os.path.join("global", "pg_control"), os.path.join("global", "pg_control.kept")


@dataclass(frozen=True)
class Asked:
    """The incident, the directory in which the replaced cluster is kept, and how WAL comes out of the archive."""

    incident: str
    keep: Optional[str] = None
    path: Optional[str] = None
    stanza: str = "main"
    config: Optional[str] = None
    executable: str = "pgbackrest"
    bin_dir: Optional[str] = None
    timeout: int = 3600


class Exchange:
    """The exchange of one incident."""

    def __init__(self, asked: Asked, login: Login) -> None:
        self.asked = asked
        self.login = login
        self.host = socket.gethostname()
        self.keep = asked.keep or ""

    # What is known

    def plan(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """What would be exchanged; RecoveryError where it cannot be."""
        known = look(self.login, self.asked.bin_dir)
        side = self.require_side()
        keep = places.keep_of(known["data"], self.asked.incident)
        self.refuse_another(keep)
        linked = self._linked(known)
        facts = self._facts(known, side, linked)
        places.refuse_swap(facts, keep, list(linked.values()))
        self._room_of_tablespaces(known, linked, facts)
        return {
            **told_of(known),
            "keep": keep,
            "in_use": self.in_use(),
            "needed": facts.needed,
            "free": facts.free,
            "lines": self._lines(known, facts, keep, target),
        }

    def _lines(self, known: Known, facts: places.Facts, keep: str, target: Mapping[str, Any]) -> list[str]:
        """What would be done, for people."""
        whole = f"the whole cluster in {known['data']}, all databases, becomes as it was just before {target['value']}"
        room = f"{size(facts.needed)} of the {size(facts.free)} that are free"
        stop = f"then the server is stopped (by {known['unit'] or 'pg_ctl'}) and directories change places by renames"
        return [
            f"{whole}, and goes on from there on a new timeline",
            f"it is restored beside and proved while this one serves, which takes {room}",
            f"{stop}. CLIENTS ARE WITHOUT A DATABASE meanwhile: for two restarts, and for reading the last WAL",
            f"the cluster in use now is kept whole in {keep} until it is removed; one command takes the exchange back",
            *self.hanging_on(known),
        ]

    def hanging_on(self, known: Known) -> list[str]:
        """Who else notices that the cluster goes back, for people."""
        connection = connect(self.login, any_database=True)
        try:
            return afterwards.hanging_on(connection, known["standbys"])
        finally:
            connection.close()

    def require_side(self) -> str:
        """Where the restored cluster is, or will be."""
        if not self.asked.path:
            raise RecoveryError("path is missing: where the restored cluster is. Nothing was changed.")
        return os.path.realpath(self.asked.path)

    def _linked(self, known: Known) -> dict[str, str]:
        """Directories outside of the data directory that are part of the cluster, by the link that leads there."""
        data = known["data"]
        found = {}
        if os.path.islink(os.path.join(data, "pg_wal")):
            found["pg_wal"] = os.path.realpath(os.path.join(data, "pg_wal"))
        for oid in known["tablespaces"]:
            link = os.path.join(data, "pg_tblspc", oid)
            if os.path.islink(link):  # PostgreSQL may have it in place (allow_in_place_tablespaces)
                place = os.path.realpath(link)
                found[f"pg_tblspc/{oid}"] = os.path.join(place, version_directory(place, known["major"]))
        return found

    def _facts(self, known: Known, side: str, linked: Mapping[str, str]) -> places.Facts:
        data = known["data"]
        base = existing_parent(side)
        paths = [data, *linked.values()]
        stat = os.statvfs(base)
        return places.Facts(
            host=self.host,
            data=data,
            side=base,
            devices={base: os.stat(base).st_dev, **{path: os.stat(path).st_dev for path in paths}},
            mounts=[path for path in paths if os.path.ismount(path)],
            free=stat.f_bavail * stat.f_frsize + _already(side),
            needed=known["bytes"],
            writable=os.access(os.path.dirname(data), os.W_OK | os.X_OK),
        )

    def _room_of_tablespaces(self, known: Known, linked: Mapping[str, str], facts: places.Facts) -> None:
        """A tablespace on another file system is copied there before anything is stopped."""
        wanted: dict[int, int] = {}
        for link, path in linked.items():
            if link != "pg_wal" and facts.devices[path] != facts.devices[facts.side]:
                device = facts.devices[path]
                wanted[device] = wanted.get(device, 0) + int(
                    known["tablespaces"][os.path.basename(link)] * places.MARGIN
                )
                stat = os.statvfs(path)
                if wanted[device] > stat.f_bavail * stat.f_frsize:
                    raise RecoveryError(
                        f"there is no room for a second copy of the tablespace in {path} on {self.host}: "
                        f"{size(wanted[device])} are needed there. Nothing was changed. Make room, or restore over the "
                        f"cluster, which keeps no copy of it: {places.IN_PLACE}"
                    )

    # The marker

    def marker_file(self) -> str:
        return os.path.join(self.keep, MARKER)

    def read_marker(self) -> Optional[dict[str, Any]]:
        """What was written down of this exchange; None before it began."""
        try:
            found: dict[str, Any] = json.loads(read_own_file(self.marker_file()))
        except FileNotFoundError:
            return None
        if found.get("incident") != self.asked.incident:
            raise RecoveryError(f"{self.marker_file()} on {self.host} is of another incident. Nothing was changed.")
        return found

    def refuse_another(self, keep: str) -> None:
        """Refuse to plan under the name of an incident that was carried out here: its plan is in another record.

        What that one has written down would be taken for what this one has done.
        """
        other = Exchange(replace(self.asked, keep=keep), self.login)
        found = other.read_marker()
        if found is not None and self._has_stopped(found):
            other.refuse(found)

    def forget_unless_for(self, target: Mapping[str, Any]) -> Optional[dict[str, Any]]:
        """What was written down for that target; what was for another one is forgotten, since nothing was stopped."""
        found = self.read_marker()
        if found is None or found.get("wanted") == target:
            return found
        if self._has_stopped(found):
            self.refuse(found)
        os.unlink(self.marker_file())
        return None

    def refuse(self, marker: Mapping[str, Any]) -> NoReturn:
        raise RecoveryError(
            f"an exchange of the name {self.asked.incident} was carried out on {self.host} already, begun "
            f"{marker['begun']}: {self.keep} is what it kept. Nothing was changed. Give this incident another name "
            "(dr_incident_id); to go on with that one, run it with the dr_report_dir that has its record."
        )

    def _has_stopped(self, marker: Mapping[str, Any]) -> bool:
        """Whether an exchange has come so far that production was stopped for it."""
        return any(marker.get(step) for step in ("stopped", "ended")) or self._moved(marker)

    def marker(self) -> dict[str, Any]:
        """The same of one that has begun."""
        found = self.read_marker()
        if found is None:
            raise RecoveryError(
                f"nothing is known of an exchange in {self.keep} on {self.host} (incident {self.asked.incident}). "
                "Nothing was changed."
            )
        return found

    def write(self, marker: Mapping[str, Any]) -> None:
        write_atomically(self.marker_file(), json.dumps(marker, indent=1) + "\n")

    def _note(self, marker: dict[str, Any], what: str) -> None:
        """Write down when something was done first."""
        if what not in marker:
            marker[what] = now()
            self.write(marker)

    def server(self, marker: Mapping[str, Any], login: Optional[Login] = None) -> Server:
        return Server(marker["known"], login or self.login, self.asked.timeout)

    def begin(
        self,
        side: Optional[str] = None,
        proved: Optional[Mapping[str, Any]] = None,
        wanted: Optional[Mapping[str, Any]] = None,
    ) -> dict[str, Any]:
        """Write down what the cluster is like, while it runs; or what an earlier run has written.

        ``side``, ``proved`` and ``wanted`` of a restored cluster that is to take its place: where it is, what was
        proved of it and the target. All at once, for without the target it is forgotten (forget_unless_for).
        """
        found = self.read_marker()
        if found is not None:
            return found
        known = look(self.login, self.asked.bin_dir)
        os.makedirs(self.keep, mode=0o700, exist_ok=True)
        linked = self._linked(known)
        restored = [] if side is None else [places.data_place(known["data"], side, self.keep)]
        marker = {
            "incident": self.asked.incident,
            "begun": now(),
            "known": known,
            "linked": linked,
            "reached": dict(proved["reached"] if proved else {}),
            "places": [*self._places_of(linked, side), *restored] if side is not None else [],
            "command": self._archive_get(),
            "settings": {},
            **({} if proved is None else {"proved": dict(proved), "wanted": dict(wanted or {})}),
        }
        self.write(marker)
        return marker

    def _archive_get(self) -> str:
        asked = self.asked
        executable = shutil.which(asked.executable) or asked.executable
        config = [f"--config={asked.config}"] if asked.config else []
        return restore_command([executable, *config, f"--stanza={asked.stanza}"])

    def _places_of(self, linked: Mapping[str, str], side: str) -> list[places.Place]:
        """The linked directories, the last in the order of renames being the data directory itself."""
        found = []
        for link, path in linked.items():
            incoming = f"{path}.incoming-{self.asked.incident}"
            if link != "pg_wal":
                restored = os.path.realpath(os.path.join(side, "data", link))
                restored = os.path.join(restored, os.path.basename(path))
                if os.path.exists(restored) and os.stat(restored).st_dev == os.stat(path).st_dev:
                    incoming = restored
            found.append(places.beside(path, incoming, self.asked.incident))
        return found

    # Stopping

    def noted(self) -> dict[str, Any]:
        """What the cluster is like is written down, while it serves: whoever stops it takes that away."""
        found = self.read_marker()
        if found is not None and not self._has_stopped(found) and self.serves(found):
            # Of a run that ended here; the cluster may have got tablespaces and settings since.
            os.unlink(self.marker_file())
        changed = found is None
        serves = self.serves(self.begin())
        return {"changed": changed, "serves": serves, "in_use": self.in_use() if serves else []}

    def serves(self, marker: Mapping[str, Any]) -> bool:
        """Whether the server answers as ever."""
        server = self.server(marker)
        return server.pid() is not None and server.socket_directory() != self.alone()

    def closed(self) -> dict[str, Any]:
        """The cluster in use answers nobody but us, so that what it has committed is all there will be."""
        marker = self.begin()
        server = self.server(marker)
        alone = self.alone()
        login = {"login_unix_socket": alone, "login_port": self.login.get("login_port")}
        result = {"login": login, "timeline": marker["known"]["timeline"]}
        if marker.get("ended") or os.path.exists(os.path.join(server.data, GUARD)) or self._moved(marker):
            return {"changed": False, "open": False, **result}
        if server.pid() is not None and server.socket_directory() == alone:
            return {"changed": False, "open": True, "in_use": self.in_use(alone), **result}
        unit = marker["known"]["unit"]
        if server.pid() is not None and unit and unit_is_active(unit):
            raise RecoveryError(f"{unit} on {self.host} runs: it has to be stopped by systemd first.")
        self._note(marker, "stopped")
        server.stop()
        server.start(alone)
        return {"changed": True, "open": True, "in_use": self.in_use(alone), **result}

    def in_use(self, socket_directory: Optional[str] = None) -> list[dict[str, Any]]:
        """``{name, open, prepared}`` of the databases that the cluster has now, with those made since the plan."""
        login: Login = {**self.login}
        if socket_directory:
            login["login_unix_socket"] = socket_directory
        connection = connect(login, any_database=True)
        try:
            return [
                {
                    "name": name_of_database(bytes(one["name"]), one["encoding"]),
                    "open": one["open"],
                    "prepared": one["prepared"],
                }
                for one in rows(connection, _DATABASES)
            ]
        finally:
            connection.close()

    def _moved(self, marker: Mapping[str, Any]) -> bool:
        return bool(marker.get("overwriting")) or any(os.path.exists(place["kept"]) for place in marker["places"])

    def end(self, marker: dict[str, Any], server: Server) -> None:
        """Stop the closed cluster for good; its control file says that it ended in order."""
        if marker.get("ended"):
            return
        server.stop()
        control = server.control()
        state = control_value(control, "Database cluster state")
        if state != "shut down":
            raise RecoveryError(
                f"the cluster in {server.data} on {self.host} did not end in order ({state}). Nothing was moved. Start "
                "it and stop it, and run this again."
            )
        marker["ended"] = control_value(control, "Latest checkpoint location")
        self.write(marker)

    # Exchanging

    def exchanged(self) -> dict[str, Any]:
        """The restored cluster is in its place, not started, and the one in use before is kept."""
        marker = self.marker()
        server = self.server(marker)
        if marker.get("taken_back"):
            raise RecoveryError(
                f"the exchange of incident {self.asked.incident} was taken back {marker['taken_back']}. Nothing was "
                "moved. For another, leave dr_incident_id out, or give another one."
            )
        if not marker.get("prepared"):
            raise RecoveryError(f"what is restored for {server.data} is not proved yet. Nothing was moved.")
        if all(not places.moves(place, _there(place), "new") for place in marker["places"]):
            return {"changed": False, **result_of(marker)}
        self.end(marker, server)
        self._move(marker, "new")
        return {"changed": True, **result_of(marker)}

    def taken_back(self) -> dict[str, Any]:
        """The cluster that was in use before is in its place again, not started, and goes on on a timeline of its own.

        On the one that it had, a restore to the newest timeline would follow the one that is taken back.
        """
        marker = self.marker()
        server = self.server(marker)
        if not marker["places"]:
            raise RecoveryError(
                f"{server.data} on {self.host} was restored in place, and nothing is kept of what it was. Nothing was "
                "changed."
            )
        unit = marker["known"]["unit"]
        last = marker["places"][-1]
        left = [places.moves(place, _there(place), "old") for place in marker["places"]]
        if not any(left):
            changed = os.path.exists(os.path.join(server.data, GUARD)) or server.socket_directory() == self.alone()
            if changed:
                server.stop()
            self._open_guard(server.data)
            return {"changed": changed, **result_of(marker)}
        if server.pid() is not None and unit and unit_is_active(unit):
            raise RecoveryError(f"{unit} on {self.host} runs: it has to be stopped by systemd first.")
        server.stop()
        self._note(marker, "taken_back")
        if left[-1]:
            # The other may have begun a timeline, and archived it.
            kept = last["kept"] if os.path.exists(last["kept"]) else server.data
            self._dress(kept, marker, recovery_settings(marker["command"], marker["known"]["timeline"], None))
        self._move(marker, "old")
        self._open_guard(server.data)
        return {"changed": True, **result_of(marker)}

    def _move(self, marker: Mapping[str, Any], to: str) -> None:
        """Rename all places; the data directory last, and from the beginning on nothing can start in it."""
        last = marker["places"][-1]
        data = last["live"]
        steps = {place["live"]: places.moves(place, _there(place), to) for place in marker["places"]}
        if len(steps[data]) == 2:
            guarded = os.path.join(data, GUARDED)
            if os.path.exists(guarded):
                os.rename(guarded, os.path.join(data, GUARD))
            if server_pid(data) is not None:
                raise RecoveryError(
                    f"somebody has started the server in {data} on {self.host} meanwhile. Nothing was moved. Stop it "
                    "and run this again."
                )
        for place in marker["places"]:
            for old, new in steps[place["live"]]:
                os.rename(old, new)
                for path in sorted({os.path.dirname(old), os.path.dirname(new)}):
                    sync_directory(path)

    @staticmethod
    def _open_guard(data: str) -> None:
        guard = os.path.join(data, GUARD)
        if os.path.exists(guard):
            os.rename(guard, os.path.join(data, GUARDED))

    def _dress(self, data: str, marker: dict[str, Any], settings: Mapping[str, str]) -> None:
        """Have a directory recover, when it is started, as ``settings`` say."""
        auto = os.path.join(data, "postgresql.auto.conf")
        with open(auto, encoding="utf-8") as file:
            text = file.read()
        write_atomically(auto, with_recovery(without_recovery(text, settings), settings))
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(data, "standby.signal"))
        write_atomically(os.path.join(data, "recovery.signal"), "")
        marker["settings"] = dict(settings)
        self.write(marker)

    # Opening

    def opened(self) -> dict[str, Any]:
        """What is in its place serves, on a new timeline that begins where it was proved to; every database opens."""
        marker = self.marker()
        server = self.server(marker)
        if server.pid() is None:
            unit = marker["known"]["unit"]
            if unit:
                raise RecoveryError(f"{unit} on {self.host} does not run. See: journalctl -u {unit}")
            server.start()
        connection = server.wait_open()
        try:
            serves = now()
            segment = str(
                value(connection, "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())")
            )
            timeline = int(segment[:8], 16)
            back = bool(marker.get("taken_back"))
            parent = int(marker["settings"].get("recovery_target_timeline", timeline))
            fork = self._fork(server, marker, timeline, parent, None if back else marker["reached"].get("lsn"))
            databases = server.open_all(connection)
            left = afterwards.left_to_do(connection, self.login)
        finally:
            connection.close()
        auto = os.path.join(server.data, "postgresql.auto.conf")
        with open(auto, encoding="utf-8") as file:
            text = file.read()
        clean = without_recovery(text, marker["settings"])
        changed = clean != text
        if changed:
            write_atomically(auto, clean)
        found = {"timeline": timeline, "fork_lsn": fork, "databases": databases, "parent": parent}
        key = "opened_again" if back else "opened"
        if key not in marker:
            marker[key] = {**found, "at": serves}
            self.write(marker)
        began = marker["taken_back"] if back else marker.get("stopped")
        return {
            "changed": changed,
            **result_of(marker),
            **found,
            "left_to_do": left,
            "outage_seconds": seconds_since(began, marker[key]["at"]),
        }

    def _fork(
        self, server: Server, marker: Mapping[str, Any], timeline: int, parent: int, lsn: Optional[str]
    ) -> Optional[str]:
        """Where the timeline began; None of a cluster that goes on because nothing had taken its place."""
        if not marker["settings"]:
            return None
        with open(os.path.join(server.data, "pg_wal", f"{timeline:08X}.history"), encoding="utf-8") as file:
            fork = require_fork(file.read(), timeline, parent, lsn)
        if "target" in marker:
            require_before(fork, marker["target"]["lsn"])
        return fork

    # Removing

    def given_up(self) -> dict[str, Any]:
        """The cluster in use serves as it did, where nothing was moved, and nothing is left of what was prepared."""
        marker = self.read_marker()
        if marker is None:
            return {"changed": False, "start": False}
        server = self.server(marker)
        if self._moved(marker):
            raise RecoveryError(
                f"incident {self.asked.incident} has begun to change directories on {self.host}, so it cannot be "
                "given up any more. Nothing was touched. Run it again with the same dr_incident_id, so that it ends; "
                "then the report says whether and how it is taken back."
            )
        if server.socket_directory() == self.alone():
            server.stop()
        self._open_guard(server.data)
        start = server.pid() is None
        if start and not marker["known"]["unit"]:
            server.start()
        self._remove(marker)
        return {"changed": True, "start": start, "unit": marker["known"]["unit"]}

    def removed(self) -> dict[str, Any]:
        """Nothing is left of the cluster that does not serve."""
        marker = self.read_marker()
        if marker is None:
            return {"changed": False}
        if not (marker.get("opened_again") if marker.get("taken_back") else marker.get("opened")):
            raise RecoveryError(f"the exchange of incident {self.asked.incident} has not ended. Nothing was removed.")
        self._remove(marker)
        return {"changed": True}

    def alone(self) -> str:
        """Directory of the socket of a closed server."""
        return os.path.join(self.keep, "run")

    def _remove(self, marker: Mapping[str, Any]) -> None:
        for place in marker["places"]:
            waiting = f"{place['live']}.incoming-{self.asked.incident}"
            for path in (place["kept"], place["taken"], waiting, f"{waiting}.part"):
                if os.path.isdir(path) and not path.startswith(self.keep + "/"):
                    shutil.rmtree(path)
        for name in sorted(os.listdir(self.keep), key=lambda entry: entry == MARKER):
            path = os.path.join(self.keep, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        os.rmdir(self.keep)


def unit_is_active(unit: str) -> bool:
    """Whether systemd runs a unit."""
    return run(["systemctl", "is-active", unit])[1].strip() in ("active", "activating", "deactivating")


def _there(place: places.Place) -> list[str]:
    return [path for path in place.values() if os.path.exists(str(path))]  # type: ignore[misc]


def told_of(known: Known) -> dict[str, Any]:
    """What a plan tells of a cluster."""
    return {
        "data": known["data"],
        "unit": known["unit"],
        "standbys": known["standbys"],
        "checksums": known["checksums"],
        "timeline": known["timeline"],
        "system_identifier": known["system_identifier"],
    }


def result_of(marker: Mapping[str, Any]) -> dict[str, Any]:
    known = marker["known"]
    return {
        "unit": known["unit"],
        "data": known["data"],
        "stopped": marker.get("stopped"),
        "reached": marker["reached"],
    }


def _already(side: str) -> int:
    """Bytes that an earlier run has restored there."""
    total = 0
    for directory, _directories, names in os.walk(os.path.join(side, "data")):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
    return total


STEPS: Sequence[str] = ("noted", "closed", "exchanged", "opened", "taken_back", "given_up", "removed")
