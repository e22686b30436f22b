-- What was counted so far is forgotten: that is not undone with the transaction.
BEGIN;
CREATE SCHEMA switchback_queries;
SELECT 'CREATE EXTENSION pg_stat_statements WITH SCHEMA switchback_queries' AS switchback
WHERE NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements') \gexec
SELECT format('SELECT %I.pg_stat_statements_reset()', nspname) AS switchback
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = 'pg_stat_statements' \gexec
ROLLBACK;
