# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an expression of a table may run. The trees are texts of pg_node_tree as PostgreSQL 15 keeps them."""

from __future__ import annotations

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.users_code import calls_of

# CHECK (v IN ('a', 'b')) of a varchar(5).
IN_LIST = (
    "{SCALARARRAYOPEXPR :opno 98 :opfuncid 67 :hashfuncid 0 :negfuncid 0 :useOr true :inputcollid 100 :args "
    "({RELABELTYPE :arg {VAR :varno 1 :varattno 1 :vartype 1043 :vartypmod 9 :varcollid 100 :varlevelsup 0 :varnosyn 1 "
    ":varattnosyn 1 :location 42} :resulttype 25 :resulttypmod -1 :resultcollid 100 :relabelformat 2 :location -1} "
    "{ARRAYCOERCEEXPR :arg {ARRAYEXPR :array_typeid 1015 :array_collid 100 :element_typeid 1043 :elements ({CONST "
    ":consttype 1043 :consttypmod -1 :constcollid 100 :constlen -1 :constbyval false :constisnull false :location 48 "
    ":constvalue 5 [ 20 0 0 0 97 ]}) :multidims false :location -1} :elemexpr {RELABELTYPE :arg {CASETESTEXPR :typeId "
    "1043 :typeMod -1 :collation 0} :resulttype 25 :resulttypmod -1 :resultcollid 100 :relabelformat 2 :location -1} "
    ":resulttype 1009 :resulttypmod -1 :resultcollid 100 :coerceformat 2 :location -1}) :location 44}"
)
# The index expression (v + one('index')), of which the second part is a function of a user.
INDEX = (
    "({OPEXPR :opno 551 :opfuncid 177 :opresulttype 23 :opretset false :opcollid 0 :inputcollid 0 :args ({VAR :varno 1 "
    ":varattno 2 :vartype 23 :vartypmod -1 :varcollid 0 :varlevelsup 0 :varnosyn 1 :varattnosyn 2 :location 28} "
    "{FUNCEXPR :funcid 16404 :funcresulttype 23 :funcretset false :funcvariadic false :funcformat 0 :funccollid 0 "
    ":inputcollid 100 :args ({CONST :consttype 25 :consttypmod -1 :constcollid 100 :constlen -1 :constbyval false "
    ":constisnull false :location 38 :constvalue 9 [ 36 0 0 0 105 110 100 101 120 ]}) :location 32}) :location 30})"
)
# CHECK (v::amount > 0), where amount is a domain whose check the server would run.
TO_DOMAIN = (
    "{OPEXPR :opno 521 :opfuncid 147 :opresulttype 16 :opretset false :opcollid 0 :inputcollid 0 :args "
    "({COERCETODOMAIN :arg {VAR :varno 1 :varattno 1 :vartype 23 :vartypmod -1 :varcollid 0 :varlevelsup 0 :varnosyn 1 "
    ":varattnosyn 1 :location 20} :resulttype 16410 :resulttypmod -1 :resultcollid 0 :coercionformat 1 :location 21} "
    "{CONST :consttype 23 :consttypmod -1 :constcollid 0 :constlen 4 :constbyval true :constisnull false :location 32 "
    ":constvalue 4 [ 0 0 0 0 0 0 0 0 ]}) :location 30}"
)


def test_all_that_an_expression_names_is_looked_at():
    assert calls_of([IN_LIST]) == ({67}, {98}, {25, 1009, 1015, 1043}, True)
    assert calls_of([INDEX]) == ({177, 16404}, {551}, {23, 25}, True)
    assert calls_of([IN_LIST, INDEX])[0] == {67, 177, 16404}


def test_a_kind_of_node_that_is_not_known_is_not_harmless():
    assert calls_of([TO_DOMAIN])[3] is False
    assert calls_of(["{NEXTVALUEEXPR :seqid 16400 :typeId 20}"])[3] is False
