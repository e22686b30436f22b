-- What the server logged. Lines: l the end of a statement, s the sum of those that only read, x one that failed.
-- A new version of the server has more columns at the end.
SELECT format('CREATE TEMP TABLE switchback_log (log_time timestamptz, user_name text, database_name text, process_id int, '
  'connection_from text, session_id text, session_line_num bigint, command_tag text, session_start_time timestamptz, '
  'virtual_transaction_id text, transaction_id bigint, error_severity text, sql_state_code text, message text, detail text, '
  'hint text, internal_query text, internal_query_pos int, context text, query text, query_pos int, location text, '
  'application_name text%s)', CASE WHEN v >= 140000 THEN ', backend_type text, leader_pid int, query_id bigint'
  WHEN v >= 130000 THEN ', backend_type text' ELSE '' END)
FROM (SELECT current_setting('server_version_num')::int AS v) q \gexec
SELECT format('COPY switchback_log FROM %L WITH (FORMAT csv, ENCODING %L)',
  current_setting('data_directory') || '/switchback_trace/trace.csv', :'encoding') \gexec
CREATE TEMP TABLE switchback_line AS
  SELECT log_time, session_line_num, database_name, process_id, command_tag,
         CASE WHEN virtual_transaction_id ~ '/0$' THEN '' ELSE virtual_transaction_id END AS transaction,
         (m.parts)[1]::double precision AS ms, left((m.parts)[2], 4000) AS text
  FROM switchback_log, LATERAL (
    SELECT regexp_match(message, '^duration: ([0-9.]+) ms  (?:statement|execute [^:]*): (.*)$') AS parts) m
  WHERE error_severity = 'LOG' AND m.parts IS NOT NULL AND database_name IS NOT NULL
    AND application_name IS DISTINCT FROM 'switchback';
-- Sessions that did more than read and write rows: of those every line counts, because it may end a transaction.
CREATE TEMP TABLE switchback_session AS
  SELECT DISTINCT process_id FROM switchback_line
  WHERE command_tag NOT IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'MERGE', 'COPY', 'BEGIN', 'COMMIT', 'ROLLBACK', 'SET',
    'SHOW', 'START TRANSACTION', 'SAVEPOINT', 'RELEASE', 'PREPARE', 'EXECUTE', 'DEALLOCATE', 'DISCARD ALL', 'FETCH',
    'DECLARE CURSOR', 'CLOSE CURSOR', 'LISTEN', 'NOTIFY', 'UNLISTEN');
COPY (
  SELECT 'l', database_name, process_id, (extract(epoch FROM log_time) * 1e6)::bigint, (ms * 1000)::bigint, command_tag,
         transaction, CASE WHEN command_tag = 'SELECT' THEN left(text, 200) ELSE text END
  FROM switchback_line
  WHERE command_tag IN ('INSERT', 'UPDATE', 'DELETE', 'MERGE', 'COPY', 'CALL')
     OR process_id IN (SELECT process_id FROM switchback_session)
  ORDER BY process_id, session_line_num LIMIT :most
) TO STDOUT;
COPY (
  SELECT 's', count(*), coalesce(sum(ms) * 1000, 0)::bigint FROM switchback_line WHERE command_tag = 'SELECT'
) TO STDOUT;
COPY (
  SELECT 'x', coalesce(database_name, ''), coalesce(sql_state_code, ''), left(message, 1000), left(coalesce(query, ''), 4000)
  FROM switchback_log WHERE error_severity IN ('ERROR', 'FATAL', 'PANIC') AND sql_state_code NOT IN ('57P03', '57P01')
  ORDER BY log_time LIMIT 20
) TO STDOUT;
