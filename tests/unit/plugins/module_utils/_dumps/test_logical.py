# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps recorded from PostgreSQL 15 and 17 of one database (tests/postgres/dump_restores/seed.sql).

The directory dumps are their tables of contents alone; pg15.dump was made with --exclude-table-data=public.orders.
"""

from __future__ import annotations

import dataclasses
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_archive import (
    DATA,
    POST_DATA,
    PRE_DATA,
    Archive,
    Entry,
    data_sizes,
    major_of,
    read_archive,
    refuse_kind,
)
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical import (
    INSTANCE_BYTES,
    bytes_done,
    check_locales,
    check_version,
    creation_time,
    database_properties,
    disk_needed,
    roles_named,
    select,
    tablespaces_named,
)

RECORDED = Path(__file__).parent / "data" / "logical"
BOTH = pytest.mark.parametrize("major", [15, 17])


def recorded(major: int) -> Archive:
    return read_archive(str(RECORDED / f"pg{major}.dir"))


def names(archive: Archive, dump_ids: tuple[int, ...]) -> list[str]:
    return [f"{entry.desc} {entry.tag}" for entry in archive.entries if entry.dump_id in dump_ids]


def changed(archive: Archive, desc: str, **fields: Any) -> Archive:
    """The archive with fields of the items of one kind replaced."""
    entries = tuple(dataclasses.replace(e, **fields) if e.desc == desc else e for e in archive.entries)
    return dataclasses.replace(archive, entries=entries)


def without(archive: Archive, *descs: str) -> Archive:
    return dataclasses.replace(archive, entries=tuple(e for e in archive.entries if e.desc not in descs))


# Reading


@BOTH
def test_the_header_is_read_as_it_was_written(major: int) -> None:
    archive = recorded(major)
    assert (archive.format, archive.compression, archive.database) == ("directory", "gzip", "shop")
    assert archive.server_major == major
    assert archive.version == {15: (1, 14), 17: (1, 16)}[major]
    assert archive.summer_time is True  # made in November in Sydney
    assert (archive.wall_time.year, archive.wall_time.month) == (2026, 11)


@BOTH
def test_items_keep_names_with_blanks_and_capitals_apart(major: int) -> None:
    tables = {(e.namespace, e.tag): e for e in recorded(major).entries if e.desc == "TABLE"}
    assert tables["Sales", "Order Lines"].owner == "postgres"
    assert tables["public", "parts_1"].tablespace == "fast"
    assert tables["public", "orders"].defn.startswith("CREATE TABLE public.orders (")
    assert tables["Sales", "base"].dump_id in tables["public", "child"].deps


@BOTH
def test_grants_and_comments_have_the_section_of_their_object(major: int) -> None:
    sections = {(e.desc, e.tag): e.section for e in recorded(major).entries}
    assert sections["ACL", "TABLE orders"] == PRE_DATA
    assert sections["TABLE DATA", "orders"] == DATA
    assert sections["COMMENT", "CONSTRAINT orders_pkey ON orders"] == POST_DATA


def test_sizes_of_tables_in_a_custom_dump_add_up() -> None:
    archive = read_archive(str(RECORDED / "pg15.dump"))
    tables = {e.dump_id: e.tag for e in archive.entries if e.desc == "TABLE DATA"}
    sizes = {tables.get(number, "large objects"): size for number, size in data_sizes(archive).items()}
    assert sizes["order_lines"] == 1977
    start = min(entry.position for entry in archive.entries if entry.position)
    assert sum(size or 0 for size in sizes.values()) == archive.size - start
    assert "orders" not in sizes


def test_sizes_of_tables_in_a_directory_dump_are_those_of_its_files(tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    shutil.copytree(RECORDED / "pg17.dir", dump)
    files = {entry.file: entry for entry in read_archive(str(dump)).entries if entry.file}
    for number, file in enumerate(files):
        (dump / f"{file}.gz").write_bytes(b"x" * number)
    sizes = data_sizes(read_archive(str(dump)))
    assert sizes == {entry.dump_id: number for number, entry in enumerate(files.values())}


def test_a_directory_dump_without_its_rows_is_refused() -> None:
    with pytest.raises(RecoveryError, match="copied incompletely"):
        data_sizes(recorded(15))


@pytest.mark.parametrize("length", [6, 40, 200, 5000])
def test_a_dump_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    cut = tmp_path / "cut"
    cut.write_bytes((RECORDED / "pg15.dump").read_bytes()[:length])
    with pytest.raises(RecoveryError, match="cut short"):
        read_archive(str(cut))


def test_a_newer_archive_format_is_refused(tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    newer.write_bytes(b"PGDMP\x01\x11\x00\x04\x08\x01")
    with pytest.raises(RecoveryError, match=r"archive format 1\.17"):
        read_archive(str(newer))


@pytest.mark.parametrize(
    ("start", "word"),
    [
        (b"", "is empty"),
        (b"\x1f\x8b\x08\x00", "gunzip"),
        (b"\x28\xb5\x2f\xfd\x24", "zstd -d"),
        (b"\x04\x22\x4d\x18", "lz4 -d"),
        (b"\xfd7zXZ\x00", "xz -d"),
        (b"BZh91AY", "bunzip2"),
        (b"Salted__abc", "encrypted by openssl"),
        (b"age-encryption.org/v1", "encrypted by age"),
        (b"-----BEGIN PGP MESSAGE-----", "encrypted by gpg"),
        (b"\x8c\x0d\x04\x09", "encrypted by gpg"),
        (b"--\n-- PostgreSQL database dump\n--\n", "plain SQL script"),
        (b"\\restrict abc\n", "plain SQL script"),
        (b"SET statement_timeout = 0;\n", "plain SQL script"),
        (b"toc.dat" + b"\0" * 250 + b"ustar", "tar -xf"),
        (b"\x7fELF", "does not begin as a pg_dump archive does"),
    ],
)
def test_other_files_are_refused_with_the_way_on(start: bytes, word: str) -> None:
    message = refuse_kind("/backups/x", start).msg
    assert word in message
    assert "/backups/x" in message


@pytest.mark.parametrize(("text", "major"), [("15.18 (Debian 15.18-0+deb12u1)", 15), ("17beta1", 17), ("9.6.24", 9)])
def test_major_versions(text: str, major: int) -> None:
    assert major_of(text) == major


def test_a_version_that_is_none_is_an_error() -> None:
    with pytest.raises(RecoveryError, match="cannot read a PostgreSQL version"):
        major_of("devel")


# Choosing


@BOTH
def test_a_table_and_nothing_else_gets_its_rows(major: int) -> None:
    archive = recorded(major)
    chosen = select(archive, ["public.orders"], [])
    assert names(archive, chosen.rows) == [
        "TABLE DATA orders",
        "SEQUENCE SET customers_id_seq",
        "SEQUENCE SET orders_id_seq",
    ]
    assert names(archive, chosen.early) == [
        "CONSTRAINT customers customers_pkey",
        "FK CONSTRAINT orders orders_customer_fkey",
    ]
    assert [view.tag for view in chosen.unread_views] == ["report"]


@BOTH
def test_every_definition_is_restored_once(major: int) -> None:
    archive = recorded(major)
    chosen = select(archive, ["public.orders"], [])
    restored = [*chosen.definitions, *chosen.early, *chosen.rows, *chosen.late]
    assert len(restored) == len(set(restored))
    missing = {e.desc for e in archive.entries if e.dump_id not in restored}
    large = {"BLOB METADATA", "BLOBS"} if major >= 17 else {"BLOB", "BLOBS"}
    assert missing == {"COMMENT", "SUBSCRIPTION", "TABLE DATA", "MATERIALIZED VIEW DATA"} | large
    left_out = {f"{entry.desc} {entry.tag}" for entry in chosen.left_out}
    assert {"SUBSCRIPTION elsewhere", "COMMENT SUBSCRIPTION elsewhere"} <= left_out


@BOTH
def test_without_names_all_rows_and_large_objects_are_restored_but_no_subscription(major: int) -> None:
    archive = recorded(major)
    chosen = select(archive, [], [])
    assert {entry.desc for entry in chosen.left_out} == {"SUBSCRIPTION", "COMMENT"}
    restored = [*chosen.definitions, *chosen.early, *chosen.rows, *chosen.late]
    assert len(restored) + len(chosen.left_out) == len(archive.entries)
    assert chosen.unread_views == ()


ORDERS_WITH_OID = "CREATE TABLE public.orders (\n    id bigint NOT NULL,\n    picture oid\n);\n"


@BOTH
def test_large_objects_keep_their_grants_and_remarks(major: int) -> None:
    archive = recorded(major)
    (large,) = (e for e in archive.entries if e.desc in ("BLOB", "BLOB METADATA"))
    # What pg_dump writes of them has no section of its own, so that it takes that of the large object before it.
    about = [
        dataclasses.replace(large, dump_id=9000 + number, desc=desc, tag="LARGE OBJECT 4711", deps=(large.dump_id,))
        for number, desc in enumerate(["COMMENT", "SECURITY LABEL", "ACL"])
    ]
    entries = []
    for entry in archive.entries:
        defn = ORDERS_WITH_OID if (entry.desc, entry.tag) == ("TABLE", "orders") else entry.defn
        entries += [dataclasses.replace(entry, defn=defn), *(about if entry is large else [])]
    archive = dataclasses.replace(archive, entries=tuple(entries))
    ids = {entry.dump_id for entry in [large, *about]}
    chosen = select(archive, ["public.orders"], [])
    assert ids <= {*chosen.definitions, *chosen.rows}
    assert ids <= {entry.dump_id for entry in select(archive, ["public.customers"], []).left_out}


@pytest.mark.parametrize(
    ("defn", "needed"),
    [
        (ORDERS_WITH_OID, []),
        ("CREATE TABLE public.orders (\n    picture public.lo\n);\n", []),
        (
            "CREATE TABLE public.orders (\n    picture public.larger\n);\n",
            [
                ("DOMAIN", "CREATE DOMAIN public.larger AS public.large;\n"),
                ("DOMAIN", "CREATE DOMAIN public.large AS oid;\n"),
            ],
        ),
        (
            "CREATE TABLE public.orders (\n)\nINHERITS (public.pictures);\n",
            [("TABLE", "CREATE TABLE public.pictures (\n    picture oid\n);\n")],
        ),
        (
            "CREATE TABLE public.orders OF public.drawn;\n",
            [("TYPE", "CREATE TYPE public.drawn AS (\n\tid integer,\n\tpicture oid\n);\n")],
        ),
    ],
)
def test_a_column_can_name_large_objects_wherever_it_is_defined(defn: str, needed: list[tuple[str, str]]) -> None:
    archive = recorded(15)
    (orders,) = (entry for entry in archive.entries if (entry.desc, entry.tag) == ("TABLE", "orders"))
    chain = [
        dataclasses.replace(orders, dump_id=9000 + number, desc=desc, tag=f"needed {number}", defn=text, deps=deps)
        for number, (desc, text) in enumerate(needed)
        for deps in [(9001 + number,) if number + 1 < len(needed) else ()]
    ]
    changed_orders = dataclasses.replace(orders, defn=defn, deps=(9000,) if needed else ())
    entries = [*chain, *(changed_orders if entry is orders else entry for entry in archive.entries)]
    chosen = select(dataclasses.replace(archive, entries=tuple(entries)), ["public.orders"], [])
    assert not any(entry.desc in ("BLOB", "BLOBS") for entry in chosen.left_out)


@BOTH
def test_a_partitioned_table_brings_all_below_it(major: int) -> None:
    archive = recorded(major)
    chosen = select(archive, ["public.parts"], [])
    assert sorted(table.tag for table in chosen.loaded) == ["parts", "parts 2", "parts 2a", "parts_1"]
    assert [n for n in names(archive, chosen.rows) if "DATA" in n] == ["TABLE DATA parts 2a", "TABLE DATA parts_1"]
    assert chosen.early == ()


@BOTH
def test_a_key_into_an_empty_partitioned_table_takes_all_parts_of_its_index_along(major: int) -> None:
    archive = recorded(major)
    early = names(archive, select(archive, ["public.uses_parts"], []).early)
    assert [name for name in early if name.startswith("FK")] == ["FK CONSTRAINT uses_parts uses_parts_id_at_fkey"]
    assert {name for name in early if name.startswith("INDEX ATTACH")} == {
        "INDEX ATTACH parts_1_pkey",
        "INDEX ATTACH parts 2_pkey",
        "INDEX ATTACH parts 2a_pkey",
    }


@BOTH
def test_a_schema_brings_its_tables_and_those_that_inherit_from_them(major: int) -> None:
    chosen = select(recorded(major), [], ['"Sales"'])
    assert {table.tag for table in chosen.loaded} == {"Order Lines", "base", "child", "parts 2", "parts 2a"}


def test_a_view_needs_no_rows() -> None:
    chosen = select(recorded(15), ["public.open_orders"], [])
    assert chosen.loaded == ()
    assert [entry.desc for entry in chosen.relations] == ["VIEW"]


@pytest.mark.parametrize(
    ("relation", "similar"),
    [
        ("public.ordres", "public.orders"),
        ('"Sales".customers', "public.customers"),
        ("order_line", "public.order_lines"),
    ],
)
def test_a_table_that_is_not_there_is_refused_with_similar_names(relation: str, similar: str) -> None:
    with pytest.raises(RecoveryError, match="has no table") as caught:
        select(recorded(15), [relation], [])
    assert similar in caught.value.details["similar"]


def test_a_schema_that_is_not_there_is_refused() -> None:
    with pytest.raises(RecoveryError, match=r'has no schema sales\. Similar names in it: "Sales"'):
        select(recorded(15), [], ["Sales"])


def test_tables_without_rows_are_refused() -> None:
    archive = read_archive(str(RECORDED / "pg15.dump"))
    with pytest.raises(RecoveryError, match=r"but not the rows of public\.orders "):
        select(archive, ["public.orders"], [])
    assert select(archive, ["public.order_lines"], []).loaded[0].tag == "order_lines"


@pytest.mark.parametrize(
    ("gone", "lacking"),
    [
        (("TABLE",), "the definitions of its tables"),
        (("SCHEMA",), 'schema "Sales"'),
        (("DATABASE",), "the database's own properties"),
    ],
)
def test_a_dump_of_a_part_is_refused(gone: tuple[str, ...], lacking: str) -> None:
    with pytest.raises(RecoveryError, match="of a part of database shop") as caught:
        select(without(recorded(15), *gone), ["public.orders"], [])
    assert lacking in caught.value.details["lacking"]


def test_a_foreign_key_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(RecoveryError, match="cannot read the foreign key"):
        select(changed(recorded(15), "FK CONSTRAINT", defn="ALTER TABLE x ADD KEY"), [], [])


# What must be there before


@BOTH
def test_all_roles_the_definitions_name_and_which_must_be_superusers(major: int) -> None:
    roles = roles_named(recorded(major))
    assert {name for name in roles if name not in ("postgres", "pg_database_owner")} == {
        *("shop_owner", "shop_app", "only_in_dump", 'Odd "Role')
    }
    assert [name for name, superuser in roles.items() if superuser] == ['Odd "Role']


@pytest.mark.parametrize(
    ("desc", "defn", "expected"),
    [
        ("ACL", 'GRANT ALL ON TABLE public."x TO y" TO a WITH GRANT OPTION;\n', {"a"}),
        ("ACL", 'REVOKE ALL ON SCHEMA public FROM PUBLIC;\nGRANT USAGE ON SCHEMA public TO "B b";\n', {"B b"}),
        (
            "ACL",
            "SET SESSION AUTHORIZATION c;\nGRANT SELECT ON TABLE t TO d;\nRESET SESSION AUTHORIZATION;\n",
            {"c", "d"},
        ),
        (
            "DEFAULT ACL",
            "ALTER DEFAULT PRIVILEGES FOR ROLE e IN SCHEMA s GRANT SELECT ON TABLES  TO f;\n",
            {"e", "f"},
        ),
        (
            "POLICY",
            "CREATE POLICY p ON public.t FOR SELECT TO g, \"H,h\" USING ((note = ' TO z '::text));\n",
            {"g", "H,h"},
        ),
        ("POLICY", "CREATE POLICY p ON public.t USING (true);\n", set()),
        ("USER MAPPING", "CREATE USER MAPPING FOR i SERVER s OPTIONS (\n    password 'x'\n);\n", {"i"}),
        ("USER MAPPING", "CREATE USER MAPPING FOR public SERVER s;\n", set()),
        ("DATABASE PROPERTIES", "ALTER ROLE j IN DATABASE shop SET work_mem TO '8MB';\n", {"j"}),
        ("FUNCTION", "CREATE FUNCTION f() RETURNS void AS 'GRANT x TO nobody;';\n", set()),
    ],
)
def test_roles_in_definitions(desc: str, defn: str, expected: set[str]) -> None:
    entry = Entry(1, 0, "x", desc, PRE_DATA, defn, "", "", "", (), None, "")
    assert set(roles_named(dataclasses.replace(recorded(15), entries=(entry,)))) == expected


@BOTH
def test_tablespaces_of_tables_and_of_the_database(major: int) -> None:
    archive = recorded(major)
    assert tablespaces_named(archive) == ["fast"]
    moved = changed(archive, "DATABASE", defn='CREATE DATABASE shop WITH TEMPLATE = template0 TABLESPACE = "Big Disk";')
    assert tablespaces_named(moved) == ["Big Disk", "fast"]


@BOTH
def test_encoding_and_locale_of_the_database(major: int) -> None:
    assert database_properties(recorded(major)) == {"encoding": "UTF8", "lc_collate": "C.UTF-8", "lc_ctype": "C.UTF-8"}


def test_locales_given_apart() -> None:
    statement = "CREATE DATABASE x WITH TEMPLATE = template0 ENCODING = 'LATIN1' LC_COLLATE = 'C' LC_CTYPE = 'de_DE';"
    properties = database_properties(changed(recorded(15), "DATABASE", defn=statement))
    assert properties == {"encoding": "LATIN1", "lc_collate": "C", "lc_ctype": "de_DE"}


def test_a_locale_the_host_lacks_is_refused() -> None:
    check_locales({"lc_collate": "C", "lc_ctype": "POSIX"}, "db1")
    with pytest.raises(RecoveryError, match="locale 'xx_YY', which db1 does not have"):
        check_locales({"lc_collate": "C", "lc_ctype": "xx_YY"}, "db1")


# When and how much


def test_the_offset_said_by_the_user_counts() -> None:
    archive = recorded(15)
    created = creation_time(archive, "-05:30", datetime(2030, 1, 1, tzinfo=timezone.utc).timestamp())
    assert created.utcoffset() == -timedelta(hours=5, minutes=30)
    assert created.replace(tzinfo=None) == archive.wall_time


def test_without_an_offset_the_hosts_zone_counts() -> None:
    archive = recorded(15)
    created = creation_time(archive, None, datetime(2030, 1, 1, tzinfo=timezone.utc).timestamp())
    assert created.utcoffset() == archive.wall_time.astimezone().utcoffset()


def test_a_dump_begun_after_it_was_written_has_another_zone() -> None:
    archive = recorded(15)
    written = archive.wall_time.replace(tzinfo=timezone(timedelta(hours=11))).timestamp() + 5
    assert creation_time(archive, "+11:00", written).timestamp() == written - 5
    with pytest.raises(RecoveryError, match="lies after its file was written"):
        creation_time(archive, "+00:00", written)


@pytest.mark.parametrize("offset", ["CET", "+1", "Europe/Berlin", "+01:00 "])
def test_only_numeric_offsets_are_taken(offset: str) -> None:
    with pytest.raises(RecoveryError, match="numeric offset"):
        creation_time(recorded(15), offset, 0)


def test_a_dump_of_a_newer_server_or_by_a_newer_pg_dump_is_refused() -> None:
    check_version(recorded(15), 17, "db1")
    with pytest.raises(RecoveryError, match=r"of a server of version 17\."):
        check_version(recorded(17), 15, "db1")
    with pytest.raises(RecoveryError, match=r"by pg_dump 18\.0"):
        check_version(dataclasses.replace(recorded(15), dump_version="18.0"), 15, "db1")


def test_disk_is_needed_for_the_chosen_rows_only() -> None:
    archive = read_archive(str(RECORDED / "pg15.dump"))
    need = disk_needed(archive, select(archive, ["public.order_lines"], []))
    assert need == {"in_dump": 1977, "needed": INSTANCE_BYTES + 19770, "known": True}


def test_where_the_dump_does_not_say_the_whole_of_it_counts() -> None:
    archive = read_archive(str(RECORDED / "pg15.dump"))
    piped = changed(archive, "TABLE DATA", position=None)
    need = disk_needed(piped, select(piped, ["public.order_lines"], []))
    assert (need["in_dump"], need["known"]) == (archive.size, False)


def test_progress_counts_finished_tables_and_how_far_open_ones_are_read() -> None:
    archive = read_archive(str(RECORDED / "pg15.dump"))
    tables = {e.tag: e for e in archive.entries if e.desc == "TABLE DATA"}
    lines, customers, parts = (tables[name] for name in ("order_lines", "customers", "parts_1"))
    items = [lines.dump_id, customers.dump_id, parts.dump_id]
    sizes = data_sizes(archive)
    assert bytes_done(archive, items, [], []) == 0
    reading = [(archive.path, (customers.position or 0) + 100), ("/elsewhere", (parts.position or 0) + 7)]
    assert bytes_done(archive, items, [lines.dump_id], reading) == 1977 + 100
    assert bytes_done(archive, items, items, reading) == sum(sizes[item] or 0 for item in items)


def test_progress_of_a_directory_dump_goes_by_the_names_of_its_files(tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    shutil.copytree(RECORDED / "pg15.dir", dump)
    for entry in read_archive(str(dump)).entries:
        if entry.file:
            (dump / f"{entry.file}.gz").write_bytes(b"x" * 50)
    archive = read_archive(str(dump))
    orders = next(e for e in archive.entries if e.desc == "TABLE DATA" and e.tag == "orders")
    assert bytes_done(archive, [orders.dump_id], [], [(f"{dump}/{orders.file}.gz", 20), (f"{dump}/toc.dat", 5)]) == 20
