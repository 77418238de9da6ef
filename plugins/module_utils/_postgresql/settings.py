# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of every session of ours, whatever ALTER ROLE, ALTER DATABASE or the server's files say."""

from __future__ import annotations

import re
from collections.abc import Mapping

# What must never stop, hide or redirect our work. Given in the startup packet, it goes before ALTER ROLE and ALTER
# DATABASE ... SET and before any file, and is what RESET leads back to. A role needs no right for any of it.
# dbre.allow_drop is the way through this collection's own drop protection.
# Names and operators are PostgreSQL's own. Were the path empty, types and tables of the session's temporary schema
# would go before those: code of users can make a domain pg_temp.text even where it may make no temporary table.
SAFE_PATH = "pg_catalog,pg_temp"
SAFE_SETTINGS = {
    "role": "none",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "row_security": "off",
    "search_path": SAFE_PATH,
    "quote_all_identifiers": "off",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "standard_conforming_strings": "on",
    "client_min_messages": "warning",
    "check_function_bodies": "off",
    "default_tablespace": "",
    "temp_tablespaces": "",
    "default_table_access_method": "heap",
    # Where a catalogue is large, its queries look costly, and to compile one takes seconds, far longer than to run it.
    "jit": "off",
    "local_preload_libraries": "",
    "dbre.allow_drop": "on",
}
# And what both ends must agree on so that the same row gives the same text.
SETTINGS = {
    **SAFE_SETTINGS,
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "xmlbinary": "base64",
    "xmloption": "content",
}
SETTINGS_14 = {"idle_session_timeout": "0", "client_connection_check_interval": "2s"}
SETTINGS_17 = {"transaction_timeout": "0"}
# Only a superuser may say these: a limit of files would end the building of an index, a damaged page must not be read
# as an empty one, and a trigger or a foreign key must not sleep because the role is set to. What definitions hold of
# secrets must not reach the server's log when one cannot be put back; the error is told by us.
SUPERUSER_SETTINGS = {
    "temp_file_limit": "-1",
    "session_replication_role": "origin",
    "zero_damaged_pages": "off",
    "ignore_checksum_failure": "off",
    "log_min_error_statement": "panic",
}
# Libraries of production that a side host may lack; they are loaded when a session begins, so this cannot come later.
NO_LIBRARIES = {"session_preload_libraries": ""}


def session_options(settings: Mapping[str, str]) -> str:
    """Settings as libpq's ``options`` (and PGOPTIONS) want them."""
    escaped = ((name, re.sub(r"([\\\s])", r"\\\1", value)) for name, value in settings.items())
    return " ".join(f"-c {name}={value}" for name, value in escaped)


def late_settings(version_num: int, superuser: bool) -> dict[str, str]:
    """Settings that not every server knows or every role may make, so that they cannot be given before we are in."""
    return {
        **(SETTINGS_14 if version_num >= 140000 else {}),
        **(SETTINGS_17 if version_num >= 170000 else {}),
        **(SUPERUSER_SETTINGS if superuser else {}),
    }
