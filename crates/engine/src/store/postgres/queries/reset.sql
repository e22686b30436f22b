-- What was counted so far is forgotten: that is not undone with the transaction.
SELECT format('SELECT %I.pg_stat_statements_reset()', nspname) AS switchback
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = 'pg_stat_statements' \gexec
ROLLBACK;
