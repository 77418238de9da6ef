# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an incident's record knows of its containment, written before anything is contained."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._core.masking import clean
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import moment
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.files import read_json, to_json
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.lock import process_start

WAYS = {"read_only": "read-only", "pgbouncer_pause": "paused in PgBouncer"}


class Note:
    """``evidence/containment.json`` of one incident.

    ``active`` from before anything is set until all of it is undone; ``run`` is the ansible-playbook that did it.
    """

    def __init__(self, directory: str, incident: str) -> None:
        self.folder = Path(directory).expanduser().absolute() / incident
        self.path = self.folder / "evidence" / "containment.json"

    @property
    def possible(self) -> bool:
        """Whether the incident has a record here."""
        return self.path.parent.is_dir()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """One at a time contains or undoes. Held by the process that waits for the module, so it outlives a kill."""
        descriptor = os.open(self.folder / "containment.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def read(self) -> dict[str, Any]:
        found = read_json(self.path)
        return found if isinstance(found, dict) else {}

    def update(self, **values: Any) -> None:
        write_atomically(self.path, to_json(clean({**self.read(), **values})))

    def held_by(self, run: Mapping[str, Any]) -> bool:
        """Whether that run contains for the incident, now."""
        note = self.read()
        return bool(note.get("active")) and note.get("run") == dict(run)


def is_dead(run: Mapping[str, Any], host: str) -> bool:
    """Whether a run on this machine (``host``) has ended; of one on another, nobody can tell."""
    return bool(run.get("start")) and run.get("host") == host and process_start(int(run["pid"])) != run["start"]


def release_command(incident: str, directory: str, inventories: Sequence[str]) -> str:
    """The command that lets applications write again, from any folder of this controller."""
    given = " ".join(f"-i {quote(str(one))}" for one in inventories)
    folder = str(Path(directory).expanduser().absolute())
    return (
        f"ansible-playbook {given} dbre.recovery.dr_release -e dr_incident_id={quote(incident)}"
        f" -e dr_report_dir={quote(folder)}"
    )


def in_force_lines(found: Sequence[Mapping[str, Any]], incident: str) -> list[str]:
    """What kept applications from writing before a run did anything, in words; ``incident`` is its own."""
    lines = []
    for one in found:
        what = f"{one.get('database')} is {WAYS.get(str(one.get('method')), one.get('method'))} now"
        if one.get("fault"):
            lines.append(f"{one['database']}: {one['fault']}")
            continue
        holders = one.get("held_by") or []
        if not holders:
            lines.append(f"{what} by a setting that no incident has made ({one.get('setting')}); it stays as it is")
        for holder in holders:
            name = holder.get("incident")
            who = f"for incident {name}" if name else "by hand"
            text = f"{what}, {who}, since {moment(holder.get('at'))}"
            if name in (one.get("dead") or []):
                text += "; its run has ended, so that is undone" if name != incident else "; that run has ended"
            elif name and name != incident:
                text += (
                    f" (process {holder.get('pid')} on {holder.get('host')}; when it has ended: dr-release with"
                    f" dr_incident_id={name})"
                )
            lines.append(text)
    return lines


def report_entry(data: Mapping[str, Any], incident: str) -> dict[str, Any]:
    """What the report says: the note, ``lines`` about it and what was in force before this run, ``left`` to do."""
    note = dict(data.get("containment") or {})
    what = f"{note.get('database')} was {WAYS.get(str(note.get('method')), note.get('method'))}"
    lines = [f"{what}; {undone_line(note)}"] if note else ["this incident kept nobody from writing"]
    if note.get("active"):
        reason = f"This run has not undone what keeps them from writing: {note.get('undo_failed') or 'it was ended'}"
        note["left"] = {"what": "Let applications write again", "why": reason, "command": note.get("release")}
    before = [one for one in data.get("in_force") or [] if incident not in [who["incident"] for who in one["held_by"]]]
    return {**note, "lines": lines + in_force_lines(before, incident)}


def undone_line(note: Mapping[str, Any]) -> str:
    """How the containment of an incident ended, or that it has not."""
    if note.get("active"):
        return f"still in force: {note.get('undo_failed') or 'it was not undone'}. To undo it: {note.get('release')}"
    if note.get("left_on"):
        return f"it stays so on {note['left_on']}, which was put aside"
    text = f"undone {moment(note.get('undone_at'))} by {note.get('undone_by')}" if note.get("undone_at") else "undone"
    if note.get("held_by"):
        text += f"; still in force for {', '.join(note['held_by'])}"
    if note.get("stays_read_only"):
        text += "; the database was read-only before, and is again"
    return text
