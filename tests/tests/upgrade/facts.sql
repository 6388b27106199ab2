-- Everything in a database that holds nothing but the extension, as (object, fact). Whatever was not there before
-- CREATE EXTENSION counts, member or not, so that nothing left behind goes unseen.
WITH relations AS (
    SELECT c.*, c.oid::regclass::text AS name FROM pg_class c
    WHERE c.oid >= 16384 AND c.relnamespace <> 'pg_toast'::regnamespace
), acls(class, id, column_number, acl) AS (
    SELECT 'pg_namespace'::regclass, oid, 0, nspacl FROM pg_namespace
    UNION ALL SELECT 'pg_class'::regclass, oid, 0, relacl FROM pg_class
    UNION ALL SELECT 'pg_class'::regclass, attrelid, attnum::integer, attacl FROM pg_attribute
    UNION ALL SELECT 'pg_proc'::regclass, oid, 0, proacl FROM pg_proc
    UNION ALL SELECT 'pg_type'::regclass, oid, 0, typacl FROM pg_type
), facts(object, fact) AS (
    SELECT 'extension ' || extname, format('version %s, schema %s, relocatable %s, owner %s', extversion, extnamespace::regnamespace, extrelocatable, extowner::regrole)
    FROM pg_extension WHERE extname = 'pg_storage'
    UNION ALL
    SELECT i.type || ' ' || i.identity, format('belongs to the extension (%s)', d.deptype)
    FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid AND e.extname = 'pg_storage', pg_identify_object(d.classid, d.objid, d.objsubid) i
    WHERE d.refclassid = 'pg_extension'::regclass
    UNION ALL
    SELECT 'table ' || c.id::regclass, format('its rows are dumped where [%s]', c.condition)
    FROM pg_extension, unnest(extconfig, extcondition) c(id, condition) WHERE extname = 'pg_storage'
    UNION ALL
    SELECT 'relation ' || name, format('kind %s, persistence %s, row security %s forced %s, replica identity %s, options %s, owner %s',
           relkind, relpersistence, relrowsecurity, relforcerowsecurity, relreplident, reloptions, relowner::regrole)
    FROM relations
    UNION ALL
    SELECT 'relation ' || name, 'holds ' || query_to_xml(
               -- A secret, made anew for each database.
               CASE name WHEN 'storage_private.secrets' THEN 'SELECT this, length(key) FROM ' ELSE 'SELECT * FROM ' END || name,
               true, true, '')::text
    FROM relations WHERE relkind = 'r' OR relkind = 'S'
    UNION ALL
    SELECT format('column %s.%s', r.name, a.attname),
           format('number %s, %s%s%s, default %s, generated %s, identity %s, collation %s, storage %s, compression %s, options %s',
                  row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum), format_type(a.atttypid, a.atttypmod),
                  CASE WHEN a.attnotnull THEN ' NOT NULL' END, CASE WHEN NOT a.attislocal THEN ' inherited' END,
                  pg_get_expr(d.adbin, d.adrelid), a.attgenerated, a.attidentity, nullif(a.attcollation, 0)::regcollation, a.attstorage,
                  a.attcompression,
                  -- Newer releases of PostgreSQL note there when the column was made.
                  ARRAY(SELECT o FROM unnest(a.attoptions) o WHERE o !~ '^pg_attver='))
    FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE r.relkind <> 'i'
    UNION ALL
    SELECT format('sequence %s', relation), s.*::text FROM (SELECT seqrelid::regclass AS relation, seqtypid::regtype, seqstart, seqincrement, seqmax, seqmin, seqcache, seqcycle FROM pg_sequence) s
    UNION ALL
    SELECT format('constraint %s on %s', conname, coalesce(nullif(conrelid, 0)::regclass::text, contypid::regtype::text)),
           format('%s, validated %s', pg_get_constraintdef(oid), convalidated)
    FROM pg_constraint WHERE oid >= 16384
    UNION ALL
    SELECT 'index ' || indexrelid::regclass, format('%s, valid %s, clustered %s, identity %s', pg_get_indexdef(indexrelid), indisvalid, indisclustered, indisreplident)
    FROM pg_index JOIN relations r ON r.oid = indexrelid
    UNION ALL
    SELECT format('trigger %s on %s', tgname, tgrelid::regclass), format('%s, enabled %s', pg_get_triggerdef(oid), tgenabled)
    FROM pg_trigger WHERE oid >= 16384 AND NOT tgisinternal
    UNION ALL
    SELECT format('rule %s on %s', rulename, ev_class::regclass), format('%s, enabled %s', pg_get_ruledef(oid), ev_enabled) FROM pg_rewrite WHERE oid >= 16384
    UNION ALL
    SELECT format('policy %s on %I.%I', policyname, schemaname, tablename),
           format('%s for %s to %s using [%s] with check [%s]', permissive, cmd, roles, qual, with_check)
    FROM pg_policies
    UNION ALL
    SELECT 'function ' || oid::regprocedure, format('%s owner %s', CASE WHEN prokind <> 'a' THEN pg_get_functiondef(oid) END, proowner::regrole)
    FROM pg_proc WHERE oid >= 16384
    UNION ALL
    SELECT 'type ' || t.oid::regtype, format('kind %s, base %s, default %s, not null %s, labels %s, owner %s', typtype, nullif(typbasetype, 0)::regtype, typdefault, typnotnull,
           (SELECT string_agg(enumlabel, ', ' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid), typowner::regrole)
    FROM pg_type t WHERE t.oid >= 16384
    UNION ALL
    SELECT 'schema ' || nspname, format('owner %s', nspowner::regrole) FROM pg_namespace WHERE oid >= 16384 AND nspname !~ '^pg_'
    UNION ALL
    SELECT i.type || ' ' || i.identity, 'ACL ' || coalesce((SELECT string_agg(e::text, ' ' ORDER BY e::text) FROM unnest(a.acl) e), 'empty')
    FROM acls a, pg_identify_object(a.class, a.id, a.column_number) i WHERE a.id >= 16384 AND a.acl IS NOT NULL
    UNION ALL
    -- What a dump takes for granted.
    SELECT i.type || ' ' || i.identity, 'initial ACL ' || coalesce((SELECT string_agg(e::text, ' ' ORDER BY e::text) FROM unnest(p.initprivs) e), 'empty')
    FROM pg_init_privs p, pg_identify_object(p.classoid, p.objoid, p.objsubid) i WHERE p.objoid >= 16384
    UNION ALL
    SELECT 'default privileges', d.*::text FROM (SELECT defaclrole::regrole, defaclnamespace::regnamespace, defaclobjtype, defaclacl FROM pg_default_acl) d
    UNION ALL
    SELECT i.type || ' ' || i.identity, 'comment ' || d.description
    FROM pg_description d, pg_identify_object(d.classoid, d.objoid, d.objsubid) i
    WHERE d.objoid >= 16384 AND d.classoid <> 'pg_database'::regclass
)
SELECT object, coalesce(fact, '') FROM facts ORDER BY 1, 2
