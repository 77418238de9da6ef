# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What transactions changed beside relations and their rows: functions, types, grants, roles and the like. Pure.

WAL has rows of the catalogues, and which catalogue that was says what was changed; of which name it is not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TypedDict

from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import Commit

Relation = tuple[int, int, int]

SHOWN = 20  # transactions that are told one by one
_ANY = frozenset(("insert", "update", "delete"))
# Those that a temporary relation adds rows to, or a database that is told by itself.
_CHANGED = frozenset(("update",))
_SEVERAL = {
    "functions": ("pg_proc",),
    "types": ("pg_type", "pg_enum", "pg_range"),
    "operators": ("pg_operator", "pg_opclass", "pg_opfamily", "pg_amop", "pg_amproc", "pg_am"),
    "casts": ("pg_cast", "pg_transform"),
    "collations": ("pg_collation", "pg_conversion"),
    "comments": ("pg_description", "pg_seclabel"),
    "default privileges": ("pg_default_acl",),
    "event triggers": ("pg_event_trigger",),
    "extensions": ("pg_extension",),
    "foreign servers": ("pg_foreign_data_wrapper", "pg_foreign_server", "pg_user_mapping"),
    "languages": ("pg_language",),
    "publications": ("pg_publication", "pg_publication_rel", "pg_publication_namespace"),
    "extended statistics": ("pg_statistic_ext",),
    "text search": ("pg_ts_config", "pg_ts_config_map", "pg_ts_dict", "pg_ts_parser", "pg_ts_template"),
    "roles": ("pg_authid", "pg_auth_members"),
    "settings of roles and databases": ("pg_db_role_setting",),
    "grants on settings": ("pg_parameter_acl",),
    "tablespaces": ("pg_tablespace",),
    "subscriptions": ("pg_subscription", "pg_subscription_rel"),
    "comments on databases and roles": ("pg_shdescription", "pg_shseclabel"),
}
_OWN = "grants or options of relations"
_SEQUENCES = "definitions of sequences"
_TYPES = "types"
_MADE = ("pg_sequence", "insert")
# {catalogue: (what is changed with its rows, which changes count)}
OTHERS: dict[str, tuple[str, Collection[str]]] = {
    **{name: (word, _ANY) for word, names in _SEVERAL.items() for name in names},
    "pg_class": (_OWN, _CHANGED),
    "pg_namespace": ("grants or owners of schemas", _CHANGED),
    "pg_database": ("databases", _CHANGED),
    "pg_sequence": (_SEQUENCES, _CHANGED),
}


class OtherChange(TypedDict):
    """One transaction: what it changed in the database and of the whole server; ``told`` where its relations are."""

    xid: int
    lsn: str
    commit_time: str
    what: list[str]
    shared: list[str]
    told: bool


def other_changes(
    rows: Mapping[int, Mapping[tuple[Relation, str], int]],
    files: Mapping[Relation, str],
    commits: Mapping[int, Commit],
    told: Collection[int],
    temporary: Mapping[int, int],
) -> list[OtherChange]:
    """The transactions that changed catalogues of OTHERS, the oldest first.

    ``rows`` counts changes of rows in ``files`` (with the catalogue's name) by position of the commit and kind;
    ``commits`` are those that are asked about, ``told`` those of which changes of relations are told, ``temporary``
    how often a row of pg_class was changed that is of a temporary relation.
    """
    found: list[OtherChange] = []
    for lsn in sorted(rows.keys() & commits.keys()):
        counts: Counter[tuple[str, bool]] = Counter()
        made = 0
        for (file, kind), count in rows[lsn].items():
            name = files.get(file)
            made += count if name == "pg_class" and kind != "update" else 0
            if name in OTHERS and kind in OTHERS[name][1]:
                counts[OTHERS[name][0], not file[1]] += count
        counts[_OWN, False] -= temporary.get(lsn, 0)
        # A sequence of a column is made, and then given to it.
        counts[_SEQUENCES, False] -= sum(n for (file, kind), n in rows[lsn].items() if (files.get(file), kind) == _MADE)
        if made:
            del counts[_TYPES, False]  # that of the relation's rows
        if lsn in told:
            del counts[_OWN, False]
        words = {key for key, count in counts.items() if count > 0}
        if words:
            commit = commits[lsn]
            found.append(
                {
                    "xid": commit.xid,
                    "lsn": format_lsn(lsn),
                    "commit_time": commit.commit_time,
                    "what": sorted(word for word, shared in words if not shared),
                    "shared": sorted(word for word, shared in words if shared),
                    "told": lsn in told,
                }
            )
    return found


def lines_of(others: Sequence[OtherChange]) -> list[str]:
    """What was changed beside relations, for people: a line for each transaction, as many as people read."""
    if not others:
        return []
    lines = [
        f"    {one['commit_time']}  transaction {one['xid']}  LSN {one['lsn']}  "
        + "; ".join([*one["what"], *(f"{word} of the whole server" for word in one["shared"])])
        for one in others[:SHOWN]
    ]
    if len(others) > SHOWN:
        lines.append(
            f"    and {counted(len(others) - SHOWN, 'more transaction')}; other_changes of the module has them"
        )
    return ["Changed beside tables, indexes and their rows (of which name WAL does not tell):", *lines]


def words_of(transactions: Mapping[str, int]) -> list[str]:
    """What was changed and by how many transactions, for people."""
    return [f"{word} changed by {counted(number, 'transaction')}" for word, number in sorted(transactions.items())]
