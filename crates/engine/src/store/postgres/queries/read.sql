-- The server's statistics of statements, of all databases: they live in the server, not in a database.
-- Lines: q a form of statement; those of Switchback are left out.
SELECT format('CREATE TEMP VIEW switchback_used AS SELECT to_jsonb(s) AS j FROM %I.pg_stat_statements s', nspname) AS switchback
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = 'pg_stat_statements' \gexec
COPY (
  SELECT 'q', d.datname, j ->> 'query', sum((j ->> 'calls')::bigint)::bigint,
         (sum(coalesce(j ->> 'total_exec_time', j ->> 'total_time')::double precision) * 1000)::bigint,
         sum((j ->> 'rows')::bigint)::bigint,
         sum((j ->> 'shared_blks_hit')::bigint + (j ->> 'shared_blks_read')::bigint)::bigint
  FROM pg_temp.switchback_used JOIN pg_database d ON d.oid = (j ->> 'dbid')::oid
  WHERE length(j ->> 'query') <= 20000 AND j ->> 'query' !~* 'switchback|pg_stat_statements|^\s*(copy|set|show|begin|commit|rollback|start|deallocate|discard|listen|unlisten|notify|savepoint|release|fetch|close|declare|prepare|execute|lock|vacuum|analyze|checkpoint)\y'
  GROUP BY 2, 3 ORDER BY 5 DESC LIMIT 5000
) TO STDOUT;
ROLLBACK;
