-- Reconciliation: what the store lists against what the tables say. The library lists, and asks here between the pages.

CREATE TYPE storage.orphan_kind AS ENUM ('object_without_row', 'row_without_object', 'foreign_object');
COMMENT ON TYPE storage.orphan_kind IS
'What does not match. object_without_row: bytes that this database brought in and no row names; row_without_object: a row of storage.objects whose bytes the store does not have; foreign_object: bytes that no row names and that this database did not bring in.';

CREATE TYPE storage.orphan AS (
    kind          storage.orphan_kind,
    physical_name text,
    key           text,
    object_id     uuid,
    size          bigint,
    last_modified timestamptz,
    queued        boolean
);
COMMENT ON TYPE storage.orphan IS 'One finding of storage.scan_orphans().';
COMMENT ON COLUMN storage.orphan.kind IS 'What does not match.';
COMMENT ON COLUMN storage.orphan.physical_name IS 'The bucket in the store.';
COMMENT ON COLUMN storage.orphan.key IS 'The key there. A NUL, which text cannot hold, is shown as its symbol, U+2400.';
COMMENT ON COLUMN storage.orphan.object_id IS 'The row of storage.objects; NULL when there is none.';
COMMENT ON COLUMN storage.orphan.size IS 'Bytes, by the store or else by the row.';
COMMENT ON COLUMN storage.orphan.last_modified IS 'When it was written, by the store''s clock; NULL where the store has nothing.';
COMMENT ON COLUMN storage.orphan.queued IS 'Whether its deletion is queued now.';

-- Not dumped: a restored server begins anew.
CREATE TABLE storage_private.reconciliations (
    physical_name text PRIMARY KEY,
    reached       bytea,
    began_at      timestamptz NOT NULL,
    finished_at   timestamptz,
    queued        bigint NOT NULL DEFAULT 0,
    lost          bigint NOT NULL DEFAULT 0,
    last_error    text
);
COMMENT ON TABLE storage_private.reconciliations IS 'How far the reconciliation of each physical bucket has come, and what the last one found.';
COMMENT ON COLUMN storage_private.reconciliations.physical_name IS 'The bucket in the store.';
COMMENT ON COLUMN storage_private.reconciliations.reached IS 'The key after which it goes on, in UTF-8: a key may hold what text cannot. NULL: it begins.';
COMMENT ON COLUMN storage_private.reconciliations.began_at IS 'When it began.';
COMMENT ON COLUMN storage_private.reconciliations.finished_at IS 'When it ended; NULL: it is under way.';
COMMENT ON COLUMN storage_private.reconciliations.queued IS 'Orphans that were queued for deletion.';
COMMENT ON COLUMN storage_private.reconciliations.lost IS 'Rows of storage.objects whose bytes the store does not have: storage.scan_orphans() names them.';
COMMENT ON COLUMN storage_private.reconciliations.last_error IS 'What went wrong last; NULL: nothing since it began.';

CREATE FUNCTION storage_private.begin_scan(physical text, repair boolean)
RETURNS TABLE (endpoint text, prefixes text[], system_identifiers bigint[], databases oid[])
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p storage.physical_buckets;
BEGIN
    PERFORM storage_private.require_fresh_snapshots();
    IF repair THEN
        PERFORM storage_private.require_ownership();
    END IF;
    SELECT b.* INTO p FROM storage.physical_buckets b WHERE b.name = physical;
    IF NOT FOUND THEN
        PERFORM storage_private.refuse('BUCKET_NOT_FOUND', 'no such physical bucket', format('Asked for %L.', physical),
            'storage.physical_buckets lists those that are known.');
    END IF;
    -- What else is in an operator's bucket is none of our business.
    RETURN QUERY
        SELECT p.endpoint,
               CASE WHEN p.fixed OR p.access IS NULL
                    THEN ARRAY(SELECT p.key_prefix || f.folder || '/' FROM unnest('{private,public,scratch,temp}'::text[]) AS f(folder))
                    ELSE '{""}' END,
               array_agg(m.system_identifier), array_agg(m.database)
        FROM (SELECT i.* FROM storage_private.this_installation() i
              UNION SELECT f.* FROM storage_private.former_installations f) m;
END $$;
COMMENT ON FUNCTION storage_private.begin_scan(text, boolean) IS
'What is to be scanned of a physical bucket: where it is kept, below which prefixes in their order, and who makes keys that are this database''s. Errors: BUCKET_NOT_FOUND; NOT_OWNER_OF_OBJECTS to repair in a copy.';

