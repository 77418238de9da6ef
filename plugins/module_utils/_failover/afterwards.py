# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left to people after a failover, and which hosts did not come along."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted, size
from ansible_collections.dbre.recovery.plugins.module_utils._failover.logical import logical_left

_NAMED = 10
_SETTING = {"name": "synchronous_standby_names", "login_port": "{{ postgresql_port | default(5432) }}"}


def left_to_do(
    planned: Mapping[str, Any],
    found: Mapping[str, Any],
    last_words: Mapping[str, Any],
    fork_lsn: str,
    diverged: Sequence[Mapping[str, Any]] = (),
    applied: bool = True,
    inventory: str = "-i INVENTORY",
    subscribed: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """What people have to do afterwards; what was lost among it, so that no report calls it whole.

    ``found`` is what :func:`located` returned, ``last_words`` what the module postgresql_old_primary returned, empty
    where the old primary was not asked, ``fork_lsn`` where the new timeline began, ``diverged`` what
    :func:`diverged_of` returned, ``applied`` whether synchronous replication is as it was, ``inventory`` the words
    of the command line that name it, ``subscribed`` what :func:`subscribed_of` returned.
    """
    old, new = str((planned.get("primary") or {}).get("host")), str(found["candidate"])
    if "patroni" in found:
        return _named(_left_with_patroni(old, found, last_words), inventory)
    entries: list[dict[str, Any]] = []
    own, kept = last_words.get("own") or {}, last_words.get("kept")
    if own.get("commits"):
        entries.append(
            {
                "what": f"{counted(own['commits'], 'transaction')} that only {old} had",
                "lost": True,
                "reason": (
                    f"{size(own['bytes'])} of WAL, committed up to {own['transactions'][-1]['time']}; the list is in "
                    f"{kept}/transactions.json on {old}, the WAL beside it. {_rows_kept(own, str(kept))} Remove it "
                    "when nobody needs it."
                ),
                "command": f"ansible -i INVENTORY {old} --become -m ansible.builtin.file -a 'path={kept} state=absent'",
            }
        )
    elif found["lost"]["transactions"] is None and not last_words:
        entries.append({"what": f"the last transactions of {old}", "lost": True, "reason": found["lost"]["why"]})
    if not last_words:
        keep = f"fork_lsn={fork_lsn} timeline={found['timeline']} keep=/var/lib/postgresql/last-words-of-{old}"
        entries.append(
            {
                "what": f"Make {old} a standby of {new}",
                "reason": (
                    f"Before its network is back, keep it from starting as a primary: systemctl mask "
                    f"{(planned.get('primary') or {}).get('service') or 'its unit'}. The command keeps what only it "
                    "has, and tells; then unmask the unit, and provision-standby makes a standby of it "
                    f"(-e provision_standby={old} -e postgresql_standby_primary={new})."
                ),
                "command": (
                    f"ansible -i INVENTORY {old} --become --become-user postgres "
                    f"-m dbre.recovery.postgresql_old_primary -a '{keep}'"
                ),
            }
        )
    entries += _inventory(old, new)
    followers = [follower["host"] for follower in found["followers"]]
    entries += [
        {
            "what": f"Look at {host}, which does not follow {new}",
            "reason": f"It {why}.",
            "command": "ansible-playbook -i INVENTORY dbre.recovery.provision_standby",
        }
        for host, why in (planned.get("others") or {}).items()
        if host not in followers
    ]
    entries += [_rebuild(entry, new) for entry in diverged]
    whole = found["lost"]["transactions"] == 0 and not own.get("commits")
    entries += logical_left(found.get("logical") or [], old, new, fork_lsn, whole, subscribed)
    names = (found.get("replication") or {}).get("synchronous_standby_names")
    if names and not applied:
        entries.append(
            {
                "what": f"Let commits on {new} wait for standbys again",
                "reason": (
                    f"By synchronous_standby_names they would wait for {names}, and too few of those stream: with it "
                    "no commit would end. Until then what is committed is on one host alone."
                ),
                "command": (
                    f"ansible -i INVENTORY {new} --become --become-user postgres -m "
                    f"community.postgresql.postgresql_set -a {quote(json.dumps({**_SETTING, 'value': names}))}"
                ),
            }
        )
    return _named(entries, inventory)


def _named(entries: list[dict[str, Any]], inventory: str) -> list[dict[str, Any]]:
    """The entries, with commands that name the inventory."""
    for entry in entries:
        if "command" in entry:
            entry["command"] = entry["command"].replace("-i INVENTORY", inventory)
    return entries


def _inventory(old: str, new: str) -> list[dict[str, Any]]:
    return [
        {
            "what": f"Put {new} into the group primary of the inventory, and {old} into the group standby",
            "reason": (
                "Playbooks take whoever is in that group for the primary. Backups that a repository host takes ask "
                f"{old} until provision-primary has run with the new inventory."
            ),
            "command": "ansible-playbook -i INVENTORY dbre.recovery.provision_primary",
        },
        {
            "what": f"Take a backup of {new}",
            "reason": "Older backups lead to the new timeline over the WAL of the old one; a new one does without.",
            "command": "ansible-playbook -i INVENTORY dbre.recovery.backup_now",
        },
    ]


def _left_with_patroni(old: str, found: Mapping[str, Any], returned: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same where Patroni manages the hosts: ``returned`` says which members it has not brought back (missing)."""
    given, new = found["patroni"], str(found["candidate"])
    ask = f"{given['program']} -c {quote(given['config'])}"
    entries: list[dict[str, Any]] = []
    if found["lost"]["transactions"] is None:
        entries.append({"what": f"the last transactions of {old}", "lost": True, "reason": found["lost"]["why"]})
    for each in returned.get("missing") or []:
        reinit = f"{ask} reinit {given['scope']} {each['member']}"
        entries.append(
            {
                "what": f"Bring Patroni's member {each['member']} back",
                "reason": (
                    f"It {each['why']}. Its log says why. When it cannot follow what it has, the command has Patroni "
                    "DELETE its data and copy it anew from the leader: keep its pg_wal before, which may have what "
                    "nobody else has."
                ),
                "command": f"ansible -i INVENTORY {new} --become --become-user postgres -m ansible.builtin.command "
                f"-a {quote(reinit + ' --force')}",
            }
        )
    if given["leader"] not in given["followers"]:
        entries.append(
            {
                "what": f"Bring {old} back as a standby of {new}",
                "reason": (
                    "Patroni does not run there. Started, it makes a standby of its server by itself: it rewinds it, "
                    "or copies it anew where its configuration says so, and what only it has is gone then. Where that "
                    "may be of use, copy its pg_wal before."
                ),
                "command": f"ansible -i INVENTORY {old} --become -m ansible.builtin.systemd_service "
                f"-a 'name={given['old_unit'] or 'patroni'} state=started'",
            }
        )
    return entries + _inventory(old, new)


def _rows_kept(own: Mapping[str, Any], kept: str) -> str:
    """Where the rows of transactions that only the old primary had are, or why they are nowhere but in its WAL."""
    if own.get("unread"):
        return (
            f"Their rows could not be copied ({own['unread']}): a backup from before, restored with this WAL, has them."
        )
    tables = [
        f"{counted(entry['rows'], 'row')} of {entry['database']}.{entry['schema']}.{entry['table']}"
        for entry in own.get("rows") or []
    ]
    if not tables:
        return "They left no row that they had inserted or updated."
    more = f" and of {len(tables) - _NAMED} more tables" if len(tables) > _NAMED else ""
    return f"What they inserted or updated is in {kept}/rows, one CSV file a table: {', '.join(tables[:_NAMED])}{more}."


def _rebuild(entry: Mapping[str, Any], new: str) -> dict[str, Any]:
    """What to do with a standby that has gone another way than the new primary ``new``."""
    host = entry["host"]
    return {
        "what": f"Rebuild {host}, which is no standby of {new}",
        "reason": (
            f"It has WAL of timeline {entry['timeline']} up to {entry['replayed']}, which {new} left at "
            f"{entry['fork']}: it shows rows that {new} never had, and would never have all of those that it gets. It "
            "follows nobody, so that nothing is written over them: let no application read there."
        ),
        "command": (
            f"ansible-playbook -i INVENTORY dbre.recovery.provision_standby -e provision_standby={host} "
            f"-e postgresql_standby_primary={new} -e postgresql_standby_rebuild=true"
        ),
    }


def diverged_of(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Standbys that cannot follow, as ``{host, timeline, fork, replayed}``.

    ``results`` are those of a task in a loop over the standbys, with the module postgresql_failover.
    """
    found = [(str(result.get(str(result.get("ansible_loop_var", "item")))), result.get("left")) for result in results]
    return [{"host": host, **left} for host, left in found if left]


def not_repointed(results: Sequence[Mapping[str, Any]], old: str) -> list[dict[str, str]]:
    """PgBouncers and names that were not led to the new primary, as ``{host, why}``; one that died with it is none.

    ``results`` are those of tasks in a loop: of pgbouncer_target over hosts, of community.general.nsupdate and
    amazon.aws.route53 over records. Those two return ``changed`` and no ``msg`` when they are done.
    """
    found = []
    for result in results:
        item = result.get(str(result.get("ansible_loop_var", "item")))
        host = str(item["record"] if isinstance(item, Mapping) else item)
        gone_with_it = host == old and result.get("unreachable")
        done = "msg" not in result if isinstance(item, Mapping) else "databases" in result
        if not done and not gone_with_it:
            why = " ".join(str(result.get("msg") or "no answer").split()).replace("Task failed: ", "")
            found.append({"host": host, "why": why})
    return found
