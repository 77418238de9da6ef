-- For each kind of session that is in the way, each step that locks a table that is still there has a table of its own.
SET client_min_messages = warning;
CREATE SCHEMA gone;
CREATE FUNCTION gone.same(v int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN v; END';
CREATE FUNCTION gone.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TABLE gone.lost (id int PRIMARY KEY, v int);
INSERT INTO gone.lost SELECT g, g FROM generate_series(1, 1000) g;
CREATE TABLE keys (id int PRIMARY KEY, v int);
INSERT INTO keys SELECT g, g FROM generate_series(1, 100) g;
DO $$
DECLARE kind text; step text;
BEGIN
    FOREACH kind IN ARRAY ARRAY['reader', 'writer', 'locker', 'vacuum'] LOOP
        FOREACH step IN ARRAY ARRAY['key_from', 'key_to', 'trigger', 'check', 'default', 'index', 'policy', 'rule',
                                    'view', 'matview', 'parent', 'merge', 'merge_key', 'columns', 'replace',
                                    'beside'] LOOP
            EXECUTE format('CREATE TABLE %1$s_%2$s (id int PRIMARY KEY, v int)', kind, step);
            EXECUTE format('INSERT INTO %1$s_%2$s SELECT g, g FROM generate_series(1, 100) g', kind, step);
        END LOOP;
        EXECUTE format($sql$
            CREATE TABLE %1$s_tree (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
            CREATE TABLE %1$s_others PARTITION OF %1$s_tree DEFAULT;
            INSERT INTO %1$s_tree SELECT g, g FROM generate_series(1, 100) g;
            CREATE TABLE gone.%1$s_part PARTITION OF %1$s_tree FOR VALUES FROM (1000) TO (2000);
            INSERT INTO %1$s_tree SELECT g, g FROM generate_series(1000, 1099) g;

            ALTER TABLE %1$s_key_from ADD FOREIGN KEY (id) REFERENCES gone.lost;
            CREATE TABLE gone.%1$s (id int PRIMARY KEY REFERENCES %1$s_key_to, v int);
            INSERT INTO gone.%1$s SELECT g, g FROM generate_series(1, 100) g;
            CREATE TRIGGER t BEFORE INSERT ON %1$s_trigger FOR EACH ROW EXECUTE FUNCTION gone.nothing();
            ALTER TABLE %1$s_check ADD CHECK (gone.same(v) = v);
            ALTER TABLE %1$s_default ALTER v SET DEFAULT gone.same(1);
            CREATE INDEX ON %1$s_index (gone.same(v));
            CREATE POLICY p ON %1$s_policy USING (gone.same(v) = v);
            CREATE RULE r AS ON DELETE TO %1$s_rule DO ALSO DELETE FROM gone.lost WHERE id = OLD.id;
            CREATE VIEW gone.%1$s_seen AS SELECT * FROM %1$s_view;
            CREATE MATERIALIZED VIEW gone.%1$s_filled AS SELECT count(*) FROM %1$s_matview;
            CREATE TABLE gone.%1$s_child (more int) INHERITS (%1$s_parent);
            INSERT INTO gone.%1$s_child SELECT g, g, g FROM generate_series(1000, 1099) g;

            ALTER TABLE %1$s_merge ADD FOREIGN KEY (id) REFERENCES %1$s_merge_key;
            CREATE TRIGGER t BEFORE INSERT ON %1$s_merge FOR EACH ROW EXECUTE FUNCTION nothing();
            ALTER TABLE %1$s_merge ENABLE ALWAYS TRIGGER t;
            ALTER TABLE %1$s_columns ADD w int;
            UPDATE %1$s_columns SET w = id;
            ALTER TABLE %1$s_columns ALTER w SET NOT NULL;
            CREATE TRIGGER t BEFORE UPDATE ON %1$s_columns FOR EACH ROW EXECUTE FUNCTION nothing();
            ALTER TABLE %1$s_columns ENABLE ALWAYS TRIGGER t
        $sql$, kind);
    END LOOP;
END $$;
