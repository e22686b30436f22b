-- What a table is like, so that it can be told later whether anything but its rows was changed. Lines: x schema, table, stamp, whether its rows are logged: a table;
-- k schema, table, column: the key of one whose rows can be looked up by what is logged of them; y stamp: a type.
COPY (
  SELECT 'x', n.nspname, c.relname, concat_ws(' ', c.oid, c.xmin, c.relfilenode, c.relreplident, c.relpersistence,
      (SELECT string_agg(a.attnum || ':' || a.xmin::text, ',' ORDER BY a.attnum) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0),
      (SELECT string_agg(i.indexrelid || ':' || i.xmin::text, ',' ORDER BY i.indexrelid) FROM pg_index i
        WHERE i.indrelid = c.oid AND i.indisprimary)), c.relpersistence = 'p'
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
) TO STDOUT;
COPY (
  SELECT 'k', n.nspname, c.relname, a.attname
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, pos)
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
  WHERE i.indisprimary AND i.indisvalid AND c.relkind = 'r' AND c.relpersistence = 'p' AND c.relreplident IN ('d', 'f')
    AND k.pos <= i.indnkeyatts AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    -- One form for each value, and none that is equal to another.
    AND NOT EXISTS (
      SELECT FROM unnest(i.indkey::int2[]) WITH ORDINALITY o(attnum, pos)
      JOIN pg_attribute b ON b.attrelid = c.oid AND b.attnum = o.attnum
      LEFT JOIN pg_collation l ON l.oid = b.attcollation
      WHERE o.pos <= i.indnkeyatts AND (NOT coalesce(l.collisdeterministic, true) OR b.atttypid NOT IN (
        'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'uuid'::regtype, 'text'::regtype, 'varchar'::regtype, 'date'::regtype,
        'timestamp'::regtype, 'timestamptz'::regtype, 'bytea'::regtype)))
  ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C", k.pos
) TO STDOUT;
COPY (
  SELECT 'y', s FROM (
    SELECT concat_ws(' ', 't', t.oid, t.xmin) FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE t.typtype IN ('e', 'd', 'r', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    UNION ALL SELECT concat_ws(' ', 'e', e.oid, e.xmin) FROM pg_enum e
    UNION ALL SELECT concat_ws(' ', 'c', c.oid, c.xmin, a.attnum, a.xmin) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relkind = 'c' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  ) q(s)
) TO STDOUT;
