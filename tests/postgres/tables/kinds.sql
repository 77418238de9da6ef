-- A schema with at least one of every kind of object that it can take away with it.
CREATE SCHEMA kinds;
SET search_path = kinds, pg_catalog;
CREATE TYPE pair AS (a int, b text);
CREATE TYPE state AS ENUM ('open', 'paid');
CREATE DOMAIN positive AS int CONSTRAINT is_positive CHECK (VALUE > 0);
CREATE TYPE span AS RANGE (subtype = float8);
CREATE TYPE base;
CREATE FUNCTION base_in(cstring) RETURNS base LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION base_out(base) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
CREATE TYPE base (INPUT = base_in, OUTPUT = base_out, LIKE = int4);
CREATE FUNCTION base_less(base, base) RETURNS bool LANGUAGE internal IMMUTABLE STRICT AS 'int4lt';
CREATE FUNCTION base_same(base, base) RETURNS bool LANGUAGE internal IMMUTABLE STRICT AS 'int4eq';
CREATE FUNCTION base_same_int(base, int) RETURNS bool LANGUAGE internal IMMUTABLE STRICT AS 'int4eq';
CREATE FUNCTION base_order(base, base) RETURNS int LANGUAGE internal IMMUTABLE STRICT AS 'btint4cmp';
CREATE FUNCTION base_not(base) RETURNS int LANGUAGE internal IMMUTABLE STRICT AS 'int4not';
CREATE FUNCTION base_receive(internal) RETURNS base LANGUAGE internal IMMUTABLE STRICT AS 'int4recv';
CREATE OPERATOR < (LEFTARG = base, RIGHTARG = base, FUNCTION = base_less);
CREATE OPERATOR = (LEFTARG = base, RIGHTARG = base, FUNCTION = base_same);
CREATE OPERATOR = (LEFTARG = base, RIGHTARG = int, FUNCTION = base_same_int);
CREATE OPERATOR !~% (RIGHTARG = base, FUNCTION = base_not);
CREATE OPERATOR FAMILY family USING btree;
CREATE OPERATOR CLASS class DEFAULT FOR TYPE base USING btree FAMILY family AS
    OPERATOR 1 <, OPERATOR 3 =, FUNCTION 1 base_order(base, base);
ALTER OPERATOR FAMILY family USING btree ADD OPERATOR 3 = (base, int);
CREATE CAST (base AS int) WITHOUT FUNCTION;
CREATE TRANSFORM FOR base LANGUAGE sql (TO SQL WITH FUNCTION base_receive(internal));
CREATE FUNCTION lesser(base, base) RETURNS base LANGUAGE internal IMMUTABLE STRICT AS 'int4smaller';
CREATE AGGREGATE least_of(base) (SFUNC = lesser, STYPE = base, SORTOP = <);
CREATE FUNCTION twice(variadic int[]) RETURNS TABLE (n int) LANGUAGE sql AS 'SELECT 2 * unnest($1)';
CREATE PROCEDURE nothing(INOUT a int DEFAULT 1) LANGUAGE plpgsql AS 'BEGIN END';
CREATE CONVERSION conversion FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE COLLATION bytewise (LOCALE = 'C');
CREATE TEXT SEARCH PARSER parser
    (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);
CREATE TEXT SEARCH TEMPLATE template (LEXIZE = dsimple_lexize);
CREATE TEXT SEARCH DICTIONARY dictionary (TEMPLATE = template);
CREATE TEXT SEARCH CONFIGURATION configuration (PARSER = parser);
ALTER TEXT SEARCH CONFIGURATION configuration ADD MAPPING FOR word WITH dictionary;
CREATE FUNCTION handle_tables(internal) RETURNS table_am_handler LANGUAGE internal AS 'heap_tableam_handler';
CREATE ACCESS METHOD kinds_heap TYPE TABLE HANDLER handle_tables;
CREATE FUNCTION handle_calls() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE LANGUAGE kinds_language HANDLER handle_calls;
CREATE FUNCTION validate(text[], oid) RETURNS bool LANGUAGE internal AS 'postgresql_fdw_validator';
CREATE FOREIGN DATA WRAPPER kinds_wrapper VALIDATOR validate;
CREATE SERVER kinds_server FOREIGN DATA WRAPPER kinds_wrapper;
CREATE USER MAPPING FOR PUBLIC SERVER kinds_server;
CREATE FOREIGN TABLE far (id int) SERVER kinds_server;
CREATE EXTENSION hstore SCHEMA kinds;
CREATE SEQUENCE counter;
CREATE TABLE things (
    id int PRIMARY KEY DEFAULT nextval('counter'), pair pair, state state, positive positive, span span, base base,
    what hstore, label text COLLATE bytewise, EXCLUDE USING gist (span WITH &&)
) USING kinds_heap;
CREATE TABLE parts (id int NOT NULL REFERENCES things, base base) PARTITION BY LIST (id);
CREATE TABLE part PARTITION OF parts FOR VALUES IN (1);
CREATE INDEX ON things USING btree (base);
CREATE STATISTICS statistics ON id, label FROM things;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER trigger BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE VIEW view AS SELECT id, !~% base AS other FROM things;
CREATE RULE rule AS ON DELETE TO view DO INSTEAD NOTHING;
CREATE POLICY policy ON things USING (id > 0);
CREATE MATERIALIZED VIEW materialized AS SELECT base, count(*) FROM things GROUP BY 1;
CREATE PUBLICATION kinds_tables FOR TABLE things;
CREATE PUBLICATION kinds_schema FOR TABLES IN SCHEMA kinds;
ALTER DEFAULT PRIVILEGES IN SCHEMA kinds GRANT SELECT ON TABLES TO dbre_reader;
INSERT INTO things (pair, state, positive, span, base, what, label)
    SELECT (g::int, 'x'::text)::pair, 'paid', g, span(g, g + 1), g::text::base, hstore('a', g::text), 'label ' || g
    FROM generate_series(1, 100) g;
INSERT INTO parts VALUES (1, '1');
REFRESH MATERIALIZED VIEW materialized;
