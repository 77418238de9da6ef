# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Relations of which something is not on disk, so that nothing that could look damaged is left.

To the server a table whose file is missing or was cut off is a shorter one, with which nothing is wrong, and a page of
nothing but zeros a new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.spans import spans
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows
from ansible_collections.dbre.recovery.plugins.module_utils._verification.data_files import Layout, Listing

# Tables of other access methods need not have such a file. What is unlogged is empty after a crash, and its count stays
# as it was.
FILES = """
SELECT c.oid::int8 AS oid, pg_catalog.pg_relation_filepath(c.oid) AS path,
       CASE WHEN c.relpersistence = 'p' THEN c.relpages ELSE 0 END::int8 AS pages
FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam
WHERE c.relkind IN ('r', 'm', 't', 'i', 'S') AND c.relpersistence <> 't'
  AND (c.relkind IN ('i', 'S') OR m.amname = 'heap') AND pg_catalog.pg_relation_filepath(c.oid) IS NOT NULL
  AND (%(oids)s::oid[] IS NULL OR c.oid = ANY(%(oids)s::oid[])) ORDER BY 1
"""

# Blocks that a table was extended by and that never held anything are counted, but not in WAL: where the files came
# about by its replay (a standby, one that was promoted, a restored cluster) they may be missing. Those have another
# timeline. Since PostgreSQL 18 a dump brings the count along.
OWN_COUNT = """
SELECT NOT pg_catalog.pg_is_in_recovery() AND pg_catalog.current_setting('server_version_num')::int < 180000
       AND (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()) = 1 AS own
"""


# Blocks that VACUUM or ANALYZE counted are no longer being added.
COUNTED = """
SELECT n.nspname AS schema, c.relname AS name, pg_catalog.pg_relation_filepath(c.oid) AS path, c.relpages::int8 AS pages
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_am m ON m.oid = c.relam
WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p' AND m.amname = 'heap'
  AND pg_catalog.pg_relation_filepath(c.oid) = ANY(%(paths)s) ORDER BY 1, 2
"""


def counts_are_its_own(session: Any) -> bool:
    """Whether files that are shorter than the catalogue counts them can be nothing but damage."""
    found = bool(rows(session, OWN_COUNT)[0]["own"])
    session.rollback()
    return found


def blocks_of_zeros(session: Any, found: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, str, list[int]]]:
    """(schema, name, blocks) of tables with pages of zeros on disk in which the server has no rows either.

    ``found`` are the numbers of such pages by path. Raises what the server says where it cannot look.
    """
    counted = rows(session, COUNTED, {"paths": sorted(found)})
    session.rollback()
    for one in counted:
        blocks = [block for block in found.get(one["path"], ()) if block < one["pages"]]
        left: list[int] = []
        for first, last in spans(blocks):
            query = (
                f"SELECT EXISTS (SELECT FROM ONLY {quote_name(one['schema'], one['name'])} "
                f"WHERE ctid >= '({first},0)'::pg_catalog.tid AND ctid < '({last + 1},0)'::pg_catalog.tid) AS filled"
            )
            if not rows(session, query)[0]["filled"]:
                left += range(first, last + 1)
            session.rollback()
        if left:
            yield one["schema"], one["name"], left


def short_relations(session: Any, layout: Layout, oids: Optional[Sequence[int]]) -> list[dict[str, Any]]:
    """Those of a database (``oids``; None: all) with less on disk than there should be, and ``why`` that is known.

    ``certain`` is whether that can be nothing but damage. Who drops or cuts one at this moment looks the same.
    """
    found = []
    listed = rows(session, FILES, {"oids": oids})
    session.rollback()
    files = Listing(layout)
    for row in listed:
        if row["path"] is None:  # dropped while it was listed
            continue
        blocks = files.blocks(row["path"])
        if blocks is None:
            found.append({**row, "certain": True, "why": "its file is missing"})
        elif blocks[1]:
            why = f"a segment of it is missing or cut off after {blocks[0]} blocks, and later ones are there"
            found.append({**row, "certain": True, "why": why})
        elif blocks[0] < row["pages"]:
            why = f"its file has {blocks[0]} blocks; the last VACUUM, ANALYZE or CREATE INDEX counted {row['pages']}"
            found.append({**row, "certain": False, "why": why})
    return found
