-- Tables of a superuser that use what another role made, whose code tries to become more whenever somebody runs it.
SET dbre.silent = on;
CREATE SCHEMA t;
GRANT CREATE ON SCHEMA m TO PUBLIC;
CREATE TABLE t.typed (id serial PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, v m.amount, w m.pair, x m.amount[]);
CREATE TABLE t.checked (id int PRIMARY KEY, v text CHECK (m.ok('trusted check')));
CREATE TABLE t.constant (id int PRIMARY KEY, v m.printed[] DEFAULT '{0}');
CREATE TABLE t.computed (id int PRIMARY KEY, v int, w int GENERATED ALWAYS AS (v + m.one('trusted generated')) STORED);
CREATE TABLE t.indexed (id int PRIMARY KEY, v int);
CREATE INDEX indexed_index ON t.indexed ((v + m.one('trusted index')));
CREATE STATISTICS t.counted ON (v + m.one('trusted statistics')), id FROM t.indexed;
CREATE TABLE t.keyed (id int, v int) PARTITION BY RANGE ((v + m.one('trusted key')));
CREATE TABLE t.keyed_a PARTITION OF t.keyed FOR VALUES FROM (0) TO (1000000);
CREATE TABLE t.parted (id int, v m.amount) PARTITION BY LIST (v);
CREATE TABLE t.parted_a PARTITION OF t.parted FOR VALUES IN (1);
CREATE TABLE t.parted_b PARTITION OF t.parted DEFAULT;
CREATE TABLE t.secured (id int PRIMARY KEY, v m.amount);
ALTER TABLE t.secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON t.secured USING (m.ok('trusted policy'));
CREATE TABLE t.child (id int PRIMARY KEY, parent int REFERENCES t.typed, other int REFERENCES m.checked);
CREATE TABLE t.plain (id int PRIMARY KEY, v text CHECK (v <> ''));
CREATE MATERIALIZED VIEW t.stored AS SELECT id, m.attack('trusted materialized view') AS v FROM t.plain WITH NO DATA;
GRANT SELECT ON t.typed TO dbre_mallory;

INSERT INTO t.typed (id, v, w, x) SELECT g, g, ROW(g, g)::m.pair, ARRAY[g]::m.amount[] FROM generate_series(1, 3) g;
INSERT INTO t.checked SELECT g, 'x' FROM generate_series(1, 3) g;
INSERT INTO t.constant SELECT g FROM generate_series(1, 3) g;
INSERT INTO t.computed SELECT g, g FROM generate_series(1, 3) g;
INSERT INTO t.indexed SELECT g, g FROM generate_series(1, 3) g;
INSERT INTO t.keyed VALUES (1, 1), (2, 2), (3, 3);
INSERT INTO t.parted VALUES (1, 1), (2, 2), (3, 3);
INSERT INTO t.secured SELECT g, g FROM generate_series(1, 3) g;
INSERT INTO t.child SELECT g, g, g FROM generate_series(1, 3) g;
INSERT INTO t.plain SELECT g, 'x' FROM generate_series(1, 3) g;
-- Nothing looks at their expressions by itself.
ALTER TABLE t.indexed SET (autovacuum_enabled = off);
REFRESH MATERIALIZED VIEW t.stored;
TRUNCATE m.seen;
