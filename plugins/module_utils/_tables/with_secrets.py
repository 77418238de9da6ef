# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign servers, user mappings and subscriptions that went: they may hold passwords, and people make them again.

They hang on no table and no schema. That the damage took them the recovered instance says, which stands just before its
COMMIT: their rows in the catalogues have its number as ``xmax`` already.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.masking import mask_text
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import is_superuser
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_literal,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows

with suppress(ImportError):  # connect() says so
    import psycopg2
    from psycopg2.extensions import make_dsn, parse_dsn

# What is known to hold no secret. A wrapper may call its password anything, so that all else is not shown.
SHOWN = frozenset(
    [
        *("user", "username", "host", "hostaddr", "port", "dbname", "dbserver", "database", "service", "address"),
        *("sslmode", "sslcert", "sslkey", "sslrootcert", "passfile", "channel_binding", "target_session_attrs"),
        *("application_name", "connect_timeout", "fetch_size", "batch_size", "extensions", "use_remote_estimate"),
        *("updatable", "truncatable", "async_capable", "keep_connections", "fdw_startup_cost", "fdw_tuple_cost"),
    ]
)

SERVERS = """
SELECT s.oid::int8 AS oid, s.srvname::text AS name, pg_catalog.pg_get_userbyid(s.srvowner)::text AS owner,
       s.srvtype AS type, s.srvversion AS version, w.fdwname::text AS wrapper,
       (SELECT e.extname::text FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
        WHERE d.classid = 'pg_catalog.pg_foreign_data_wrapper'::regclass AND d.objid = w.oid AND d.deptype = 'e'
        LIMIT 1) AS extension,
       ARRAY(SELECT ARRAY[o.option_name, o.option_value]
             FROM pg_catalog.pg_options_to_table(s.srvoptions) AS o) AS options
FROM pg_catalog.pg_foreign_server s JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw
WHERE s.xmax::text::int8 = ANY(%(xids)s::int8[]) ORDER BY 2
"""
# Who is no superuser sees the catalogue of mappings only through the view, and the options of few of them.
DROPPED_MAPPINGS = "SELECT oid::int8 AS oid FROM pg_catalog.pg_user_mapping WHERE xmax::text::int8 = ANY(%s::int8[])"
MAPPINGS = """
SELECT m.umid::int8 AS oid, m.srvname::text AS server, CASE WHEN m.umuser <> 0 THEN m.usename::text END AS role,
       ARRAY(SELECT ARRAY[o.option_name, o.option_value]
             FROM pg_catalog.pg_options_to_table(m.umoptions) AS o) AS options,
       m.umoptions IS NULL AND NOT pg_catalog.current_setting('is_superuser')::bool AS untold
FROM pg_catalog.pg_user_mappings m
WHERE m.umid IN (SELECT asked.oid::oid FROM unnest(%(oids)s::int8[]) AS asked(oid))
   OR m.srvid IN (SELECT asked.oid::oid FROM unnest(%(servers)s::int8[]) AS asked(oid))
ORDER BY 2, 3
"""
SUBSCRIPTIONS = """
SELECT s.subname::text AS name, pg_catalog.pg_get_userbyid(s.subowner)::text AS owner, s.subconninfo AS conninfo,
       s.subslotname::text AS slot, s.subpublications AS publications,
       pg_catalog.to_jsonb(s) - 'subconninfo' AS settings
FROM pg_catalog.pg_subscription s
WHERE s.subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND s.xmax::text::int8 = ANY(%(xids)s::int8[]) ORDER BY 1
"""
# By kind, what production has: names that tell it from others of the kind.
HAVE = """
SELECT 'server' AS kind, srvname::text AS name, NULL AS of FROM pg_catalog.pg_foreign_server
UNION ALL SELECT 'wrapper', fdwname::text, NULL FROM pg_catalog.pg_foreign_data_wrapper
UNION ALL SELECT 'role', rolname::text, NULL FROM pg_catalog.pg_roles
UNION ALL SELECT 'mapping', CASE WHEN umuser <> 0 THEN usename::text END, srvname::text
          FROM pg_catalog.pg_user_mappings
UNION ALL SELECT 'subscription', subname::text, NULL FROM pg_catalog.pg_subscription
          WHERE subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
"""

