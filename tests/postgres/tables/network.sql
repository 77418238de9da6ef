-- Makes a database look as on a managed service: nothing in it belongs to a superuser, but what only a superuser can own.
SET client_min_messages = warning;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_foreign_data_wrapper) THEN
        ALTER FOREIGN DATA WRAPPER dummy OWNER TO postgres;
        GRANT USAGE ON FOREIGN DATA WRAPPER dummy TO PUBLIC;
        ALTER PUBLICATION pub_schema OWNER TO postgres;
    END IF;
END $$;
REASSIGN OWNED BY dbre_super TO dbre_app;
-- As an owner who could not make the thing where it is.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
-- Grants by one who got them, and default privileges of those who make and those who own.
CREATE ROLE dbre_other;
DO $$
BEGIN
    IF to_regclass('app.orders') IS NOT NULL THEN
        -- Before its entry in pg_class is changed, for which autovacuum's ANALYZE would wait with a lock that we need.
        LOCK TABLE app.orders;
        SET LOCAL ROLE dbre_reader;
        GRANT SELECT ON app.orders TO dbre_other;
        RESET ROLE;
        -- Those who own materialized views may read what these show.
        GRANT SELECT ON app.orders TO dbre_app;
        CREATE POLICY all_rows ON app.orders FOR SELECT TO dbre_app USING (true);
        GRANT CREATE ON TABLESPACE dbre_space TO master;
    END IF;
END $$;
ALTER DEFAULT PRIVILEGES FOR ROLE master GRANT SELECT ON TABLES TO dbre_reader WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE master GRANT INSERT, UPDATE ON TABLES TO dbre_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE master REVOKE DELETE ON TABLES FROM master;
ALTER DEFAULT PRIVILEGES FOR ROLE master REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE master REVOKE ALL ON TYPES FROM PUBLIC, master;
ALTER DEFAULT PRIVILEGES FOR ROLE master IN SCHEMA public GRANT ALL ON SEQUENCES TO PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE dbre_app GRANT SELECT ON TABLES TO dbre_other;
