# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was read of WAL to the transaction that did the damage. Pure: nothing here reads anything."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name
from ansible_collections.dbre.recovery.plugins.module_utils._wal import damage, nothing
from ansible_collections.dbre.recovery.plugins.module_utils._wal.evidence import (
    Candidate,
    Evidence,
    Harm,
    MoreWal,
    Request,
    quoted,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.server import Known
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import Commit

SHOWN = 50  # candidates in a message; the result has all


@dataclass(frozen=True)
class Verdict:
    """The incident, why it is it, and everything else that might have been."""

    incident: Candidate
    reason: str
    candidates: list[Candidate]


def decide(evidence: Evidence, request: Request) -> Verdict:
    """The transaction that did the damage; MoreWal when older WAL may hold it, RecoveryError when there is not one."""
    chosen: list[tuple[str, Candidate]] = []
    candidates: dict[int, Candidate] = {}
    left: list[Candidate] = []
    wanted = [
        (quoted(schema, name), _of_relation(evidence, request, schema, name)) for schema, name in request.relations
    ]
    for schema in request.schemas:
        wanted.append((f"schema {display_name(None, schema)}", _of_schema(evidence, request, schema)))
    for what, found in wanted:
        candidates.update(merged(candidates.values(), found))
        one = choose(evidence, found, what)
        chosen.append((what, one))
        left += [other for other in found if other.lsn != one.lsn and (other.ours is not None or other.is_empty)]
    first = min((one for _what, one in chosen), key=lambda one: one.lsn)
    reason = _reason(evidence, chosen, first) + _left_out(left)
    return Verdict(candidates[first.lsn], reason, [candidates[lsn] for lsn in sorted(candidates)])


def merged(found: Iterable[Candidate], more: Iterable[Candidate]) -> dict[int, Candidate]:
    """Candidates by position; what one transaction did to several of the things asked for is one candidate."""
    by_lsn = {one.lsn: one for one in found}
    for one in more:
        earlier = by_lsn.get(one.lsn)
        if earlier is not None:
            harms = tuple(dict.fromkeys((*earlier.asked, *one.asked)))
            one = replace(earlier, asked=harms)
        by_lsn[one.lsn] = one
    return by_lsn


def choose(evidence: Evidence, found: list[Candidate], what: str) -> Candidate:
    """The one candidate; of several the only one with rows, where all others are known to have had none."""
    foreign = [one for one in found if one.ours is None]
    with_rows = [one for one in foreign if not one.is_empty]
    if len(foreign) == 1 or len(with_rows) == 1:
        return (with_rows or foreign)[0]
    listed = "; ".join(f"({number}) {one.line()}" for number, one in enumerate(found[:SHOWN], 1))
    if len(found) > SHOWN:
        listed += f"; and {len(found) - SHOWN} more, which are all in the result of this task with -v"
    facts = {"candidates": [one.as_dict(evidence.database.name) for one in found]}
    if not foreign:
        raise RecoveryError(
            f"nothing but recoveries of this collection itself changed {what} in the WAL from {evidence.window()}, the "
            f"oldest first: {listed}. Nothing was changed. If one of them is what must be undone, choose it by its "
            "option.",
            **facts,
        )
    raise RecoveryError(
        f"{len(found)} transactions may have done the damage to {what} in the WAL from {evidence.window()}, the oldest "
        f"first: {listed}. Nothing was changed. Choose one by its option, or narrow the search by time (dr_since, "
        "dr_until), by rows (dr_min_rows) or by what was done (dr_kinds, such as dr_kinds=delete).",
        **facts,
    )


def _left_out(left: Collection[Candidate]) -> str:
    """What was not taken although it might have been, in words."""
    unique = sorted({one.lsn: one for one in left}.values(), key=lambda one: one.lsn)
    if not unique:
        return ""
    some = "; ".join(one.line() for one in unique[:5]) + ("; ..." if len(unique) > 5 else "")
    return f". Not taken: {len(unique)} that had no rows to lose or were recoveries of this collection itself: {some}"


def _of_relation(evidence: Evidence, request: Request, schema: str, name: str) -> list[Candidate]:
    known = evidence.database.relation(schema, name)
    what = quoted(schema, name)
    if known is not None:
        found = changes_of_relation(evidence, request, known)
        if not found:
            raise nothing.done(evidence, request, what, damage.family(evidence.database, known))
        return found
    if not request.wants("drop_table") and not request.wants("drop_schema"):
        raise RecoveryError(
            f"{what} does not exist in database {evidence.database.name!r}, so only its drop can be looked for, "
            f"and kinds is {', '.join(request.kinds)}. Nothing was changed. Add drop_table to it (dr_kinds), or "
            "leave it out."
        )
    found = drops_of_relation(evidence, request, schema, name)
    if not found:
        raise nothing.found(evidence, request, what, name, nothing.renames(evidence, schema, name))
    return found


def _candidates(evidence: Evidence, *parts: damage.Harms) -> list[Candidate]:
    """One candidate a transaction, with all its harms, oldest first."""
    by_commit: dict[int, list[Harm]] = {}
    for part in parts:
        for lsn, harms in part.items():
            by_commit.setdefault(lsn, []).extend(damage.with_rows(evidence, lsn, harm) for harm in harms)
    return [evidence.candidate(evidence.commits.at(lsn), by_commit[lsn]) for lsn in sorted(by_commit)]


# What is gone


def undecided_drops(evidence: Evidence, request: Request, after: int) -> list[Candidate]:
    """Transactions after ``after`` that removed relations of which WAL read so far does not tell the names."""
    reasons: dict[int, str] = {}
    commits: dict[int, Commit] = {}
    for commit, change in evidence.classes.undecided:
        if change.operation == "DELETE":
            reasons[commit.lsn], commits[commit.lsn] = change.unknown, commit
    for lsn in evidence.unaccounted:
        commits.setdefault(lsn, evidence.commits.at(lsn))
    return [
        evidence.candidate(
            commit,
            [Harm(oid, None, None, None, "drop") for oid in sorted(evidence.unaccounted.get(lsn, ()))],
            note=reasons.get(lsn, "it began before the WAL that was read"),
        )
        for lsn, commit in sorted(commits.items())
        if lsn > after and request.in_window(commit)
    ]


def settle_drops(evidence: Evidence, request: Request, found: list[Candidate], what: str) -> None:
    """See that the drops found are all that can be meant: ask for more WAL, or say that it cannot be known.

    The newest of them ends an early search only where the relation had its name before all WAL there is: then there was
    no other of that name. A relation made since may have followed another that was dropped.
    """
    last = found[-1] if found else None
    open_ones = undecided_drops(evidence, request, last.lsn if last else 0)
    if not evidence.complete and (
        last is None or open_ones or not any(evidence.predates(harm.maker) for harm in last.asked)
    ):
        raise MoreWal
    if open_ones:
        these = "this transaction" if len(open_ones) == 1 else f"one of these {len(open_ones)} transactions"
        raise RecoveryError(
            f"cannot tell whether {what} was dropped by {these}: "
            + "; ".join(one.line() for one in open_ones[:SHOWN])
            + ". Nothing was changed. Choose one by its option, or another moment (dr_target_time, dr_target_lsn), and "
            "look at the table in the side instance.",
            candidates=[one.as_dict(evidence.database.name) for one in open_ones],
        )


def drops_of_relation(evidence: Evidence, request: Request, schema: str, name: str) -> list[Candidate]:
    """Transactions that dropped the relation of that name, oldest first; settled that there are no others."""
    every = damage.drops(evidence, request)
    found = {
        lsn: [harm for harm in harms if (harm.schema, harm.name) == (schema, name)] for lsn, harms in every.items()
    }
    found = {lsn: harms for lsn, harms in found.items() if harms}
    newest = max(found, default=0)
    if not evidence.complete and any(
        (harm.schema, harm.name) == (None, name) for lsn, harms in every.items() if lsn > newest for harm in harms
    ):
        raise MoreWal
    without_rows = [evidence.candidate(evidence.commits.at(lsn), found[lsn]) for lsn in sorted(found)]
    settle_drops(evidence, request, without_rows, quoted(schema, name))
    return _candidates(evidence, found)


def _of_schema(evidence: Evidence, request: Request, schema: str) -> list[Candidate]:
    """Transactions that dropped the schema of that name; where it is there, those that took tables from it."""
    what = f"schema {display_name(None, schema)}"
    every = damage.drops(evidence, request)
    if schema in evidence.database.namespaces.values():
        if not evidence.complete:
            raise MoreWal
        now = {(known.schema, known.name) for known in evidence.database.relations.values()}
        gone = {
            lsn: [one for one in harms if one.schema == schema and (one.schema, one.name) not in now]
            for lsn, harms in every.items()
        }
        emptied = {
            lsn: [one for one in harms if one.schema == schema]
            for lsn, harms in damage.truncates(evidence, request).items()
        }
        parts = [gone] if request.wants("drop_table") else []
        parts += [emptied] if request.wants("truncate") else []
        found = _candidates(evidence, *({lsn: harms for lsn, harms in part.items() if harms} for part in parts))
        found += _schema_drops(evidence, request, schema, every)
        found = [merged([], found)[lsn] for lsn in sorted({one.lsn for one in found})]
        if not found:
            raise nothing.done_to_schema(evidence, what)
        return found
    found = _schema_drops(evidence, request, schema, every)
    last = found[-1] if found else None
    if not evidence.complete and (
        last is None
        or any(
            commit.lsn > last.lsn and change.operation == "DELETE" for commit, change in evidence.namespaces.undecided
        )
        or undecided_drops(evidence, request, last.lsn - 1)
        or not any(evidence.predates(one.maker) for one in evidence.namespaces.removals() if one.commit.lsn == last.lsn)
    ):
        raise MoreWal
    if not found:
        raise nothing.found(evidence, request, what, schema, [])
    return found


def _schema_drops(evidence: Evidence, request: Request, schema: str, every: damage.Harms) -> list[Candidate]:
    return [
        evidence.candidate(
            one.commit,
            [
                damage.with_rows(evidence, one.commit.lsn, harm)
                for harm in every.get(one.commit.lsn, [])
                if harm.schema == schema
            ],
            "drop_schema",
        )
        for one in evidence.namespaces.removals()
        if evidence.database.text(one.row[1]) == schema and request.in_window(one.commit)
    ]


# Damage to relations that are still there


def changes_of_relation(evidence: Evidence, request: Request, known: Known) -> list[Candidate]:
    """Everything in the window that did damage of the kinds asked for to a relation that is still there."""
    if not evidence.complete:
        raise MoreWal
    members = damage.family(evidence.database, known)
    oids = {member.oid for member in members}
    parts: list[damage.Harms] = []

    def those(harms_of: damage.Harms) -> damage.Harms:
        found = {lsn: [harm for harm in harms if harm.oid in oids] for lsn, harms in harms_of.items()}
        return {lsn: harms for lsn, harms in found.items() if harms}

    if request.wants("drop_table"):
        # Somebody dropped it and made it again.
        again = {
            lsn: [harm for harm in harms if (harm.schema, harm.name) == (known.schema, known.name)]
            for lsn, harms in damage.drops(evidence, request).items()
        }
        parts.append({lsn: harms for lsn, harms in again.items() if harms})
    if request.wants("truncate"):
        parts.append(those(damage.truncates(evidence, request)))
    if request.wants("drop_column"):
        parts.append(those(damage.dropped_columns(evidence, request)))
    if request.wants("delete") or request.wants("update"):
        parts.append(damage.row_changes(evidence, request, members))
    if request.wants("ddl", False):
        parts.append(damage.changed_definitions(evidence, request, members))
    return _candidates(evidence, *parts)


# One answer


def _reason(evidence: Evidence, chosen: list[tuple[str, Candidate]], first: Candidate) -> str:
    """Why the target is where it is; refuses when something asked for did not exist there."""
    prepared = "COMMIT PREPARED" if first.commit.prepared else "COMMIT"
    reason = f"just before the {prepared} of transaction {first.commit.xid} ({first.kind})"
    others = [(what, one) for what, one in chosen if one.commit.lsn != first.commit.lsn]
    for what, one in others:
        for harm in one.asked:
            told, row = evidence.classes.before(harm.oid, first.commit.lsn)
            asked = harm.name is not None and quoted(harm.schema, harm.name) == what
            if asked and told and row is None:
                raise RecoveryError(
                    f"{what} was dropped at {format_lsn(one.lsn)} but did not yet exist at {format_lsn(first.lsn)}, "
                    f"where the first of the tables named was lost ({first.line()}). No one target has them all. "
                    "Nothing was changed. Recover them one after the other, with an incident each.",
                    candidates=[candidate.as_dict(evidence.database.name) for _name, candidate in chosen],
                )
    if others:
        later = "; ".join(f"{what} went later, {one.line()}" for what, one in others)
        reason += f", the first of {len(chosen)} losses asked for: {later}"
    return reason


def whole(evidence: Evidence, request: Request, candidate: Candidate, rows: Optional[damage.Harms] = None) -> Candidate:
    """The candidate with all that its transaction damaged, be it asked for or not.

    ``rows`` are what it deleted and updated. A delete counts from the first row, an update, which many a transaction
    does beside its work, from as many rows as the user asked for.
    """
    every = Request(request.database)
    lsn = candidate.commit.lsn
    harms = [*damage.drops(evidence, every).get(lsn, []), *damage.truncates(evidence, every).get(lsn, [])]
    harms += damage.dropped_columns(evidence, every).get(lsn, [])
    gone = {harm.oid for harm in harms if harm.damage in ("drop", "truncate")}
    for harm in (rows or {}).get(lsn, []):
        if harm.oid not in gone and (harm.damage == "delete" or (harm.rows or 0) >= request.min_rows):
            harms.append(harm)
    asked = {(harm.oid, harm.damage) for harm in candidate.asked}
    others = [damage.with_rows(evidence, lsn, one) for one in harms if (one.oid, one.damage) not in asked]
    return replace(candidate, others=tuple(others))