# Options of CREATE SUBSCRIPTION by their columns of the catalogue, of which some versions lack some, and what each is
# without being said; the default of streaming is another one since 18.
SUBSCRIPTION_OPTIONS: dict[str, tuple[str, Any]] = {
    "subbinary": ("binary", False),
    "substream": ("streaming", None),
    "subtwophasestate": ("two_phase", "d"),
    "subdisableonerr": ("disable_on_error", False),
    "subpasswordrequired": ("password_required", True),
    "subrunasowner": ("run_as_owner", False),
    "suborigin": ("origin", "any"),
    "subfailover": ("failover", False),
    "subsynccommit": ("synchronous_commit", "off"),
}
# Values of the catalogue in words (src/include/catalog/pg_subscription.h).
SUBSCRIPTION_WORDS = {True: "on", False: "off", "t": "on", "f": "off", "p": "parallel"}

Have = Collection[tuple[str, Any, Any]]


def split_options(options: Iterable[Sequence[str]]) -> tuple[list[tuple[str, str]], list[str]]:
    """Options that may be shown, and the names of the others."""
    shown, secret = [], []
    for name, text in options:
        if name in SHOWN and mask_text(text) == text:
            shown.append((name, text))
        else:
            secret.append(name)
    return shown, secret


def options_clause(options: Iterable[tuple[str, str]]) -> str:
    """`` OPTIONS (...)``; nothing without options."""
    words = ", ".join(f"{quote_ident(name)} {quote_literal(text)}" for name, text in options)
    return f" OPTIONS ({words})" if words else ""


def to_fill_in(secret: Sequence[str], statement: str) -> str:
    """What the reason says of options that are not shown; ``statement`` is what takes them."""
    if not secret:
        return ""
    names = ", ".join(secret)
    return (
        f". It had more options, whose values are not shown: {names}. Take them from where you keep such, or from the "
        f"recovered instance, and add them by {statement}"
    )


def _with_role(role: str | None, have: Have) -> str:
    """What makes a role first that is gone."""
    gone = role is not None and ("role", role, None) not in have
    return f"CREATE ROLE {quote_ident(role or '')} NOLOGIN; " if gone else ""


def _entry(kind: str, name: str, command: str, secret: Sequence[str], statement: str) -> dict[str, Any]:
    """What goes into ``left_to_do``; the values that are not shown are in the recovered instance, which stays then."""
    reason = "it may hold a password, so that it is not made again without you; run the command"
    return {
        "kind": kind,
        "name": name,
        "reason": reason + to_fill_in(secret, statement),
        "command": command,
        "lost": True,
        "needs_side_instance": bool(secret),
    }


def server_entry(server: Mapping[str, Any], have: Have) -> dict[str, Any]:
    """The entry of a foreign server."""
    shown, secret = split_options(server["options"])
    name = quote_ident(server["name"])
    command = _with_role(server["owner"], have)
    if ("wrapper", server["wrapper"], None) not in have and server["extension"]:
        command += f"CREATE EXTENSION IF NOT EXISTS {quote_ident(server['extension'])}; "
    command += f"CREATE SERVER {name}"
    for word in ("type", "version"):
        if server[word] is not None:
            command += f" {word.upper()} {quote_literal(server[word])}"
    command += f" FOREIGN DATA WRAPPER {quote_ident(server['wrapper'])}{options_clause(shown)}; "
    command += f"ALTER SERVER {name} OWNER TO {quote_ident(server['owner'])};"
    return _entry(
        "server", display_name(None, server["name"]), command, secret, f"ALTER SERVER {name} OPTIONS (ADD ...)"
    )


def mapping_entry(mapping: Mapping[str, Any], have: Have) -> dict[str, Any]:
    """The entry of a user mapping."""
    shown, secret = split_options(mapping["options"])
    of = f"USER MAPPING FOR {'PUBLIC' if mapping['role'] is None else quote_ident(mapping['role'])}"
    of += f" SERVER {quote_ident(mapping['server'])}"
    if mapping["untold"]:
        secret = ["all that it had, which only superusers and who it is for may see"]
    command = f"{_with_role(mapping['role'], have)}CREATE {of}{options_clause(shown)};"
    role = "public" if mapping["role"] is None else display_name(None, mapping["role"])
    name = f"{role} on server {display_name(None, mapping['server'])}"
    return _entry("user mapping", name, command, secret, f"ALTER {of} OPTIONS (ADD ...)")


