# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to say when nothing was found in WAL: what is there, what was dropped, what was renamed."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._wal import damage
from ansible_collections.dbre.recovery.plugins.module_utils._wal.evidence import Evidence, MoreWal, Request, quoted
from ansible_collections.dbre.recovery.plugins.module_utils._wal.server import Known

UNREAD = 20  # changes that cannot be read, in a message
REWRITES = 5  # of a table, in a message
EXPLICIT = "or give the moment yourself (dr_target_time, dr_target_lsn, dr_target_xid)"


def renames(evidence: Evidence, schema: str, name: str) -> list[str]:
    """Sentences about transactions that gave a relation of that name another one, and what became of it."""
    found = []
    text = evidence.database.text
    for oid, steps in evidence.classes.steps.items():
        for step in steps:
            if step.old is None or step.new is None:
                continue
            old = (evidence.schema_name(step.old.namespace, step.commit.lsn), text(step.old.name))
            new = (evidence.schema_name(step.new.namespace, step.commit.lsn + 1), text(step.new.name))
            if old == (schema, name) and new != old:
                sentence = (
                    f"transaction {step.commit.xid} renamed it to {quoted(*new)} at {step.commit.commit_time}"
                    f" ({format_lsn(step.commit.lsn)})"
                )
                last = steps[-1]
                if last.new is None:
                    final = last.old or step.new
                    sentence += (
                        f", and transaction {last.commit.xid} dropped it at {last.commit.commit_time}; ask for "
                        + quoted(evidence.schema_name(final.namespace, last.commit.lsn), text(final.name))
                    )
                elif oid in evidence.database.relations:
                    now = evidence.database.relations[oid]
                    sentence += f"; it exists now as {quoted(now.schema, now.name)}"
                found.append(sentence)
    return found


def rewrites(evidence: Evidence, members: Iterable[Known]) -> list[str]:
    """Sentences about transactions that wrote the rows of a relation anew, each with its option, the newest last."""
    found = {}
    for known in members:
        for step in evidence.classes.steps.get(known.oid, []):
            if step.old is None or step.new is None or step.old.filenode == step.new.filenode:
                continue
            unlogged = step.old.persistence == "p" and step.new.persistence == "u"
            how = "made it unlogged, so that a crash since has emptied it" if unlogged else "wrote it anew"
            found[step.commit.lsn] = (
                f"transaction {step.commit.xid} {how} at {step.commit.commit_time}: -e dr_target_xid={step.commit.xid}"
            )
    return [found[lsn] for lsn in sorted(found)][-REWRITES:]


def refuse_unknown(evidence: Evidence, request: Request, target: int) -> None:
    """Refuse a relation that is not there now and of which all WAL since ``target`` shows that it was not there then.

    A restore would only find out the same. Where WAL does not tell all names, nothing is refused.
    """
    if evidence.start > target or evidence.unaccounted or evidence.classes.undecided or evidence.namespaces.undecided:
        return
    since = {lsn: harms for lsn, harms in damage.drops(evidence, Request(request.database)).items() if lsn >= target}
    every = [one for harms in since.values() for one in harms]
    gone = {(one.schema, one.name) for one in every if one.schema is not None and one.name is not None}
    if len(gone) < len({(one.schema, one.name) for one in every}):
        return
    schemas = set(evidence.database.namespaces.values())
    existing = {(known.schema, known.name) for known in evidence.database.relations.values()}
    for schema, name in request.relations:
        # A schema that has another name now takes its relations with it.
        if schema not in schemas or (schema, name) in gone | existing or renames(evidence, schema, name):
            continue
        what = quoted(schema, name)
        parts = [
            (
                f"{what} does not exist in database {evidence.database.name!r}, and it did not at the target either: "
                f"no transaction since {format_lsn(target)} dropped or renamed a relation of that name."
            )
        ]
        for label, names in (("Dropped since", gone), ("Existing now", existing)):
            parts += _similar(label, what, name, [quoted(*one) for one in names])
        parts.append("Nothing was restored or changed. Write the name as in SQL, with its schema.")
        raise RecoveryError(" ".join(parts), candidates=[])


