# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from ansible.plugins.action.normal import ActionModule as NormalAction
from ansible_collections.dbre.recovery.plugins.module_utils._core.masking import mask_text
from ansible_collections.dbre.recovery.plugins.module_utils._guard.marker import READ_ONLY
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.contained import WAYS, Note, release_command
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.lock import this_run
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.watcher import leave
from ansible_collections.dbre.recovery.plugins.plugin_utils._shown import show


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class ActionModule(NormalAction):
    """Runs the module of the task, and keeps in the incident's record what is contained, from before it is."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        known = task_vars or {}
        args = dict(self._task.args)
        incident, directory = args.get("incident"), str(args.get("incident_dir") or "incidents")
        if self._task.check_mode or (not incident and args.get("state") != "absent"):
            return _said(super().run(tmp, task_vars), self._task.check_mode)
        note = Note(directory, str(incident)) if incident else None
        if args.get("state") == "absent":
            return self._undo(note, args, directory, tmp, known)
        if note is None or not note.possible:
            text = f"incident {incident} has no record in {directory}, so what is contained for it could be forgotten"
            return {"failed": True, "changed": False, "msg": f"{text}. Nothing was changed. Open it first (incident)."}
        return self._contain(note, args, directory, tmp, known)

    def _contain(
        self, note: Note, args: dict[str, Any], directory: str, tmp: str | None, known: dict[str, Any]
    ) -> dict[str, Any]:
        run, given = this_run(), known.get("__dr_inventory")
        inventories = [given] if given else known.get("ansible_inventory_sources") or []
        release = release_command(args["incident"], directory, inventories)
        with note.guard():
            # What was there before is known already of what an earlier run has left.
            taken_over = bool(note.read().get("active"))
            before = _before(note) if taken_over else None
            began = {
                "host": known.get("inventory_hostname"),
                "method": args["method"],
                "database": args["database"],
                "run": run,
                "began_at": _now(),
            }
            began.update(undone_at=None, undone_by=None, undo_failed=None, left_on=None, release=release)
            note.update(**began, **({} if taken_over else {"previous": None}), active=True)
        leave(note, run, lambda: self._copy({**args, "state": "absent", "before": _before(note)})._released(known))
        self._task.args = {**args, "run": run, "before": before}
        with note.guard():
            result: dict[str, Any] = super().run(tmp, known)
            if not result.get("failed"):
                note.update(**{**result["containment"], "active": True})
                way = WAYS[args["method"]]
                text = f"Database {args['database']} is {way} until this run ends, however it ends. To undo it by hand:"
                show(self._display, f"{text} {release}")
        return result

    def _undo(
        self, note: Note | None, args: dict[str, Any], directory: str, tmp: str | None, known: dict[str, Any]
    ) -> dict[str, Any]:
        """The end of a run looks at its record first; without a database, everything that is found is undone."""
        if note is None or not note.possible:
            result: dict[str, Any] = super().run(tmp, known)
        elif not args.get("database"):
            with note.guard():
                result = self._undo_all(note, args, tmp, known)
        elif args.get("database") and not note.read().get("active"):
            return {"changed": False, "containment": note.read()}
        else:
            with note.guard():
                self._task.args = {**args, "before": _before(note)}
                result = super().run(tmp, known)
                if result.get("failed"):
                    note.update(undo_failed=mask_text(str(result.get("msg")))[:2000])
                else:
                    note.update(**_ended(result["containment"], "the run"))
        if not args.get("database") and not result.get("failed"):
            for one in result["containments"]:
                for incident in one.get("released") or []:
                    other = Note(directory, incident)
                    if incident and other.possible and other.read().get("active"):
                        other.update(**_ended(one, "another run" if known.get("__dr_undone_by_run") else "dr-release"))
        return _said(result, False)

    def _undo_all(self, note: Note, args: dict[str, Any], tmp: str | None, known: dict[str, Any]) -> dict[str, Any]:
        """What carries a marker of the incident, and what only its record still knows of."""
        result: dict[str, Any] = super().run(tmp, known)
        noted = note.read()
        ours = noted.get("active") and noted.get("method") == args["method"]
        if result.get("failed") or not ours or noted.get("host") != known.get("inventory_hostname"):
            return result
        if noted["database"] in [one["database"] for one in result["containments"]]:
            return result
        self._task.args = {**args, "database": noted["database"], "before": _before(note)}
        more: dict[str, Any] = super().run(tmp, known)
        if more.get("failed"):
            return more
        found = {**more["containment"], "released": [note.folder.name]}
        return {**result, "changed": more["changed"], "containments": [*result["containments"], found]}

    def _copy(self, args: dict[str, Any]) -> ActionModule:
        task = copy.copy(self._task)
        task.args = args
        other = copy.copy(self)
        other._task = task
        return other

    def _released(self, known: dict[str, Any]) -> dict[str, Any]:
        """In the process that waits for the end of the run, whose own queue nobody reads any more."""
        self._display._final_q = None
        with suppress(Exception):
            self._connection.close()
        return dict(super().run(None, known))


def _before(note: Note) -> dict[str, Any] | None:
    """What was there before, as the record tells it; None where it does not."""
    previous = note.read().get("previous") or {}
    return {"previous": previous[READ_ONLY]} if READ_ONLY in previous else None


def _said(result: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """The result, with what was undone (in check mode, would be) in words."""
    says = []
    for one in result.get("containments") or []:
        named = ", ".join(name or "nobody" for name in one["released"])
        text = f"{one['database']} {'would be' if check_mode else 'is'} no longer {WAYS[one['method']]} (for {named})"
        if one["held_by"]:
            text = f"{one['database']} stays {WAYS[one['method']]} for {', '.join(one['held_by'])}, but not for {named}"
        if one.get("stays_read_only"):
            text += "; it was read-only before, and is again"
        says.append(text)
    says += result.get("faults") or []
    return {**result, "says": says} if "containments" in result else dict(result)


def _ended(containment: dict[str, Any], by: str) -> dict[str, Any]:
    return {**containment, "active": False, "undone_at": _now(), "undone_by": by, "undo_failed": None}