CREATE FUNCTION storage_private.objects_between(physical text, after_key text, last_key text, max_rows integer)
RETURNS TABLE (object_id uuid, key text, size bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT o.id, o.key, o.size FROM storage.objects o
        WHERE o.physical_name = physical AND o.key > after_key AND o.key <= last_key
        ORDER BY o.key LIMIT max_rows;
END $$;
COMMENT ON FUNCTION storage_private.objects_between(text, text, text, integer) IS 'Recorded objects by key, in the order of the keys'' bytes, as stores list them.';

-- Bytes come after the row that names them was written, but before others can see it. So bytes that are older than every
-- open transaction are named by a row that can be seen, or by none.
CREATE FUNCTION storage_private.oldest_transaction() RETURNS timestamptz
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        -- When a prepared transaction began is not on record anywhere; that it wrote to our tables is.
        WHEN EXISTS (SELECT FROM pg_locks l
                     WHERE l.pid IS NULL AND l.locktype = 'relation' AND l.mode = 'RowExclusiveLock'
                       AND l.relation IN ('storage.upload_requests'::regclass, 'storage.objects'::regclass)
                       AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
        THEN '-infinity'
        ELSE coalesce(min(CASE WHEN a.backend_type IS NULL THEN '-infinity'  -- not ours to see
                               WHEN a.state = 'disabled' THEN a.backend_start  -- track_activities is off
                               ELSE a.xact_start END), 'infinity') END
    FROM pg_stat_activity a
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type IS DISTINCT FROM 'autovacuum worker'
$$;
COMMENT ON FUNCTION storage_private.oldest_transaction() IS
'When the oldest transaction began that is open in this database, prepared ones included, but for the caller''s; infinity: there is none.';

-- The times first, the rows in a later snapshot: a transaction that ends in between has shown its rows by then.
-- Times have whole seconds in some listings, hence one second more.
CREATE FUNCTION storage_private.unnamed_keys(physical text, keys text[], written timestamptz[], upload_ids uuid[], min_age interval)
RETURNS SETOF integer
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    horizon timestamptz := least(clock_timestamp() - min_age, storage_private.oldest_transaction() - interval '1 second');
BEGIN
    RETURN QUERY
        SELECT l.place::integer
        FROM unnest(keys, written, upload_ids) WITH ORDINALITY AS l(key, written, upload_id, place)
        WHERE l.written < horizon
          AND NOT EXISTS (SELECT FROM storage.objects o WHERE o.physical_name = physical AND o.key = l.key)
          AND NOT EXISTS (SELECT FROM storage.object_deletions d WHERE d.physical_name = physical AND d.key = l.key)
          AND NOT EXISTS (SELECT FROM storage.upload_requests u
                          WHERE u.id = l.upload_id AND u.status = 'requested' AND u.physical_name = physical
                            AND (l.key IN (u.object_key, u.final_key) OR starts_with(l.key, u.final_key || '/')))
        ORDER BY l.place;
END $$;
COMMENT ON FUNCTION storage_private.unnamed_keys(text, text[], timestamptz[], uuid[], interval) IS
'The places, from 1, of those of the keys that no object, pending upload or queued deletion names, and that were written, by this server''s clock, min_age ago and before every open transaction.';

-- Serialised, so that two scans at once queue a key once. What is under way elsewhere is waited for only by those who
-- asked to: the lock lasts until the end of the transaction.
CREATE FUNCTION storage_private.hold_reconciliation(physical text, wait boolean) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT wait THEN
        RETURN storage_private.try_hold_lock('reconciliation', physical);
    END IF;
    PERFORM storage_private.hold_lock('reconciliation', physical);
    RETURN true;
END $$;
COMMENT ON FUNCTION storage_private.hold_reconciliation(text, boolean) IS
'Keeps other scans from repairing the same physical bucket until the transaction ends; false when one does and it was not to be waited for.';

CREATE FUNCTION storage_private.queue_orphans(physical text, keys text[], wait boolean) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    queued bigint;
BEGIN
    IF NOT storage_private.hold_reconciliation(physical, wait) THEN
        RETURN NULL;
    END IF;
    INSERT INTO storage.object_deletions (physical_name, key, reason, not_before)
    SELECT physical, k.key, 'orphan', clock_timestamp() FROM unnest(keys) AS k(key)
    WHERE NOT EXISTS (SELECT FROM storage.object_deletions d WHERE d.physical_name = physical AND d.key = k.key);
    GET DIAGNOSTICS queued = ROW_COUNT;
    RETURN queued;
END $$;
COMMENT ON FUNCTION storage_private.queue_orphans(text, text[], boolean) IS
'Queues keys that no row names for deletion, those that are not queued yet; returns how many. NULL when another scan is doing it and wait is false.';

CREATE FUNCTION storage_private.still_recorded(object_ids uuid[]) RETURNS SETOF uuid
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT o.id FROM storage.objects o
    WHERE o.id = ANY ($1)
      AND NOT EXISTS (SELECT FROM storage.object_deletions d WHERE d.physical_name = o.physical_name AND d.key = o.key)
$$;
COMMENT ON FUNCTION storage_private.still_recorded(uuid[]) IS 'Those of the objects that have a row and are not about to be deleted.';

CREATE FUNCTION storage_private.due_reconciliations(every interval)
RETURNS TABLE (physical_name text, endpoint text, reached bytea)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.name, p.endpoint, r.reached
    FROM storage.physical_buckets p LEFT JOIN storage_private.reconciliations r ON r.physical_name = p.name
    WHERE p.state = 'ready'
      AND (r.physical_name IS NULL OR r.finished_at IS NULL OR r.began_at <= clock_timestamp() - $1)
    ORDER BY r.finished_at IS NOT NULL, r.began_at NULLS FIRST, p.name
$$;
COMMENT ON FUNCTION storage_private.due_reconciliations(interval) IS
'Physical buckets whose reconciliation is under way or due, where they are kept, and the key after which it goes on.';

CREATE FUNCTION storage_private.note_reconciliation(physical text, reached bytea, finished boolean, queued bigint, lost bigint, error text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT storage_private.hold_reconciliation(physical, false) THEN
        RETURN false;
    END IF;
    INSERT INTO storage_private.reconciliations AS r (physical_name, reached, began_at, finished_at, queued, lost, last_error)
    VALUES (physical, note_reconciliation.reached, clock_timestamp(), CASE WHEN finished THEN clock_timestamp() END,
            note_reconciliation.queued, note_reconciliation.lost, error)
    ON CONFLICT (physical_name) DO UPDATE
        SET reached = CASE WHEN error IS NULL THEN excluded.reached ELSE r.reached END, finished_at = excluded.finished_at, last_error = excluded.last_error,
            began_at = CASE WHEN r.finished_at IS NULL THEN r.began_at ELSE excluded.began_at END,
            queued = excluded.queued + CASE WHEN r.finished_at IS NULL THEN r.queued ELSE 0 END,
            lost = excluded.lost + CASE WHEN r.finished_at IS NULL THEN r.lost ELSE 0 END;
    RETURN true;
END $$;
COMMENT ON FUNCTION storage_private.note_reconciliation(text, bytea, boolean, bigint, bigint, text) IS
'Records how far the reconciliation of a physical bucket has come, and begins a new one after a finished one; an error leaves it where it was. False when another transaction is at it.';

CREATE FUNCTION storage_private.troubled_reconciliations() RETURNS TABLE (physical_name text, lost bigint, last_error text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.physical_name, r.lost, r.last_error FROM storage_private.reconciliations r
    WHERE r.lost > 0 OR r.last_error IS NOT NULL ORDER BY r.physical_name
$$;
COMMENT ON FUNCTION storage_private.troubled_reconciliations() IS 'Physical buckets that lack bytes, or could not be compared.';

CREATE FUNCTION storage.scan_orphans(physical_name text, min_age interval DEFAULT '1 day', repair boolean DEFAULT false)
RETURNS SETOF storage.orphan
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A standby would take the bytes of the primary's open transactions for nobody's.
    IF repair OR pg_is_in_recovery() THEN
        PERFORM storage_private.require_writable();
    END IF;
    IF min_age < '0' THEN
        PERFORM storage_private.refuse('INVALID_EXPIRY', 'an age is not negative', format('min_age is %s.', min_age),
            'Bytes are reported that are at least this old; the default is a day.');
    END IF;
    RETURN QUERY
        SELECT s.kind::storage.orphan_kind, scan_orphans.physical_name, s.key, s.object_id, s.size, s.last_modified, s.queued
        FROM storage_private.scan(scan_orphans.physical_name, coalesce(min_age, '1 day'), coalesce(repair, false)) s;
END $$;
COMMENT ON FUNCTION storage.scan_orphans(text, interval, boolean) IS
'Compares a physical bucket with storage.objects, both ways, page by page through the whole bucket; of a fixed bucket only what is below pg_storage.key_prefix. min_age: bytes younger than this, by the store''s clock, or than an open transaction are left out; a day leaves uploads time to be confirmed, and a DBA to notice a wrong restore. repair: queues every object_without_row for deletion; nothing is deleted directly. A row_without_object is never repaired: restore the bytes under that key from a backup of the store, or delete its files. A foreign_object is never touched: another database, or somebody else, put it there. All rows come at the end, from disk beyond work_mem. For the extension''s owner. Errors: BUCKET_NOT_FOUND; NOT_CONFIGURED for a bucket of another endpoint; INVALID_EXPIRY; NOT_OWNER_OF_OBJECTS to repair in a copy of a database; READ_ONLY to repair in a read-only transaction and on a standby, which does not know the primary''s open transactions; an error in a transaction that is not READ COMMITTED.';