def _names(drops: damage.Harms) -> list[str]:
    return sorted({quoted(one.schema, one.name) for harms in drops.values() for one in harms if one.name is not None})


def _similar(label: str, what: str, name: str, names: Iterable[str]) -> list[str]:
    """A sentence with those of ``names`` that may be meant, where there are any."""
    names = sorted(set(names))
    similar = get_close_matches(what, names, 5, 0.6) or [other for other in names if other.split(".")[-1] == name]
    return [f"{label}, with a similar name: {', '.join(similar[:5])}."] if similar else []


def found(evidence: Evidence, request: Request, what: str, name: str, facts: list[str]) -> RecoveryError:
    """The error for something that neither exists nor was seen dropped."""
    if not evidence.complete:
        raise MoreWal
    drops = damage.drops(evidence, Request(request.database))
    dropped = _names(drops)
    existing = sorted(quoted(known.schema, known.name) for known in evidence.database.relations.values())
    bare = what.removeprefix("schema ")
    parts = [
        (
            f"{what} does not exist in database {evidence.database.name!r}, and no transaction that dropped it was "
            f"found in the WAL from {evidence.window()}."
        )
    ]
    parts += [f"But {fact}." for fact in facts]
    for label, names in (("Dropped in that time", dropped), ("Existing now", existing)):
        parts += _similar(label, bare, name, names)
    parts.append(
        "Nothing was changed. Write the name as in SQL, with its schema and with quotes where it has capitals; "
        f"{EXPLICIT}."
    )
    candidates = [evidence.candidate(evidence.commits.at(lsn), drops[lsn]) for lsn in sorted(drops)]
    return RecoveryError(" ".join(parts), candidates=[one.as_dict(evidence.database.name) for one in candidates])


def done(evidence: Evidence, request: Request, what: str, members: Iterable[Known]) -> RecoveryError:
    """The error for a relation that is there and that nothing in WAL has harmed; ``members`` are all with its rows."""
    kinds = ", ".join(request.kinds) if request.kinds else "dropped, truncated, deleted from, updated, lost a column"
    if unread := evidence.classes.undecided:
        # One that cannot be read may be the one.
        told = "; ".join(
            f"transaction {commit.xid} at {commit.commit_time} ({change.unknown}): -e dr_target_xid={commit.xid}"
            for commit, change in unread[-UNREAD:]
        )
        more = f"; and {len(unread) - UNREAD} older ones" if len(unread) > UNREAD else ""
        return RecoveryError(
            f"cannot tell what was done to {what} in database {evidence.database.name!r}: of {len(unread)} changes of "
            f"tables in the WAL from {evidence.window()} it does not tell which table they changed, the newest last: "
            f"{told}{more}. Nothing was changed. If it is one of them, choose it by its option; all that it damaged is "
            f"then shown in the plan. Or {EXPLICIT.removeprefix('or ')}.",
            candidates=[],
        )
    anew = "; ".join(rewrites(evidence, members))
    if anew:
        anew = f"But, as ALTER TABLE and VACUUM FULL do, {anew}. If that destroyed it, add the option. "
    # A partition that was dropped is no member any more.
    dropped = _names(damage.drops(evidence, Request(request.database)))
    anew += "".join(f"{one} " for one in _similar("Dropped in that time", what, what.split(".")[-1], dropped))
    return RecoveryError(
        f"{what} exists in database {evidence.database.name!r}, and no transaction in the WAL from {evidence.window()} "
        f"did what was looked for ({kinds}, from {request.min_rows} rows on). {anew}Nothing was changed. "
        f"Look for fewer rows (dr_min_rows) or earlier (dr_since), {EXPLICIT}.",
        candidates=[],
    )


def done_to_schema(evidence: Evidence, what: str) -> RecoveryError:
    """The error for a schema that is there and whose tables nothing in WAL has dropped or truncated."""
    return RecoveryError(
        f"{what} exists in database {evidence.database.name!r}, and no transaction in the WAL from {evidence.window()} "
        "dropped or truncated a table of it that is still lost. Nothing was changed. Rows that were deleted are looked "
        f"for by table: name the tables (dr_tables), {EXPLICIT}.",
        candidates=[],
    )
