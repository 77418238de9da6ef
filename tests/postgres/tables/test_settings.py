"""Settings that somebody gave to the role we come as, or to the database: none of them may touch a recovery."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect

HOSTILE = {
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "statement_timeout": "'1ms'",
    "lock_timeout": "'1ms'",
    "idle_in_transaction_session_timeout": "'1ms'",
    "search_path": "nowhere",
    "quote_all_identifiers": "on",
    "role": "dbre_reader",
    "client_encoding": "LATIN1",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "standard_conforming_strings": "off",
    "datestyle": "'SQL, DMY'",
    "intervalstyle": "iso_8601",
    "bytea_output": "escape",
    "extra_float_digits": "-3",
    "timezone": "'Asia/Kolkata'",
    "row_security": "on",
    "client_min_messages": "debug5",
    "default_tablespace": "dbre_space",
    "temp_file_limit": "0",
    "session_replication_role": "replica",
    "work_mem": "'64kB'",
    "maintenance_work_mem": "'1MB'",
}


@pytest.mark.parametrize("load", ["beside", "merge"])
def test_no_setting_of_the_role_changes_or_stops_a_recovery(shop: Any, load: str) -> None:
    production, side = shop.production, shop.side
    user = shop.params.get("login_user") or production.sql("postgres", "SELECT current_user")
    # A limit that only a superuser sets, only a superuser can lift.
    hostile = {name: text for name, text in HOSTILE.items() if name != "temp_file_limit" or user != "master"}
    definition, contents = production.definition("shop"), production.contents("shop")
    production.sql("shop", "DROP TABLE orders CASCADE" if load == "beside" else "DELETE FROM lines WHERE id > 100")
    for server in (production, side):
        server.sql("postgres", *(f'ALTER ROLE "{user}" SET {name} = {text}' for name, text in hostile.items()))
    answer = shop.recover("shop", relations=["orders" if load == "beside" else "lines"], load=load)
    assert answer["result"]["difference"] == []
    shop.remove("shop")
    connection = connect({"login_unix_socket": str(shop.root), "login_port": production.port}, "postgres")
    connection.autocommit = True
    connection.cursor().execute(f'ALTER ROLE "{user}" RESET ALL')
    connection.close()
    assert production.contents("shop") == contents
    assert production.definition("shop") == definition
