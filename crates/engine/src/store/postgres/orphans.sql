-- Rows whose foreign key has no parent. Lines: f, table, constraint, parent, whether it was validated, rows.
-- The server writes the queries, with the operators of the constraints, so that every name is quoted.
SELECT format(
  'COPY (SELECT ''f'', %L, %L, %L, %L, count(*) FROM %s%s c WHERE %s AND NOT EXISTS (SELECT FROM %s%s p WHERE %s) HAVING count(*) > 0) TO STDOUT',
  format('%I.%I', n.nspname, t.relname), quote_ident(f.conname), format('%I.%I', m.nspname, r.relname),
  CASE WHEN f.convalidated THEN 't' ELSE 'f' END,
  CASE WHEN t.relkind = 'p' THEN '' ELSE 'ONLY ' END, format('%I.%I', n.nspname, t.relname),
  k.given,
  CASE WHEN r.relkind = 'p' THEN '' ELSE 'ONLY ' END, format('%I.%I', m.nspname, r.relname),
  k.matched)
FROM pg_constraint f
JOIN pg_class t ON t.oid = f.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_class r ON r.oid = f.confrelid JOIN pg_namespace m ON m.oid = r.relnamespace
CROSS JOIN LATERAL (
  SELECT string_agg(format('c.%I IS NOT NULL', ca.attname), ' AND ' ORDER BY u.pos) AS given,
         string_agg(format('p.%I OPERATOR(%I.%s) c.%I', pa.attname, o.nspname, op.oprname, ca.attname), ' AND ' ORDER BY u.pos) AS matched
  FROM unnest(f.conkey, f.confkey, f.conpfeqop) WITH ORDINALITY u(child, parent, eq, pos)
  JOIN pg_attribute ca ON ca.attrelid = f.conrelid AND ca.attnum = u.child
  JOIN pg_attribute pa ON pa.attrelid = f.confrelid AND pa.attnum = u.parent
  JOIN pg_operator op ON op.oid = u.eq JOIN pg_namespace o ON o.oid = op.oprnamespace
) k
WHERE f.contype = 'f' AND f.conparentid = 0 AND t.relpersistence <> 't'
  AND NOT (pg_is_in_recovery() AND 'u' IN (t.relpersistence, r.relpersistence))
  AND to_jsonb(f)->>'conperiod' IS DISTINCT FROM 'true'
ORDER BY 1
\gexec
