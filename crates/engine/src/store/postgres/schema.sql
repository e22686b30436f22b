-- The shape of one database. Lines: o kind, name, parent, definition: an object;
-- T a relation with rows; C its columns; K its primary key; S a sequence; L large objects; E encoding.
COPY (SELECT 'E', getdatabaseencoding(), current_setting('server_version_num')::int / 10000) TO STDOUT;
COPY (SELECT 'L', count(*) FROM pg_largeobject_metadata) TO STDOUT;
COPY (
  SELECT 'T', n.nspname, c.relname, c.relkind, c.relpersistence = 'u', pg_table_size(c.oid),
         CASE WHEN c.relkind = 'm' THEN c.relispopulated ELSE NOT (c.relpersistence = 'u' AND pg_is_in_recovery()) END,
         pg_indexes_size(c.oid), pg_stat_get_dead_tuples(c.oid)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
    AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
) TO STDOUT;
COPY (
  SELECT 'C', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
         CASE WHEN t.typtype = 'd' THEN b.typname ELSE t.typname END,
         pg_get_expr(d.adbin, d.adrelid),
         a.attidentity = '' AND (d.adbin IS NULL OR d.adbin::text LIKE '{CONST %' OR (
             pg_get_expr(d.adbin, d.adrelid) NOT LIKE '%(%' AND d.adbin::text NOT LIKE '%SQLVALUEFUNCTION%'
             AND d.adbin::text NOT LIKE '%NEXTVALUE%'))
  FROM pg_attribute a
  JOIN pg_class c ON c.oid = a.attrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_type b ON b.oid = t.typbasetype
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND a.attnum > 0 AND NOT a.attisdropped
    AND a.attgenerated = '' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C", a.attnum
) TO STDOUT;
COPY (
  SELECT 'K', n.nspname, c.relname, a.attname
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, pos)
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
  WHERE i.indisprimary AND i.indisvalid AND c.relkind = 'r' AND k.pos <= i.indnkeyatts
    AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C", k.pos
) TO STDOUT;
COPY (
  SELECT 'S', n.nspname, c.relname, s.seqincrement
  FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT (c.relpersistence = 'u' AND pg_is_in_recovery())
) TO STDOUT;
COPY (
  WITH ns AS (
    SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
  ), ext AS (
    SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
  ), rel AS (
    SELECT c.*, format('%I.%I', n.nspname, c.relname) AS name
    FROM pg_class c JOIN ns n ON n.oid = c.relnamespace WHERE c.relpersistence <> 't'
  ), acl(kind, name, parent, items) AS (
    SELECT 'schema', format('%I', n.nspname), NULL::text, n.nspacl FROM pg_namespace n
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    UNION ALL SELECT 'relation', name, name, relacl FROM rel
    UNION ALL SELECT 'column', format('%s.%I', r.name, a.attname), r.name, a.attacl
      FROM rel r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT 'function', format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
        NULL, p.proacl
      FROM pg_proc p JOIN ns n ON n.oid = p.pronamespace
    UNION ALL SELECT 'type', format('%I.%I', n.nspname, t.typname), NULL, t.typacl
      FROM pg_type t JOIN ns n ON n.oid = t.typnamespace
    UNION ALL SELECT 'language', format('%I', lanname), NULL, lanacl FROM pg_language
    UNION ALL SELECT 'server', format('%I', srvname), NULL, srvacl FROM pg_foreign_server
    UNION ALL SELECT 'wrapper', format('%I', fdwname), NULL, fdwacl FROM pg_foreign_data_wrapper
    UNION ALL SELECT 'default', format('%s of %s in %s', defaclobjtype, pg_get_userbyid(defaclrole),
        coalesce(quote_ident((SELECT nspname FROM pg_namespace WHERE oid = defaclnamespace)), 'all schemas')),
        NULL, defaclacl FROM pg_default_acl
  )
  SELECT 'o', kind, name, parent, definition FROM (
    SELECT 'schema' AS kind, format('%I', n.nspname) AS name, NULL::text AS parent,
           'owner ' || pg_get_userbyid(n.nspowner) AS definition
    FROM pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    UNION ALL
    SELECT 'privileges', kind || ' ' || name, parent,
           coalesce((SELECT string_agg(a::text, ' ' ORDER BY a::text COLLATE "C") FROM unnest(items) a), 'none')
    FROM acl WHERE items IS NOT NULL
    UNION ALL
    SELECT 'extension', format('%I', e.extname), NULL, format('%s in schema %I', e.extversion, n.nspname)
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    UNION ALL
    SELECT 'type', format('%I.%I', n.nspname, t.typname), NULL,
           'owner ' || pg_get_userbyid(t.typowner) || ', ' || CASE t.typtype
             WHEN 'e' THEN 'enum ' || coalesce((SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder)
                                       FROM pg_enum WHERE enumtypid = t.oid), '')
             WHEN 'd' THEN 'domain ' || format_type(t.typbasetype, t.typtypmod)
                  || CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END
                  || coalesce(' DEFAULT ' || t.typdefault, '')
                  || coalesce((SELECT string_agg(' ' || quote_ident(conname) || ' ' || pg_get_constraintdef(oid), ''
                               ORDER BY conname COLLATE "C") FROM pg_constraint WHERE contypid = t.oid AND contype <> 'n'), '')
             WHEN 'c' THEN 'composite ' || coalesce((SELECT string_agg(format('%I %s', attname,
                               format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
                               FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped), '')
             WHEN 'r' THEN 'range ' || coalesce((SELECT format_type(rngsubtype, NULL) || ' ' || rngcanonical || ' ' || rngsubdiff
                               FROM pg_range WHERE rngtypid = t.oid), '')
             ELSE format('%s %s %s %s', t.typtype, t.typlen, t.typinput, t.typoutput) END
    FROM pg_type t JOIN ns n ON n.oid = t.typnamespace
    WHERE (t.typrelid = 0 OR EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))
      AND NOT EXISTS (SELECT FROM pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid)
      AND NOT EXISTS (SELECT FROM ext WHERE classid = 'pg_type'::regclass AND objid = t.oid)
    UNION ALL
    SELECT CASE r.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'v' THEN 'view'
                          WHEN 'm' THEN 'materialized view' ELSE 'foreign table' END,
           r.name, r.name,
           'owner ' || pg_get_userbyid(r.relowner)
           || CASE WHEN r.relpersistence = 'u' THEN ', unlogged' ELSE '' END
           || coalesce(', options ' || array_to_string(r.reloptions, ' '), '')
           || CASE WHEN r.relrowsecurity THEN ', row security' ELSE '' END
           || CASE WHEN r.relforcerowsecurity THEN ' forced' ELSE '' END
           || CASE WHEN r.relreplident NOT IN ('d', 'n') THEN ', replica identity ' || r.relreplident::text ELSE '' END
           || CASE WHEN r.relkind = 'm' AND NOT r.relispopulated THEN ', not populated' ELSE '' END
           || coalesce(', partition by ' || CASE WHEN r.relkind = 'p' THEN pg_get_partkeydef(r.oid) END, '')
           || coalesce(', partition ' || CASE WHEN r.relispartition THEN pg_get_expr(r.relpartbound, r.oid) END, '')
           || coalesce((SELECT ', inherits ' || string_agg(i.inhparent::regclass::text, ', ' ORDER BY i.inhseqno)
                        FROM pg_inherits i WHERE i.inhrelid = r.oid), '')
           || coalesce((SELECT ', tablespace ' || spcname FROM pg_tablespace WHERE oid = r.reltablespace), '')
           || coalesce((SELECT ', access method ' || amname FROM pg_am WHERE oid = r.relam AND amname <> 'heap'), '')
           || coalesce((SELECT format(', server %I, options %s', s.srvname,
                encode(sha256(convert_to(coalesce(array_to_string(f.ftoptions, E'\n'), ''), getdatabaseencoding())), 'hex'))
                FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = r.oid), '')
           || CASE WHEN r.relkind IN ('v', 'm') THEN E':\n' || pg_get_viewdef(r.oid) ELSE '' END
    FROM rel r WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f')
    UNION ALL
    SELECT 'column', format('%s.%I', r.name, a.attname), r.name,
           format_type(a.atttypid, a.atttypmod)
           || coalesce((SELECT format(' COLLATE %I.%I', n.nspname, co.collname) FROM pg_collation co
                JOIN pg_namespace n ON n.oid = co.collnamespace
                WHERE co.oid = a.attcollation AND a.attcollation <> t.typcollation), '')
           || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
           || CASE WHEN a.attidentity = '' THEN '' ELSE ' IDENTITY ' || a.attidentity::text END
           || coalesce(CASE WHEN a.attgenerated = '' THEN ' DEFAULT ' ELSE ' GENERATED ' END
                       || pg_get_expr(d.adbin, d.adrelid), '')
           || CASE WHEN a.attstorage = t.typstorage THEN '' ELSE ' STORAGE ' || a.attstorage::text END
    FROM rel r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE r.relkind IN ('r', 'p', 'm', 'f')
    UNION ALL
    SELECT 'constraint', format('%I on %s', c.conname, r.name), r.name, pg_get_constraintdef(c.oid)
           || CASE WHEN EXISTS (SELECT FROM pg_trigger g WHERE g.tgconstraint = c.oid AND g.tgenabled = 'D')
                   THEN ' (not enforced: its triggers are disabled)' ELSE '' END
    FROM rel r JOIN pg_constraint c ON c.conrelid = r.oid AND c.contype NOT IN ('n', 't')
    UNION ALL
    SELECT 'index', format('%I.%I', n.nspname, x.relname), r.name, pg_get_indexdef(i.indexrelid)
           || CASE WHEN i.indisvalid THEN '' ELSE ' (invalid)' END
           || CASE WHEN i.indisreplident THEN ' (replica identity)' ELSE '' END
    FROM pg_index i JOIN rel r ON r.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
    JOIN ns n ON n.oid = x.relnamespace
    UNION ALL
    SELECT 'sequence', r.name, NULL, format('owner %s, %s start %s increment %s min %s max %s cache %s%s%s',
           pg_get_userbyid(r.relowner), format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
           CASE WHEN s.seqcycle THEN ' cycle' ELSE '' END,
           coalesce((SELECT format(' owned by %s.%I', p.name, a.attname) FROM pg_depend d JOIN rel p ON p.oid = d.refobjid
                JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                WHERE d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.deptype IN ('a', 'i') LIMIT 1), ''))
    FROM pg_sequence s JOIN rel r ON r.oid = s.seqrelid
    UNION ALL
    SELECT 'trigger', format('%I on %s', g.tgname, r.name), r.name, pg_get_triggerdef(g.oid)
           || CASE g.tgenabled WHEN 'O' THEN '' ELSE ' (enabled: ' || g.tgenabled::text || ')' END
    FROM pg_trigger g JOIN rel r ON r.oid = g.tgrelid WHERE NOT g.tgisinternal
    UNION ALL
    SELECT 'rule', format('%I on %s', w.rulename, r.name), r.name, pg_get_ruledef(w.oid)
           || CASE w.ev_enabled WHEN 'O' THEN '' ELSE ' (enabled: ' || w.ev_enabled::text || ')' END
    FROM pg_rewrite w JOIN rel r ON r.oid = w.ev_class WHERE w.rulename <> '_RETURN'
    UNION ALL
    SELECT 'policy', format('%I on %s', p.polname, r.name), r.name,
           format('%s %s to %s using (%s) check (%s)', CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END,
           p.polcmd, (SELECT string_agg(CASE o WHEN 0 THEN 'public' ELSE pg_get_userbyid(o) END, ',' ORDER BY 1)
                      FROM unnest(p.polroles) o),
           coalesce(pg_get_expr(p.polqual, p.polrelid), ''), coalesce(pg_get_expr(p.polwithcheck, p.polrelid), ''))
    FROM pg_policy p JOIN rel r ON r.oid = p.polrelid
    UNION ALL
    SELECT 'function', format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), NULL,
           'owner ' || pg_get_userbyid(p.proowner) || E':\n' || CASE WHEN p.prokind = 'a'
             THEN (SELECT concat_ws(' ', 'aggregate', g.aggkind, g.aggtransfn, g.aggfinalfn, g.aggcombinefn,
                   format_type(g.aggtranstype, NULL), g.agginitval, format_type(p.prorettype, NULL))
                   FROM pg_aggregate g WHERE g.aggfnoid = p.oid)
             ELSE pg_get_functiondef(p.oid) END
    FROM pg_proc p JOIN ns n ON n.oid = p.pronamespace
    WHERE NOT EXISTS (SELECT FROM ext WHERE classid = 'pg_proc'::regclass AND objid = p.oid)
    UNION ALL
    SELECT 'event trigger', format('%I', evtname), NULL, format('%s on %s %s %s', evtfoid::regprocedure, evtevent, evtenabled, evttags)
    FROM pg_event_trigger WHERE NOT EXISTS (SELECT FROM ext WHERE classid = 'pg_event_trigger'::regclass AND objid = pg_event_trigger.oid)
    UNION ALL
    SELECT 'publication', format('%I', p.pubname), NULL, format('owner %s, all %s, %s %s %s %s; %s',
           pg_get_userbyid(p.pubowner), p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate,
           (SELECT string_agg(format('%I.%I', schemaname, tablename), ', ' ORDER BY format('%I.%I', schemaname, tablename) COLLATE "C")
            FROM pg_publication_tables t WHERE t.pubname = p.pubname))
    FROM pg_publication p
    UNION ALL
    SELECT 'subscription', format('%I', subname), NULL, format('owner %s, enabled %s, slot %s, publications %s',
           pg_get_userbyid(subowner), subenabled, subslotname, subpublications)
    FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL
    SELECT 'foreign data wrapper', format('%I', fdwname), NULL, format('%s %s', fdwhandler::regproc, fdwvalidator::regproc)
    FROM pg_foreign_data_wrapper
    UNION ALL
    SELECT 'foreign server', format('%I', s.srvname), NULL, format('%I owner %s, options %s', w.fdwname, pg_get_userbyid(s.srvowner),
           encode(sha256(convert_to(coalesce(array_to_string(s.srvoptions, E'\n'), ''), getdatabaseencoding())), 'hex'))
    FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
    UNION ALL
    SELECT 'user mapping', format('%I on %I', usename, srvname), NULL,
           encode(sha256(convert_to(coalesce(array_to_string(umoptions, E'\n'), ''), getdatabaseencoding())), 'hex')
    FROM pg_user_mappings
    UNION ALL
    SELECT 'statistics', format('%I.%I', n.nspname, s.stxname), NULL, pg_get_statisticsobjdef(s.oid)
    FROM pg_statistic_ext s JOIN ns n ON n.oid = s.stxnamespace
    UNION ALL
    SELECT 'collation', format('%I.%I', n.nspname, c.collname), NULL,
           (to_jsonb(c) - 'oid' - 'collnamespace' - 'collowner' - 'collversion')::text
    FROM pg_collation c JOIN ns n ON n.oid = c.collnamespace
    UNION ALL
    SELECT 'cast', (pg_identify_object('pg_cast'::regclass, c.oid, 0)).identity, NULL,
           format('%s %s %s', CASE WHEN c.castfunc = 0 THEN '-' ELSE c.castfunc::regprocedure::text END, c.castcontext, c.castmethod)
    FROM pg_cast c WHERE c.oid >= 16384 AND NOT EXISTS (SELECT FROM ext WHERE classid = 'pg_cast'::regclass AND objid = c.oid)
    UNION ALL
    SELECT 'operator', (pg_identify_object('pg_operator'::regclass, o.oid, 0)).identity, NULL,
           format('%s %s %s %s %s', o.oprcode, o.oprcanmerge, o.oprcanhash, o.oprcom::regoperator, o.oprnegate::regoperator)
    FROM pg_operator o JOIN ns n ON n.oid = o.oprnamespace
    WHERE NOT EXISTS (SELECT FROM ext WHERE classid = 'pg_operator'::regclass AND objid = o.oid)
    UNION ALL
    SELECT 'operator class', (pg_identify_object('pg_opclass'::regclass, o.oid, 0)).identity, NULL,
           format('%s default %s', format_type(o.opcintype, NULL), o.opcdefault)
    FROM pg_opclass o JOIN ns n ON n.oid = o.opcnamespace
    WHERE NOT EXISTS (SELECT FROM ext WHERE classid = 'pg_opclass'::regclass AND objid = o.oid)
    UNION ALL
    SELECT 'text search configuration', format('%I.%I', n.nspname, c.cfgname), NULL,
           (SELECT string_agg(format('%s>%s', m.maptokentype, m.mapdict::regdictionary), ' ' ORDER BY m.maptokentype, m.mapseqno)
            FROM pg_ts_config_map m WHERE m.mapcfg = c.oid)
    FROM pg_ts_config c JOIN ns n ON n.oid = c.cfgnamespace
    UNION ALL
    SELECT 'text search dictionary', format('%I.%I', n.nspname, d.dictname), NULL, coalesce(d.dictinitoption, '')
    FROM pg_ts_dict d JOIN ns n ON n.oid = d.dictnamespace
    WHERE NOT EXISTS (SELECT FROM ext WHERE classid = 'pg_ts_dict'::regclass AND objid = d.oid)
    UNION ALL
    SELECT 'language', format('%I', lanname), NULL, format('trusted %s %s', lanpltrusted, lanplcallfoid::regproc) FROM pg_language
    UNION ALL
    SELECT 'comment', (i).type || ' ' || (i).identity, NULL, d.description
    FROM pg_description d, LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) i
    WHERE d.objoid >= 16384 AND (i).type IS NOT NULL
      AND NOT EXISTS (SELECT FROM ext WHERE classid = d.classoid AND objid = d.objoid)
    UNION ALL
    SELECT 'security label', provider || ' ' || objtype || ' ' || objname, NULL, label FROM pg_seclabels
  ) objects
) TO STDOUT;
