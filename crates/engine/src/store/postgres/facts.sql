-- What is to be known about the server. Lines: f and a JSON object; h a rule of pg_hba.conf;
-- v database, recorded and actual version of its collation; X: what cannot be seen.
COPY (
  SELECT 'f', json_build_object(
    'version_num', current_setting('server_version_num')::int,
    'version', current_setting('server_version'),
    'role', current_user,
    'superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
    'replication', (SELECT rolreplication FROM pg_roles WHERE rolname = current_user),
    'in_recovery', pg_is_in_recovery(),
    'data_checksums', current_setting('data_checksums') = 'on',
    'wal_level', current_setting('wal_level'),
    'max_wal_senders', current_setting('max_wal_senders')::int,
    'wal_senders', (SELECT count(*) FROM pg_stat_replication),
    'max_replication_slots', current_setting('max_replication_slots')::int,
    'max_slot_wal_keep_size', coalesce(current_setting('max_slot_wal_keep_size', true), '-1'),
    'archive_mode', current_setting('archive_mode'),
    'archives', coalesce((SELECT bool_or(setting NOT IN ('', '(disabled)')) FROM pg_settings
                 WHERE name IN ('archive_command', 'archive_library')), false),
    'preload', (SELECT setting FROM pg_settings WHERE name = 'shared_preload_libraries'),
    'tablespaces', (SELECT coalesce(json_agg(json_build_object('name', spcname, 'location', pg_tablespace_location(oid))
                    ORDER BY spcname), '[]') FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')),
    'slots', (SELECT coalesce(json_agg(json_build_object('name', slot_name, 'kind', slot_type, 'database', database,
              'active', active, 'retained_bytes', CASE WHEN NOT pg_is_in_recovery()
                THEN pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8 END) ORDER BY slot_name), '[]')
              FROM pg_replication_slots),
    'prepared_transactions', (SELECT count(*) FROM pg_prepared_xacts),
    'unreadable_databases', (SELECT coalesce(json_agg(datname ORDER BY datname), '[]') FROM pg_database
              WHERE NOT datallowconn AND NOT datistemplate)
  )::text
) TO STDOUT;
SELECT $sql$
COPY (
  SELECT 'v', datname, datcollversion, pg_database_collation_actual_version(oid) FROM pg_database WHERE datallowconn
) TO STDOUT
$sql$ WHERE current_setting('server_version_num')::int >= 150000
\gexec
SELECT CASE WHEN has_function_privilege('pg_catalog.pg_hba_file_rules()', 'EXECUTE') THEN $sql$
COPY (
  SELECT 'h', json_build_object('line', line_number, 'kind', type, 'users', user_name, 'address', address, 'netmask', netmask,
         'method', auth_method)::text
  FROM pg_hba_file_rules WHERE 'replication' = ANY(database) AND error IS NULL ORDER BY line_number
) TO STDOUT
$sql$ ELSE 'COPY (SELECT ''X'') TO STDOUT' END
\gexec