def subscription_options(settings: Mapping[str, Any]) -> list[str]:
    """The options of a row of pg_subscription that are not the default, as CREATE SUBSCRIPTION takes them."""
    found = []
    for column, (name, default) in SUBSCRIPTION_OPTIONS.items():
        held = settings.get(column)
        if held is None or held == default:
            continue
        if name == "two_phase":
            # Whether the publisher was already asked for it (pending or enabled) is of the slot that it had.
            word = "on"
        elif name in ("origin", "synchronous_commit"):
            word = quote_literal(held)
        else:
            word = SUBSCRIPTION_WORDS[held]
        found.append(f"{name} = {word}")
    return found


def subscription_entry(subscription: Mapping[str, Any], have: Have) -> dict[str, Any]:
    """The entry of a subscription, which is made without a connection and without a slot of its own."""
    try:
        words = parse_dsn(subscription["conninfo"])
    except psycopg2.ProgrammingError:
        words = {"connection": subscription["conninfo"]}
    shown, secret = split_options(words.items())
    name = quote_ident(subscription["name"])
    slot = "NONE" if subscription["slot"] is None else quote_literal(subscription["slot"])
    owner = subscription["owner"]
    options = ["connect = false", f"slot_name = {slot}", *subscription_options(subscription["settings"])]
    command = (
        f"{_with_role(owner, have)}CREATE SUBSCRIPTION {name} CONNECTION {quote_literal(make_dsn(**dict(shown)))} "
        f"PUBLICATION {', '.join(map(quote_ident, subscription['publications']))} "
        f"WITH ({', '.join(options)}); ALTER SUBSCRIPTION {name} OWNER TO {quote_ident(owner)};"
    )
    statement = f"ALTER SUBSCRIPTION {name} CONNECTION"
    entry = _entry("subscription", display_name(None, subscription["name"]), command, secret, statement)
    # Without copy_data = false all rows of the publisher come once more.
    after = (
        f". Then see to its slot on the publisher, and run ALTER SUBSCRIPTION {name} ENABLE and at once ALTER "
        f"SUBSCRIPTION {name} REFRESH PUBLICATION WITH (copy_data = false), since its tables hold their rows. What "
        "was changed on the publisher meanwhile is missing in them, unless its slot is still there: compare"
    )
    return {**entry, "reason": entry["reason"] + after}


def dropped_with_secrets(
    production: Any, side: Any, xids: Sequence[int], mappings: Iterable[int] = (), planned: Collection[int] = ()
) -> list[dict[str, Any]]:
    """Arguments of ``left_to_do``'s entries for what the transactions ``xids`` dropped and production has no more.

    ``mappings`` are OIDs of user mappings that are known to be lost; servers whose OIDs are ``planned`` come back.
    """
    short = [xid & 0xFFFFFFFF for xid in xids]
    servers = rows(side, SERVERS, {"xids": short})
    found, subscriptions = list(mappings), []
    if is_superuser(side):
        found += [row["oid"] for row in rows(side, DROPPED_MAPPINGS, (short,))]
        subscriptions = rows(side, SUBSCRIPTIONS, {"xids": short})
    lost = rows(side, MAPPINGS, {"oids": found, "servers": [server["oid"] for server in servers]})
    if not servers and not lost and not subscriptions:
        return []
    have = {(row["kind"], row["name"], row["of"]) for row in rows(production, HAVE)}
    entries = [
        server_entry(server, have)
        for server in servers
        if server["oid"] not in planned and ("server", server["name"], None) not in have
    ]
    entries += [
        mapping_entry(mapping, have) for mapping in lost if ("mapping", mapping["role"], mapping["server"]) not in have
    ]
    entries += [
        subscription_entry(one, have) for one in subscriptions if ("subscription", one["name"], None) not in have
    ]
    return entries
