-- What is put into one database to trace it. The functions belong to the superuser who runs this and write only to
-- tables of their own schema; an error in them never reaches the statement that is traced.
DROP SCHEMA IF EXISTS switchback_trace CASCADE;
CREATE SCHEMA switchback_trace;
REVOKE ALL ON SCHEMA switchback_trace FROM PUBLIC;

CREATE TABLE switchback_trace.event (
  n bigint GENERATED ALWAYS AS IDENTITY, pid int, transaction bigint, began double precision, ended double precision,
  tag text, text text, objects text[], locks text[]);
CREATE TABLE switchback_trace.dropped (
  pid int, transaction bigint, at double precision, id oid, kind text, name text, original boolean);
CREATE TABLE switchback_trace.rewrite (
  pid int, transaction bigint, at double precision, name text, reason int);
CREATE VIEW switchback_trace.now AS
  SELECT c.oid AS id, n.nspname || '.' || c.relname AS name,
         coalesce(pg_relation_filenode(c.oid), 0)::bigint AS file, pg_total_relation_size(c.oid) AS bytes,
         pg_stat_get_tuples_inserted(c.oid) AS inserted, pg_stat_get_tuples_updated(c.oid) AS updated,
         pg_stat_get_tuples_deleted(c.oid) AS deleted
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f') AND c.relpersistence <> 't'
    AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'switchback_trace');
CREATE TABLE switchback_trace.relation AS SELECT * FROM switchback_trace.now;
CREATE TABLE switchback_trace.start AS SELECT pg_current_wal_lsn() AS lsn, pg_database_size(current_database()) AS bytes;

-- Only a setting: a write would give the transaction an id, and DROP INDEX CONCURRENTLY refuses to run then.
CREATE FUNCTION switchback_trace.begins() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
  PERFORM set_config('switchback_trace.began', extract(epoch FROM clock_timestamp())::text, false);
EXCEPTION WHEN OTHERS THEN NULL;
END $body$;

CREATE FUNCTION switchback_trace.drops() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
  INSERT INTO switchback_trace.dropped (pid, transaction, at, id, kind, name, original)
  SELECT pg_backend_pid(), txid_current(), extract(epoch FROM clock_timestamp()), objid, object_type,
         CASE WHEN object_type = ANY ('{table,view,materialized view,foreign table}') THEN schema_name || '.' || object_name
              ELSE object_identity END, original
  FROM pg_event_trigger_dropped_objects()
  WHERE NOT is_temporary AND object_type <> 'type' AND coalesce(schema_name, '') !~ '^pg_toast';
EXCEPTION WHEN OTHERS THEN NULL;
END $body$;

CREATE FUNCTION switchback_trace.rewrites() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
  INSERT INTO switchback_trace.rewrite (pid, transaction, at, name, reason)
  SELECT pg_backend_pid(), txid_current(), extract(epoch FROM clock_timestamp()), n.nspname || '.' || c.relname, pg_event_trigger_table_rewrite_reason()
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = pg_event_trigger_table_rewrite_oid();
EXCEPTION WHEN OTHERS THEN NULL;
END $body$;

CREATE FUNCTION switchback_trace.ends() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
  INSERT INTO switchback_trace.event (pid, transaction, began, ended, tag, text, objects, locks)
  SELECT pg_backend_pid(), txid_current(), nullif(current_setting('switchback_trace.began', true), '')::double precision,
    extract(epoch FROM clock_timestamp()), tg_tag, left(current_query(), 4000),
    (SELECT array_agg(DISTINCT object_type || ' ' || object_identity) FROM pg_event_trigger_ddl_commands()
     WHERE NOT in_extension AND object_identity IS NOT NULL AND coalesce(schema_name, '') <> 'pg_temp'),
    (SELECT array_agg(DISTINCT l.mode || ' ' || coalesce(n.nspname || '.' || c.relname, d.name))
     FROM pg_locks l
     LEFT JOIN pg_class c ON c.oid = l.relation
     LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
     LEFT JOIN switchback_trace.dropped d ON c.oid IS NULL AND d.id = l.relation AND d.transaction = txid_current()
       AND d.kind = ANY ('{table,view,materialized view,foreign table}')
     WHERE l.pid = pg_backend_pid() AND l.granted AND l.locktype = 'relation'
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND (d.id IS NOT NULL OR c.relkind IN ('r', 'p', 'm', 'v', 'f') AND c.relpersistence <> 't'
            AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'switchback_trace')));
EXCEPTION WHEN OTHERS THEN NULL;
END $body$;

CREATE EVENT TRIGGER switchback_trace_begins ON ddl_command_start EXECUTE PROCEDURE switchback_trace.begins();
CREATE EVENT TRIGGER switchback_trace_drops ON sql_drop EXECUTE PROCEDURE switchback_trace.drops();
CREATE EVENT TRIGGER switchback_trace_rewrites ON table_rewrite EXECUTE PROCEDURE switchback_trace.rewrites();
-- The last: what it sees includes what the others wrote.
CREATE EVENT TRIGGER switchback_trace_ends ON ddl_command_end EXECUTE PROCEDURE switchback_trace.ends();
ALTER EVENT TRIGGER switchback_trace_begins ENABLE ALWAYS;
ALTER EVENT TRIGGER switchback_trace_drops ENABLE ALWAYS;
ALTER EVENT TRIGGER switchback_trace_rewrites ENABLE ALWAYS;
ALTER EVENT TRIGGER switchback_trace_ends ENABLE ALWAYS;
