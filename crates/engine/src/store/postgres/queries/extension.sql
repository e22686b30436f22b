-- The extension, for the length of a transaction that is rolled back in the end; where the database has it, that one is used.
BEGIN;
CREATE SCHEMA switchback_queries;
SELECT 'CREATE EXTENSION pg_stat_statements WITH SCHEMA switchback_queries' AS switchback
WHERE NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements') \gexec
