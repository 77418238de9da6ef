# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an incident is: what is there, what goes wrong, how the playbook is called, what must be true afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

RECOVERED = "recovered"
IN_PART = "recovered in part"
REFUSED = "refused"


@dataclass(frozen=True)
class Call:
    """One call of the playbook. ``{name}`` in an option is what the damage printed as ``name=value``."""

    options: dict[str, Any]
    outcome: str = RECOVERED
    says: tuple[str, ...] = ()  # regular expressions that the screen or the report must match


@dataclass(frozen=True)
class Incident:
    """One incident. Scripts are psql's: each statement its own transaction, ``\\c`` goes elsewhere.

    Rows and definitions of the whole database must afterwards be as they were just before the damage, but for what
    ``world`` (run after the damage, before the playbook) changed; ``but`` names tables of which the rows, and
    ``definitions`` says whether the definitions, are not compared. ``holds`` are queries with their answers.
    """

    name: str
    damage: str
    calls: tuple[Call, ...]
    prepare: str = ""  # before the backup
    grow: str = ""  # after the backup
    world: str = ""
    database: str = "shop"
    create: str = ""  # options of CREATE DATABASE
    settings: str = ""  # lines of postgresql.conf
    least_version: int = 0
    but: tuple[str, ...] = ()
    definitions: bool = True
    holds: dict[str, str] = field(default_factory=dict)
    crowd: bool = False  # after the damage, the role "crowd" takes all connections but the reserved ones
    inside: bool = True  # the life beside lives in this database, too
    short: bool = False  # belongs to the short selection


def asked(*tables: str, **more: Any) -> tuple[Call, ...]:
    """One call that names tables and recovers them."""
    return (Call({"dr_tables": list(tables), **more}),)


SHOP = """
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE orders (
    id bigserial PRIMARY KEY, customer int NOT NULL REFERENCES customers, amount numeric(10, 2) CHECK (amount > 0),
    note text, at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX orders_at_idx ON orders (at) WHERE amount > 10;
CREATE TABLE lines (
    order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE, line int, article text, PRIMARY KEY (order_id, line)
);
CREATE VIEW big_orders AS SELECT * FROM orders WHERE amount > 90;
CREATE TABLE prices (product text PRIMARY KEY, price int);
INSERT INTO customers SELECT g, 'customer ' || g FROM generate_series(1, 200) g;
INSERT INTO orders (customer, amount, note)
    SELECT 1 + g % 200, 1 + g % 100, md5(g::text) FROM generate_series(1, 4000) g;
INSERT INTO lines SELECT id, l, 'article ' || l FROM orders, generate_series(1, 2) l;
INSERT INTO prices SELECT 'product ' || g, g FROM generate_series(1, 5000) g;
"""
# The last commit before the damage, which must be back too.
GROW = """
INSERT INTO orders (customer, amount, note) SELECT 1, 5, 'since the backup' FROM generate_series(1, 500);
INSERT INTO prices VALUES ('the last before', 1);
"""


def in_shop(name: str, damage: str, calls: tuple[Call, ...], **more: Any) -> Incident:
    """An incident in the shop; ``prepare`` adds to it."""
    return Incident(name, damage, calls, SHOP + more.pop("prepare", ""), GROW + more.pop("grow", ""), **more)
