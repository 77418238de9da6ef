-- After table_recovery/mallory.sql: what the owner of one schema can put into a dump besides.
CREATE FUNCTION public.give(what text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN EXECUTE what; END $$;
REVOKE ALL ON FUNCTION public.give(text) FROM PUBLIC;
GRANT CREATE ON DATABASE mallory TO dbre_mallory;
CREATE TABLE public.secured (id int PRIMARY KEY, coins int);
INSERT INTO public.secured VALUES (1, 100);
\connect - dbre_mallory
SET dbre.quiet = on;
CREATE FUNCTION m.plant() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  CREATE TRIGGER planted AFTER INSERT ON m.innocent FOR EACH ROW EXECUTE FUNCTION m.fired('planted');
  ALTER TABLE m.innocent ENABLE ALWAYS TRIGGER planted;
END $$;
CREATE OR REPLACE FUNCTION m.steal() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM m.try('SELECT public.give(''ALTER ROLE dbre_mallory SUPERUSER'')');
  PERFORM m.try('SELECT m.plant()');
  EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'touch ' || public.place() || '/stolen');
END $$;
CREATE FUNCTION m.noticed() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM m.attack('event trigger'); END $$;
CREATE FUNCTION m.z_called(x m.amount[] DEFAULT '{1}') RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION m.z_parsed() RETURNS m.amount[] LANGUAGE sql BEGIN ATOMIC SELECT '{1}'::m.amount[]; END;
CREATE FUNCTION m.add(m.amount[], int) RETURNS m.amount[] LANGUAGE sql AS 'SELECT $1';
CREATE AGGREGATE m.total(int) (SFUNC = m.add, STYPE = m.amount[], INITCOND = '{0}');
CREATE FUNCTION m.diff(int, int) RETURNS float8 LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  PERFORM m.attack('range');
  RETURN $1 - $2;
END $$;
CREATE TYPE m.span AS RANGE (subtype = int, subtype_diff = m.diff);
CREATE TABLE m.innocent (id int PRIMARY KEY, v text);
CREATE TABLE m.spans (id int PRIMARY KEY, v m.span);
CREATE INDEX ON m.spans USING gist (v);
CREATE TABLE m.zero (id int PRIMARY KEY, v m.amount[] DEFAULT '{0}', w m.printed[] DEFAULT '{0}');
CREATE TABLE m.bounded (id m.amount) PARTITION BY LIST (id);
CREATE TABLE m.bounded_one PARTITION OF m.bounded FOR VALUES IN (1, 2, 3);
CREATE TABLE m.looped (id int PRIMARY KEY);
CREATE FUNCTION m.sound(m.looped) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RETURN m.ok('loop'); END $$;
ALTER TABLE m.looped ADD CHECK (m.sound(looped));
CREATE TABLE m.pointing (id int PRIMARY KEY REFERENCES m.indexed);
CREATE TABLE m.pointed (id int PRIMARY KEY, v int UNIQUE GENERATED ALWAYS AS IDENTITY);
CREATE TABLE m.ranged (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE VIEW m.valued AS SELECT '{1}'::m.amount[] AS v, '{1}'::m.printed[] AS w;
CREATE RULE ruled AS ON UPDATE TO m.innocent DO ALSO SELECT m.attack('rule');
CREATE PUBLICATION mine FOR TABLE m.innocent;
INSERT INTO m.innocent SELECT g, 'x' FROM generate_series(1, 3) g;
INSERT INTO m.spans SELECT g, m.span(g, g + 5) FROM generate_series(1, 3) g;
INSERT INTO m.zero SELECT g FROM generate_series(1, 3) g;
INSERT INTO m.bounded SELECT g FROM generate_series(1, 3) g;
INSERT INTO m.looped SELECT g FROM generate_series(1, 3) g;
INSERT INTO m.pointing SELECT g FROM generate_series(1, 3) g;
INSERT INTO m.pointed SELECT g FROM generate_series(1, 3) g;
REFRESH MATERIALIZED VIEW m.stored;
TRUNCATE m.seen;
\connect - postgres
SET dbre.quiet = on;
-- What was given to him once, and taken from him since.
ALTER TABLE public.secured OWNER TO dbre_mallory;
ALTER TABLE public.secured ADD CHECK (m.ok('secured'));
-- What others made of his tables: a partition, a trigger whose function he may not call.
CREATE TABLE public.ranged_1 PARTITION OF m.ranged FOR VALUES FROM (1) TO (10);
INSERT INTO m.ranged SELECT g FROM generate_series(1, 3) g;
CREATE FUNCTION public.audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
REVOKE ALL ON FUNCTION public.audit() FROM PUBLIC;
CREATE TRIGGER audited AFTER INSERT ON m.pointed FOR EACH ROW EXECUTE FUNCTION public.audit();
TRUNCATE m.seen;
CREATE EVENT TRIGGER noticed ON ddl_command_end EXECUTE FUNCTION m.noticed();
