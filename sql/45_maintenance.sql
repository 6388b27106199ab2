-- Maintenance: expiry and the collector, the only one who deletes. Run by the library as their owner.

CREATE FUNCTION storage_private.expire_uploads() RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    WITH due AS (
        SELECT u.id FROM storage.upload_requests u
        WHERE u.status = 'requested' AND u.expires_at <= clock_timestamp()
        FOR NO KEY UPDATE SKIP LOCKED
    ), closed AS (
        SELECT storage_private.close_upload(d.id, 'expired', 'EXPIRED', NULL) FROM due d
    )
    SELECT count(*) FROM closed
$$;
COMMENT ON FUNCTION storage_private.expire_uploads() IS 'Ends pending uploads whose time is over; returns how many.';

-- Deleting a file also touches the version after it; when somebody holds either, the next pass will do.
CREATE FUNCTION storage_private.expire_files() RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    WITH due AS MATERIALIZED (
        SELECT f.id FROM storage.files f WHERE f.expires_at <= clock_timestamp() FOR UPDATE SKIP LOCKED
    ), next_versions AS MATERIALIZED (
        SELECT n.id FROM storage.files n WHERE n.previous_version_id IN (SELECT d.id FROM due d) FOR NO KEY UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM storage.files f USING due d
        WHERE f.id = d.id
          AND NOT EXISTS (SELECT FROM storage.files n
                          WHERE n.previous_version_id = d.id AND n.id NOT IN (SELECT v.id FROM next_versions v))
        RETURNING f.id
    )
    SELECT count(*) FROM gone
$$;
COMMENT ON FUNCTION storage_private.expire_files() IS 'Deletes files whose time is over, except those that somebody holds; returns how many.';

CREATE FUNCTION storage_private.begin_maintenance() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- The count after the lock must see what was committed before it, and an older snapshot does not.
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'files cannot be counted in a transaction that is %', upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'active_sql_transaction',
                  DETAIL = 'Its snapshot does not show the files that were made since it began.',
                  HINT = 'Run maintenance in a transaction that is READ COMMITTED.';
    END IF;
    PERFORM storage_private.require_ownership();
END $$;
COMMENT ON FUNCTION storage_private.begin_maintenance() IS
'Refuses a pass where it would do harm. Errors: NOT_OWNER_OF_OBJECTS.';

-- A key that this very transaction queued is left alone, also when it was queued before by another: if
-- this one rolled back, a file would need the bytes again.
CREATE FUNCTION storage_private.claim_deletions(
    max_jobs integer, after_id bigint, due_by timestamptz, except_buckets text[]
) RETURNS TABLE (job_id bigint, physical_name text, object_key text, attempts integer, kept_by text, unused boolean)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    job record;
    found_object uuid;
BEGIN
    FOR job IN
        SELECT d.id, d.physical_name, d.key, d.attempts, p.endpoint
        FROM storage.object_deletions d LEFT JOIN storage.physical_buckets p ON p.name = d.physical_name
        WHERE d.id > after_id AND d.not_before <= due_by AND d.physical_name <> ALL (except_buckets)
          AND NOT EXISTS (SELECT FROM storage.object_deletions own
                          WHERE own.physical_name = d.physical_name AND own.key = d.key AND own.queued_by = pg_current_xact_id())
          AND NOT EXISTS (SELECT FROM storage.upload_requests u
                          WHERE u.physical_name = d.physical_name AND u.object_key = d.key AND u.status = 'requested')
        ORDER BY d.id LIMIT max_jobs FOR UPDATE OF d SKIP LOCKED
    LOOP
        job_id := job.id;
        physical_name := job.physical_name;
        object_key := job.key;
        attempts := job.attempts;
        kept_by := job.endpoint;
        unused := false;
        SELECT o.id INTO found_object FROM storage.objects o
        WHERE o.physical_name = job.physical_name AND o.key = job.key FOR UPDATE SKIP LOCKED;
        IF NOT FOUND AND EXISTS (SELECT FROM storage.objects o WHERE o.physical_name = job.physical_name AND o.key = job.key) THEN
            NULL;  -- somebody is linking a file to it; the next pass counts again
        ELSIF EXISTS (SELECT FROM storage.files f WHERE f.object_id = found_object) THEN
            DELETE FROM storage.object_deletions d WHERE d.id = job.id;
        ELSE
            unused := true;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION storage_private.claim_deletions(integer, bigint, timestamptz, text[]) IS
'The next keys that are due, in the order of their ids, with the endpoint on record. unused: that no file uses it, counted over all files under a lock on the object, and held until the transaction ends.';

CREATE FUNCTION storage_private.finish_deletions(job_ids bigint[]) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    WITH done AS (
        DELETE FROM storage.object_deletions d WHERE d.id = ANY ($1) RETURNING d.id, d.physical_name, d.key
    ), forgotten AS (
        DELETE FROM storage.objects o USING done d WHERE o.physical_name = d.physical_name AND o.key = d.key
        RETURNING o.physical_name, o.key
    )
    -- The URL that brought the bytes may still be valid or its PUT still running, and the key is free again.
    INSERT INTO storage.object_deletions (physical_name, key, reason, not_before)
    SELECT u.physical_name, u.object_key, 'late bytes', s.due
    FROM forgotten f
    JOIN storage.upload_requests u ON u.physical_name = f.physical_name AND u.object_key = f.key
    CROSS JOIN LATERAL storage_private.sweep_times(u.expires_at) AS s(due)
    WHERE u.expires_at + interval '1 hour' > clock_timestamp() AND s.due > clock_timestamp()
$$;
COMMENT ON FUNCTION storage_private.finish_deletions(bigint[]) IS 'Forgets objects that have left the store, and their jobs.';

CREATE FUNCTION storage_private.delay_deletions(job_ids bigint[], delay interval, error text) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE storage.object_deletions d
    SET attempts = d.attempts + 1, last_error = $3, not_before = clock_timestamp() + $2
    WHERE d.id = ANY ($1)
$$;
COMMENT ON FUNCTION storage_private.delay_deletions(bigint[], interval, text) IS 'Puts failed deletions back, for later.';

CREATE FUNCTION storage.run_maintenance() RETURNS storage.maintenance_report
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    report storage.maintenance_report;
BEGIN
    PERFORM storage_private.require_writable();
    SELECT m.* INTO report FROM storage_private.maintain() m;
    RETURN report;
END $$;
COMMENT ON FUNCTION storage.run_maintenance() IS
'One pass of everything the worker does, now and in this session. For the extension''s owner. What this same transaction queued waits for the next pass. A store that fails is not an error: the deletions stay queued with their error and are repeated later. Errors: NOT_OWNER_OF_OBJECTS in a copy of a database, see storage.adopt_installation().';
