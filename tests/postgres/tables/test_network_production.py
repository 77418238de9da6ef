"""What is particular to a production reached over the network by a role that is no superuser."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.fingerprint import take_fingerprint

pytestmark = pytest.mark.parametrize("world", ["network"], indirect=True)
DROP = "DROP TABLE orders CASCADE"
COPYING = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'dbre.recovery test%' AND query ~ '^COPY '"
STAGED = "SELECT count(*) FROM pg_namespace WHERE nspname ~ 'recovered'"
# A role that the master user did not make (enough since PostgreSQL 16), and that is a member of it (before).
FOREIGN = ("CREATE ROLE dbre_foreign", "GRANT master TO dbre_foreign")
LINES = {"schema": "public", "name": "lines"}


def test_an_owner_that_cannot_be_become_is_named_with_who_must_grant_it_before_anything_is_changed(shop: Any) -> None:
    production, side = shop.production, shop.side
    production.sql("shop", *FOREIGN, "ALTER TABLE orders OWNER TO dbre_foreign")
    shop.take_side()
    production.sql("shop", DROP)
    damaged = production.definition("shop")
    message = shop.refused("shop", relations=["orders"])
    assert 'cannot become "dbre_foreign"' in message
    assert 'GRANT "dbre_foreign" TO "master"' in message
    assert "a superuser" in message
    assert production.definition("shop") == damaged
    for server in (production, side):
        server.sql("shop", "REVOKE master FROM dbre_foreign", "GRANT dbre_foreign TO master")
    assert shop.recover("shop", relations=["orders"])["result"]["difference"] == []
    shop.remove("shop")
    production.sql("shop", "REVOKE dbre_foreign FROM master")


def test_an_exchange_of_tables_is_refused_before_anything_is_changed(shop: Any) -> None:
    shop.take_side()
    assert "our role is no superuser" in shop.refused("shop", relations=["orders"], load="swap")
    assert shop.production.sql("shop", STAGED) == 0


def test_a_membership_that_was_there_stays_as_it_was(shop: Any) -> None:
    production = shop.production
    new = production.sql("postgres", "SELECT current_setting('server_version_num')::int >= 160000")
    half = " WITH INHERIT FALSE" if new else ""
    production.program("psql", "-qX", "-U", "master", f"-cGRANT dbre_app TO master{half}")
    before = shop.memberships()
    production.sql("shop", DROP)
    assert shop.recover("shop", relations=["orders"])["result"]["difference"] == []
    shop.remove("shop")
    assert shop.memberships() == before
    production.program("psql", "-qX", "-U", "master", "-cREVOKE dbre_app FROM master")


def test_a_run_that_fails_while_it_loads_has_given_back_what_it_borrowed(shop: Any) -> None:
    production = shop.production
    definition, contents = production.definition("shop"), production.contents("shop")
    before = shop.memberships()
    production.sql("shop", DROP)
    failing = shop.start_recovery("shop", relations=["orders"])
    deadline = time.monotonic() + 30
    while not production.sql("shop", COPYING):
        assert time.monotonic() < deadline
    assert shop.memberships() != before
    shop.side.stop()
    assert "error" in shop.finish(failing)
    assert shop.memberships() == before
    shop.side.start()
    shop.recover("shop", relations=["orders"])
    shop.remove("shop")
    assert production.definition("shop") == definition
    assert production.contents("shop") == contents


def test_a_table_of_a_superuser_is_refused_with_the_server_s_words(shop: Any) -> None:
    production = shop.production
    production.sql("shop", "GRANT pg_read_all_data TO rds_superuser", "ALTER TABLE orders OWNER TO postgres")
    shop.take_side()
    production.sql("shop", DROP)
    message = shop.refused("shop", relations=["orders"])
    assert "table public.orders cannot be put back on 127.0.0.1" in message
    assert "Nothing was changed" in message
    assert production.sql("shop", STAGED) == 0


def test_what_hangs_on_a_table_of_a_superuser_is_left_with_its_command(shop: Any) -> None:
    production = shop.production
    production.sql("shop", "GRANT pg_read_all_data TO rds_superuser", "ALTER TABLE lines OWNER TO postgres")
    shop.take_side()
    definition, contents = production.definition("shop"), production.contents("shop")
    production.sql("shop", DROP)
    answer = shop.recover("shop", relations=["orders"])
    (left,) = answer["plan"]["left_to_do"]
    assert left["object"] == "lines_order_id_fkey on public.lines"
    assert answer["result"]["left_to_do"] == [left]
    assert answer["result"]["difference"] == []
    shop.remove("shop")
    production.sql("shop", left["command"])
    assert production.definition("shop") == definition
    assert production.contents("shop") == contents


def test_a_trusted_extension_is_back_and_one_that_only_a_superuser_can_make_is_left(shop: Any) -> None:
    production = shop.production
    production.sql(
        "shop",
        "CREATE SCHEMA ext AUTHORIZATION dbre_app",
        "CREATE EXTENSION citext SCHEMA ext",
        "CREATE EXTENSION pg_prewarm SCHEMA ext",
        "CREATE TABLE ext.mails (mail ext.citext PRIMARY KEY)",
        "INSERT INTO ext.mails VALUES ('A@example.com')",
        "ALTER TABLE ext.mails OWNER TO dbre_app",
    )
    shop.take_side()
    definition, contents = production.definition("shop"), production.contents("shop")
    production.sql("shop", "DROP SCHEMA ext CASCADE")
    answer = shop.recover("shop", schemas=["ext"])
    left = answer["plan"]["left_to_do"]
    assert [entry["object"] for entry in left if entry["type"] == "extension"] == ["pg_prewarm"]
    assert shop.finish_left("shop", answer) == []
    shop.remove("shop")
    assert production.definition("shop") == definition
    assert production.contents("shop") == contents


@pytest.mark.parametrize("load", ["merge", "replace"])
def test_rows_go_back_into_a_table_that_hides_them_even_from_its_owner(shop: Any, load: str) -> None:
    production = shop.production
    production.sql(
        "shop",
        "CREATE POLICY even ON lines USING (id % 2 = 0)",
        "CREATE POLICY even ON orders USING (id % 2 = 0)",
        *(
            f"ALTER TABLE {table} {verb} ROW LEVEL SECURITY"
            for table in ("lines", "orders")
            for verb in ("ENABLE", "FORCE")
        ),
    )
    shop.take_side()
    definition, contents = production.definition("shop"), production.contents("shop")
    production.sql("shop", "DELETE FROM lines WHERE id > 1000")
    answer = shop.recover("shop", relations=["lines"], load=load)
    assert answer["result"]["left_to_do"] == []
    for kept in answer["result"]["kept"]:
        production.sql("shop", kept["command"])
    shop.remove("shop")
    assert production.contents("shop") == contents
    assert production.definition("shop") == definition


def test_a_role_that_cannot_keep_triggers_from_firing_is_refused_and_told_how_it_could(shop: Any) -> None:
    production = shop.production
    if production.sql("postgres", "SELECT current_setting('server_version_num')::int >= 150000"):
        production.sql("postgres", "REVOKE SET ON PARAMETER session_replication_role FROM rds_superuser")
    production.sql("shop", "DELETE FROM lines WHERE id > 1000")
    message = shop.refused("shop", relations=["lines"], load="merge")
    assert "may not set session_replication_role" in message
    assert "dr_load=beside" in message
    assert production.sql("shop", STAGED) == 0


def test_a_view_whose_owner_may_not_read_what_it_shows_is_back_empty_and_named(shop: Any) -> None:
    production = shop.production
    production.sql(
        "shop",
        "CREATE MATERIALIZED VIEW totals AS SELECT sum(total) FROM orders",
        "CREATE MATERIALIZED VIEW total AS SELECT * FROM totals",
        "ALTER MATERIALIZED VIEW totals OWNER TO dbre_owner",
        "ALTER MATERIALIZED VIEW total OWNER TO dbre_app",
    )
    shop.take_side()
    definition = production.definition("shop")
    production.sql("shop", DROP)
    result = shop.recover("shop", relations=["orders"])["result"]
    left = [entry for entry in result["left_to_do"] if entry["type"] == "materialized view"]
    assert [entry["command"] for entry in left] == [
        f'REFRESH MATERIALIZED VIEW "public"."{name}";' for name in ("totals", "total")
    ]
    shop.remove("shop")
    assert production.definition("shop") == definition


def test_a_server_that_is_not_the_one_the_certificate_names_is_refused(shop: Any, tmp_path: Any) -> None:
    other = tmp_path / "other.pem"
    other.write_text(shop.certificate.read_text().replace("A", "B", 40))
    message = shop.refused("shop", relations=["orders"], params={**shop.params, "ca_cert": str(other)})
    assert "cannot connect" in message
    instance = {**shop.params["instance"], "host": "127.0.0.2"}
    message = shop.refused("shop", relations=["orders"], params={**shop.params, "instance": instance})
    assert "cannot connect" in message


def test_a_fingerprint_of_what_belongs_to_others_is_taken_and_leaves_nothing_behind(shop: Any) -> None:
    own = connect({"login_unix_socket": str(shop.production.root), "login_port": shop.production.port}, "shop")
    connection = connect(shop.params, "shop")
    mine = take_fingerprint(connection, [LINES], [], max_of="id")
    assert mine == take_fingerprint(own, [LINES], [], max_of="id")
    assert mine["public.lines"]["rows"] == 2000
    for session in (own, connection):
        session.close()
    shop.production.sql("shop", *FOREIGN, "ALTER TABLE lines OWNER TO dbre_foreign")
    connection = connect(shop.params, "shop")
    with pytest.raises(RecoveryError, match='GRANT "dbre_foreign" TO "master"'):
        take_fingerprint(connection, [LINES], [])
    connection.close()


HIDING = [
    "CREATE POLICY see ON lines FOR SELECT USING (id % 2 = 0)",
    "CREATE POLICY add ON lines FOR INSERT WITH CHECK (true)",
    "CREATE POLICY take ON lines FOR DELETE USING (true)",
    "ALTER TABLE lines ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE lines FORCE ROW LEVEL SECURITY",
]


def test_printed_commands_lose_no_row_that_the_role_that_runs_them_does_not_see(shop: Any) -> None:
    """DELETE without a condition takes rows that no SELECT shows, so that the copy beside would lack them."""
    production = shop.production
    production.sql("shop", *HIDING)
    definition = production.definition("shop")
    shop.take_side()
    contents = production.contents("shop")
    production.sql("shop", "DELETE FROM lines WHERE id > 1500", "UPDATE lines SET t = 'of today' WHERE id <= 3")
    damaged = production.contents("shop")
    left = shop.recover("shop", relations=["lines"], load="beside")["result"]["left_to_do"]
    merge, exchange, back = (entry["command"] for entry in left)
    assert 'GRANT "dbre_app" TO "master"' in left[0]["reason"]
    production.program("psql", "-qX", "-U", "master", '-cGRANT "dbre_app" TO "master"')

    def rows_of(name: str) -> Any:
        return production.contents("shop")[name]

    def as_master(command: str) -> None:
        production.program("psql", "-qX", "-v", "ON_ERROR_STOP=1", "-U", "master", f"-c{command}", database="shop")

    as_master(exchange)
    assert rows_of("lines") == contents["lines"]
    as_master(back)
    assert rows_of("lines") == damaged["lines"]
    as_master(merge)
    assert production.sql("shop", "SELECT count(*) FROM lines") == 2000
    assert production.sql("shop", "SELECT count(*) FROM lines WHERE t = 'of today'") == 3
    production.sql("shop", *(item["command"] for item in shop.remove("shop")["kept"]))
    shop.remove("shop")
    production.program("psql", "-qX", "-U", "master", "-cREVOKE dbre_app FROM master")
    assert production.definition("shop") == definition, "the table hides its rows as before"
