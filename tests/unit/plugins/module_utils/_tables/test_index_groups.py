# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is built beside production's work, together, by what pg_dump 15 says of it."""

from __future__ import annotations

from ansible_collections.dbre.recovery.plugins.module_utils._tables.index_groups import groups_of, part_of
from ansible_collections.dbre.recovery.plugins.module_utils._tables.toc import parse_toc

# "cust" with keys, of which a view needs one; "p" with partitions "p1", "p2", and "p21" of "p2".
LISTING = """
3237; 2606 16426 CONSTRAINT public cust cust_code postgres
;	depends on: 214
3418; 0 0 COMMENT public CONSTRAINT cust_code ON cust postgres
;	depends on: 3237
3239; 2606 16390 CONSTRAINT public cust cust_pkey postgres
;	depends on: 214
3240; 1259 16453 INDEX public p_i postgres
;	depends on: 215 215
3419; 0 0 COMMENT public INDEX p_i postgres
;	depends on: 3240
3243; 1259 16454 INDEX public p1_c_d_idx postgres
;	depends on: 3240 216 216 216
3246; 1259 16455 INDEX public p2_c_d_idx postgres
;	depends on: 3240 217 217 217
3249; 1259 16456 INDEX public p21_c_d_idx postgres
;	depends on: 3246 218 218 218
3252; 0 0 INDEX ATTACH public p1_c_d_idx postgres
;	depends on: 3243 3240 216 215
3256; 0 0 INDEX ATTACH public p21_c_d_idx postgres
;	depends on: 3249 3246 218 217
3254; 0 0 INDEX ATTACH public p2_c_d_idx postgres
;	depends on: 3246 3240 217 215
3404; 2618 16460 RULE public v _RETURN postgres
;	depends on: 214 214 3239 214 222
3259; 2606 16432 FK CONSTRAINT public l l_code_fkey postgres
;	depends on: 3237 214 219
3420; 0 0 COMMENT public CONSTRAINT l_code_fkey ON l postgres
;	depends on: 3259
"""


def test_a_tree_is_built_together_and_a_key_with_the_foreign_keys_that_need_it_unless_a_view_needs_it() -> None:
    entries = parse_toc(LISTING)
    found = [
        [[entry.dump_id for entry in part] for part in group]
        for group in groups_of(entries, [entry for entry in entries if entry.description != "FK CONSTRAINT"])
    ]
    assert found == [
        [[3237], [3418], [3259], [3420]],
        [[3240, 3243, 3246, 3249], [3419, 3252, 3256, 3254], [], []],
    ]


# The keys of "p" with partitions "p1", "p2", and "p21" of "p2".
KEYS = """
3212; 2606 16388 CONSTRAINT public p p_pkey postgres
;	depends on: 214 214
3214; 2606 16393 CONSTRAINT public p1 p1_pkey postgres
;	depends on: 215 3212 215 215
3216; 2606 16398 CONSTRAINT public p2 p2_pkey postgres
;	depends on: 216 216 216 3212
3218; 2606 16403 CONSTRAINT public p21 p21_pkey postgres
;	depends on: 217 217 3216 217
3219; 0 0 INDEX ATTACH public p1_pkey postgres
;	depends on: 215 3214 3212 3212 215 214
3221; 0 0 INDEX ATTACH public p21_pkey postgres
;	depends on: 217 3218 216 3212 3216 216 3212 3216 217 216
3220; 0 0 INDEX ATTACH public p2_pkey postgres
;	depends on: 216 3212 3216 3212 216 214
"""


def test_what_is_attached_to_what_is_told_by_what_needs_what() -> None:
    for listing, expected in (
        (LISTING, {3252: (3243, 3240), 3256: (3249, 3246), 3254: (3246, 3240)}),
        (KEYS, {3219: (3214, 3212), 3221: (3218, 3216), 3220: (3216, 3212)}),
    ):
        entries = parse_toc(listing)
        (group,) = (group for group in groups_of(entries, entries) if len(group.members) == 4)
        attachments = [entry for entry in group.hanging if entry.description == "INDEX ATTACH"]
        pairs = {entry.dump_id: tuple(end.dump_id for end in part_of(entry, group.members)) for entry in attachments}
        assert pairs == expected
