-- What is to be known about one database. Line: f and a JSON object.
COPY (
  SELECT 'f', json_build_object(
    'name', current_database(),
    'bytes', pg_database_size(current_database()),
    'encoding', getdatabaseencoding(),
    'collate', d.datcollate,
    'ctype', d.datctype,
    'provider', CASE coalesce(to_jsonb(d)->>'datlocprovider', 'c') WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END,
    'locale', coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale'),
    'collations', (SELECT coalesce(json_agg(json_build_object('name', format('%I.%I', n.nspname, c.collname),
        'recorded', c.collversion, 'actual', pg_collation_actual_version(c.oid)) ORDER BY n.nspname, c.collname), '[]')
      FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
      WHERE c.collversion IS NOT NULL AND (EXISTS (SELECT FROM pg_attribute WHERE attcollation = c.oid AND attrelid >= 16384)
        OR EXISTS (SELECT FROM pg_index WHERE c.oid = ANY(indcollation::oid[]) AND indexrelid >= 16384))),
    'extensions', (SELECT coalesce(json_object_agg(extname, extversion ORDER BY extname), '{}') FROM pg_extension),
    'unlogged', (SELECT coalesce(json_agg(format('%I.%I', n.nspname, r.relname) ORDER BY n.nspname, r.relname), '[]')
      FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace WHERE r.relkind = 'r' AND r.relpersistence = 'u'),
    'large_objects', (SELECT count(*) FROM pg_largeobject_metadata),
    'publications', (SELECT coalesce(json_agg(pubname ORDER BY pubname), '[]') FROM pg_publication),
    'subscriptions', (SELECT coalesce(json_agg(subname ORDER BY subname), '[]') FROM pg_subscription WHERE subdbid = d.oid),
    'foreign_servers', (SELECT coalesce(json_agg(srvname ORDER BY srvname), '[]') FROM pg_foreign_server),
    'foreign_tables', (SELECT count(*) FROM pg_foreign_table),
    'tablespaces', (SELECT coalesce(json_agg(spcname ORDER BY spcname), '[]') FROM pg_tablespace t
      WHERE spcname NOT IN ('pg_default', 'pg_global')
        AND (t.oid = d.dattablespace OR EXISTS (SELECT FROM pg_class WHERE reltablespace = t.oid)))
  )::text
  FROM pg_database d WHERE d.datname = current_database()
) TO STDOUT;
