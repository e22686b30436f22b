-- What one database recorded. Lines: e an event, d what it dropped, r what it wrote anew, t a table before and after, b bytes.
COPY (
  SELECT 'e', pid, transaction, (coalesce(began, ended) * 1e6)::bigint, (ended * 1e6)::bigint, tag, text,
         coalesce(array_to_json(objects)::text, '[]'), coalesce(array_to_json(locks)::text, '[]')
  FROM switchback_trace.event ORDER BY n
) TO STDOUT;
COPY (
  SELECT 'd', pid, transaction, (at * 1e6)::bigint, kind, name, original FROM switchback_trace.dropped ORDER BY at
) TO STDOUT;
COPY (
  SELECT 'r', pid, transaction, (at * 1e6)::bigint, name, reason FROM switchback_trace.rewrite ORDER BY at
) TO STDOUT;
COPY (
  SELECT 't', b.name, a.name, b.file, b.bytes, a.file, a.bytes,
         greatest(coalesce(a.inserted, 0) - coalesce(b.inserted, 0), 0),
         greatest(coalesce(a.updated, 0) - coalesce(b.updated, 0), 0),
         greatest(coalesce(a.deleted, 0) - coalesce(b.deleted, 0), 0)
  FROM switchback_trace.relation b FULL JOIN switchback_trace.now a USING (id)
  ORDER BY 2, 3
) TO STDOUT;
COPY (
  SELECT 'b', pg_wal_lsn_diff(pg_current_wal_lsn(), lsn)::bigint, bytes,
         pg_database_size(current_database()) - pg_total_relation_size('switchback_trace.event')
           - pg_total_relation_size('switchback_trace.dropped') - pg_total_relation_size('switchback_trace.rewrite')
           - pg_total_relation_size('switchback_trace.relation')
  FROM switchback_trace.start
) TO STDOUT;
