"""Names and values that are hard to carry: of other encodings, of none, and very large ones."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import login_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import open_servers
from ansible_collections.dbre.recovery.plugins.module_utils._tables.copy import copy_table

# What each encoding has beyond ASCII; a database of SQL_ASCII has any bytes, here some that are no UTF-8.
WORDS = {
    "LATIN1": "größe",
    "EUC_JP": "注文",
    "WIN1251": "заказы",
    "KOI8R": "заказы",
    "SQL_ASCII": b"gr\xf6\xdfe \xff".decode("utf-8", "surrogateescape"),
}
FILLED = """
SET ROLE dbre_owner;
CREATE TYPE "@ mood" AS ENUM ('@', 'sad');
CREATE TABLE "@" (id int PRIMARY KEY, "@ note" text UNIQUE, mood "@ mood", CHECK ("@ note" <> '@'));
INSERT INTO "@" SELECT g, '@ ' || g, '@' FROM generate_series(1, 100) g;
CREATE TABLE "@ lines" (id int PRIMARY KEY, parent int REFERENCES "@", note varchar(50), other json);
INSERT INTO "@ lines" SELECT g, 1 + g % 100, '@' || g, '{"@": 1}' FROM generate_series(1, 500) g;
CREATE TABLE "@ gone" AS SELECT * FROM "@ lines";
COMMENT ON TABLE "@ gone" IS '@';
"""


def test_names_and_values_of_every_encoding_come_back(world: Any, shop: Any) -> None:
    production = world.production
    contents = {}
    for encoding, word in WORDS.items():
        name = encoding.lower()
        production.sql(
            "postgres",
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C' OWNER dbre_owner",
        )
        production.sql(name, "GRANT ALL ON SCHEMA public TO dbre_owner", FILLED.replace("@", word))
        contents[encoding] = production.contents(name)
    world.take_side()
    for encoding, word in WORDS.items():
        name = encoding.lower()
        damage = ['TRUNCATE "@ lines"', 'DELETE FROM "@" WHERE id > 50', 'DROP TABLE "@ gone"']
        production.sql(name, *(statement.replace("@", word) for statement in damage))
        relations = [f'"{word}", "{word} lines", "{word} gone"']
        answer = world.recover(name, relations=relations, load="merge")
        assert [entry["reason"] for entry in answer["result"]["left_to_do"]] == []
        assert answer["result"]["difference"] == []
        world.remove(name)
        assert production.contents(name) == contents[encoding]
        assert production.sql(name, "SELECT obj_description('\"@ gone\"'::regclass)".replace("@", word)) == word


@pytest.mark.whole  # half a minute, for one limit of COPY's text
def test_a_value_of_more_than_half_a_gigabyte_beside_types_of_users_comes_back(world: Any, shop: Any) -> None:
    if not shop.params["bin_dir"]:
        # What is carried over the network is the same.
        return
    production = shop.production
    production.sql(
        "shop",
        "CREATE TYPE mood AS ENUM ('glad', 'sad')",
        "CREATE TYPE state AS (mood mood, since date)",
        "CREATE DOMAIN short AS varchar(10)",
        "CREATE DOMAIN feeling AS mood",
        "CREATE DOMAIN picture AS bytea CHECK (octet_length(VALUE) > 0)",
        "CREATE TABLE scans (id int PRIMARY KEY, mood mood, moods mood[], feeling feeling, state state, kind short,"
        " content picture)",
        "INSERT INTO scans SELECT 1, 'sad', '{sad,glad}', 'glad', ('sad', current_date)::state, 'large',"
        " convert_to(repeat('0123456789abcdef', 34000000), 'SQL_ASCII')",
    )
    shop.take_side()
    production.sql("shop", "DROP TABLE scans")
    shop.recover("shop", relations=["scans"])
    asked = "SELECT concat(length(content), mood, moods, feeling, (state).mood, kind) FROM scans"
    assert production.sql("shop", asked) == "544000000sad{sad,glad}gladsadlarge"


def test_what_the_recovered_instance_says_is_not_hidden_by_what_comes_of_it(world: Any, shop: Any) -> None:
    params = shop.params
    with open_servers(login_of(params), params["bin_dir"], "test", params["instance"], params["instance_password"]) as (
        production,
        side,
    ):
        connection = production.connect("shop")
        statement = "COPY (SELECT 1 / (id - 50) FROM public.customers) TO STDOUT WITH (FORMAT binary)"
        with pytest.raises(RecoveryError, match="division by zero"):
            copy_table(connection, side, "shop", statement, "COPY public.keyless FROM STDIN WITH (FORMAT binary)")
        connection.close()
