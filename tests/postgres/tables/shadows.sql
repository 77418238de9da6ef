-- Functions and operators that answer instead of PostgreSQL's own wherever a search_path leads to them: in a schema that
-- settings put first, exact copies; in public, which comes after pg_catalog, with types that fit better.
SET search_path = '';
SET check_function_bodies = off;
CREATE SCHEMA shadow;
GRANT USAGE ON SCHEMA shadow, public TO PUBLIC;
CREATE FUNCTION pg_temp.plant(place text, name text, arguments text, result text, is_set bool) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE FUNCTION %I.%I(%s) RETURNS %s %s LANGUAGE plpgsql AS %L', place, name, arguments,
    CASE WHEN is_set THEN 'SETOF' END, result,
    format('BEGIN RAISE LOG ''a shadow was called: %s.%s''; RETURN%s; END', place, replace(name, '%', '%%'),
           CASE WHEN is_set OR result = 'void' THEN '' ELSE ' NULL' END));
EXCEPTION WHEN duplicate_function OR invalid_function_definition OR feature_not_supported THEN
  NULL;
END $$;
\set words `cat :file`
CREATE TEMP TABLE used AS SELECT word FROM pg_catalog.unnest(pg_catalog.string_to_array(:'words', ' ')) AS word;
-- Exact copies.
SELECT count(pg_temp.plant('shadow', proname, pg_catalog.pg_get_function_identity_arguments(p.oid),
                           pg_catalog.format_type(prorettype, NULL), proretset))
  FROM pg_catalog.pg_proc p JOIN used ON word = proname
 WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f'
   AND NOT '{internal,cstring,"\"any\"",anyelement,anyarray,record,trigger,event_trigger}'::regtype[]
           && (proargtypes::oid[]::regtype[] || prorettype::regtype || coalesce(proallargtypes, '{}')::regtype[]);
SELECT count(pg_temp.plant('shadow', 'op_' || o.oid, concat_ws(', ', nullif(oprleft, 0)::regtype, oprright::regtype),
                           oprresult::regtype::text, false))
  FROM pg_catalog.pg_operator o WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprresult <> 0
   AND NOT '{"\"any\"",anyelement,anyarray}'::regtype[] && ARRAY[oprleft, oprright, oprresult]::regtype[];
DO $$
DECLARE o record;
BEGIN
  FOR o IN SELECT oid, oprname, oprleft, oprright FROM pg_catalog.pg_operator
            WHERE oprnamespace = 'pg_catalog'::regnamespace LOOP
    IF to_regproc('shadow.op_' || o.oid) IS NOT NULL THEN
      EXECUTE format('CREATE OPERATOR shadow.%s (%s RIGHTARG = %s, FUNCTION = shadow.op_%s)', o.oprname,
        CASE WHEN o.oprleft <> 0 THEN format('LEFTARG = %s,', o.oprleft::regtype) END, o.oprright::regtype, o.oid);
    END IF;
  END LOOP;
END $$;
-- Better fits.
SELECT count(pg_temp.plant('public', name, arguments, result, false)) FROM (VALUES
  ('pg_relation_filenode', 'oid', 'oid'), ('pg_relation_size', 'oid', 'bigint'), ('pg_total_relation_size', 'oid', 'bigint'),
  ('pg_table_size', 'oid', 'bigint'), ('pg_database_size', 'int', 'bigint'), ('to_regclass', 'name', 'regclass'),
  ('quote_ident', 'name', 'text'), ('quote_ident', 'varchar', 'text'), ('json_build_object', 'text, text', 'json'),
  ('json_build_object', 'text, text, text, int, text, bool, text, pg_lsn', 'json'), ('json_agg', 'json', 'json'),
  ('coalesce', 'text, text', 'text'), ('current_setting', 'varchar', 'text'), ('concat', 'text, text', 'text'),
  ('pg_get_userbyid', 'int', 'name'), ('obj_description', 'int, text', 'text'), ('md5', 'name', 'text'),
  ('jsonb_build_object', 'text, text', 'jsonb'), ('format', 'text, name', 'text'), ('format', 'text, name, name', 'text'),
  ('pg_get_serial_sequence', 'name, name', 'text'), ('array_length', 'name[], int', 'int'), ('string_agg', 'name, text', 'text'),
  ('hashtextextended', 'varchar, int', 'bigint'), ('hashfloat8extended', 'float8, int', 'bigint'), ('float8', 'oid', 'float8'), ('pg_try_advisory_lock', 'int', 'bool')
) AS better(name, arguments, result);
DO $$
DECLARE
  name text; l text; r text;
  types text[] := '{oid,int4,int8,int2,text,name,varchar,"\"char\"",regclass,xid,"name[]","text[]","oid[]",int2vector}';
BEGIN
  FOREACH name IN ARRAY '{=,<>,<,>,<=,>=,||,~,!~,~~,-,+,*,/,&&,@>,<@}'::text[] LOOP
    FOREACH l IN ARRAY types LOOP
      FOREACH r IN ARRAY types LOOP
        IF to_regoperator(format('pg_catalog.%s(%s,%s)', name, l, r)) IS NULL THEN
          PERFORM pg_temp.plant('public', 'op' || name, format('%s, %s', l, r),
                                CASE WHEN name ~ '^[=<>!~&@]' THEN 'bool' ELSE 'text' END, false);
          EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.%I)', name, l, r, 'op' || name);
        END IF;
      END LOOP;
    END LOOP;
  END LOOP;
END $$;
SELECT format('ALTER DATABASE %I SET search_path = shadow, pg_catalog, public', current_database()) \gexec
ALTER ROLE ALL SET search_path = shadow, pg_catalog, public;
