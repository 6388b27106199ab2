-- Maintenance: expiry and the collector, the only one who deletes. Run by the library as their owner. What is due is
-- compared with the time of the statement: no index finds what is compared with a volatile function.

CREATE FUNCTION storage_private.expire_uploads(max_uploads integer) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    WITH due AS (
        SELECT u.id FROM storage.upload_requests u
        WHERE u.status = 'requested' AND u.expires_at <= statement_timestamp()
        ORDER BY u.expires_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
    ), closed AS (
        SELECT storage_private.close_upload(d.id, 'expired', 'EXPIRED', NULL, NULL) FROM due d
    )
    SELECT count(*) FROM closed
$$;
COMMENT ON FUNCTION storage_private.expire_uploads(integer) IS 'Ends pending uploads whose time is over, so many at most; returns how many.';

CREATE FUNCTION storage_private.claim_unconfirmed(lease interval) RETURNS TABLE (upload_id uuid, claimed_until timestamptz)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE storage.upload_requests u SET claimed_until = clock_timestamp() + $1
    WHERE u.id = (SELECT r.id FROM storage.upload_requests r JOIN storage.buckets b ON b.id = r.bucket_id
                  WHERE r.status = 'requested' AND r.expires_at <= statement_timestamp() AND b.deleted_at IS NULL
                    AND (r.claimed_until IS NULL OR r.claimed_until <= clock_timestamp())
                  ORDER BY r.expires_at LIMIT 1 FOR NO KEY UPDATE OF r SKIP LOCKED)
    RETURNING u.id, u.claimed_until
$$;
COMMENT ON FUNCTION storage_private.claim_unconfirmed(interval) IS
'The next pending upload whose time is over and that nobody else is confirming; it is the caller''s for the time of the lease.';

-- Also the lock of every transition of the upload, and of the mark that the bucket is being deleted.
CREATE FUNCTION storage_private.hold_unconfirmed(upload_id uuid, claimed_until timestamptz) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM storage.upload_requests u JOIN storage.buckets b ON b.id = u.bucket_id
    WHERE u.id = $1 AND u.status = 'requested' AND u.claimed_until = $2 AND b.deleted_at IS NULL
    FOR NO KEY UPDATE OF u FOR KEY SHARE OF b;
    RETURN FOUND;
END $$;
COMMENT ON FUNCTION storage_private.hold_unconfirmed(uuid, timestamptz) IS
'Whether an upload is still pending and still the caller''s, whose lease ends at that time; then it is held until the transaction ends.';

CREATE FUNCTION storage_private.renew_unconfirmed(upload_id uuid, claimed_until timestamptz, lease interval) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE storage.upload_requests u SET claimed_until = clock_timestamp() + $3
    WHERE u.id = $1 AND u.status = 'requested' AND u.claimed_until = $2
$$;
COMMENT ON FUNCTION storage_private.renew_unconfirmed(uuid, timestamptz, interval) IS
'Leaves an upload that could not be looked at alone for a while.';

-- Where a client would be refused, nobody is there to be told: the upload ends, and says why.
CREATE FUNCTION storage_private.accept_unconfirmed(upload_id uuid, verified_key text, sha256 bytea, size bigint, etag text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM storage_private.accept_upload(upload_id, verified_key, sha256, size, etag);
    RETURN true;
EXCEPTION WHEN duplicate_object OR configuration_limit_exceeded THEN
    PERFORM storage_private.close_upload(upload_id, 'expired', 'EXPIRED', SQLERRM, verified_key);
    RETURN false;
END $$;
COMMENT ON FUNCTION storage_private.accept_unconfirmed(uuid, text, bytea, bigint, text) IS
'Accepts an upload whose bytes were verified; false when its path was taken or the room used up meanwhile, and it expired.';

CREATE FUNCTION storage_private.expire_files(max_files integer) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT storage_private.delete_files(ARRAY(
        SELECT f.id FROM storage.files f WHERE f.expires_at <= statement_timestamp()
        ORDER BY f.expires_at LIMIT $1 FOR UPDATE SKIP LOCKED))
$$;
COMMENT ON FUNCTION storage_private.expire_files(integer) IS 'Deletes files whose time is over, so many at most and none that somebody holds; returns how many.';

CREATE FUNCTION storage_private.require_fresh_snapshots() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'files cannot be counted in a transaction that is %', upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'active_sql_transaction',
                  DETAIL = 'Its snapshot does not show the files that were made since it began.',
                  HINT = 'Run maintenance in a transaction that is READ COMMITTED.';
    END IF;
END $$;
COMMENT ON FUNCTION storage_private.require_fresh_snapshots() IS 'Refuses to go on over a snapshot that hides what others have committed since.';

CREATE FUNCTION storage_private.begin_maintenance() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- The count after the lock must see what was committed before it, and an older snapshot does not.
    PERFORM storage_private.require_fresh_snapshots();
    PERFORM storage_private.require_ownership();
END $$;
COMMENT ON FUNCTION storage_private.begin_maintenance() IS
'Refuses a pass where it would do harm. Errors: NOT_OWNER_OF_OBJECTS.';

-- From bucket to bucket along the index, however many jobs each has.
CREATE FUNCTION storage_private.queued_buckets() RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE queued(name) AS (
        SELECT min(d.physical_name) FROM storage.object_deletions d
        UNION ALL
        SELECT (SELECT min(d.physical_name) FROM storage.object_deletions d WHERE d.physical_name > q.name)
        FROM queued q WHERE q.name IS NOT NULL
    )
    SELECT q.name FROM queued q WHERE q.name IS NOT NULL
$$;
COMMENT ON FUNCTION storage_private.queued_buckets() IS 'The physical buckets that any deletion is queued for.';

CREATE FUNCTION storage_private.due_buckets(due_by timestamptz) RETURNS TABLE (physical_name text, kept_by text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT q.name, p.endpoint
    FROM storage_private.queued_buckets() AS q(name) LEFT JOIN storage.physical_buckets p ON p.name = q.name
    -- Mostly nothing is due at all, and then no bucket is looked at.
    WHERE (SELECT min(d.not_before AT TIME ZONE 'UTC') FROM storage.object_deletions d) <= $1 AT TIME ZONE 'UTC'
      AND (SELECT min(d.not_before) FROM storage.object_deletions d WHERE d.physical_name = q.name) <= $1
$$;
COMMENT ON FUNCTION storage_private.due_buckets(timestamptz) IS
'The physical buckets with deletions due by then, with the endpoint on record; NULL: nothing is recorded of the bucket.';

-- The claim is the first of two transactions, the store is asked between them, and the second settles: see live_object().
-- A key that this very transaction queued is left alone, also when it was queued before by another: if this one rolled
-- back, a file would need the bytes again.
CREATE FUNCTION storage_private.claim_deletions(
    bucket text, max_jobs integer, due_by timestamptz, after_due timestamptz, after_id bigint, lease interval
) RETURNS TABLE (job_id bigint, due timestamptz, object_key text, attempts integer, unused boolean)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_object uuid;
    claimed_jobs bigint[] := '{}';
    claimed_objects uuid[] := '{}';
BEGIN
    after_due := coalesce(after_due, '-infinity');
    after_id := coalesce(after_id, 0);
    FOR job_id, due, object_key, attempts IN
        SELECT d.id, d.not_before, d.key, d.attempts FROM storage.object_deletions d
        WHERE d.physical_name = bucket AND (d.not_before, d.id) > (after_due, after_id) AND d.not_before <= due_by
          AND (d.claimed_until IS NULL OR d.claimed_until <= clock_timestamp())
        ORDER BY d.not_before, d.id LIMIT max_jobs FOR UPDATE OF d SKIP LOCKED
    LOOP
        unused := false;
        -- One by one: as parts of the query, the planner likes to answer these from whole tables.
        IF EXISTS (SELECT FROM storage.object_deletions own
                   WHERE own.physical_name = bucket AND own.key = object_key AND own.queued_by = pg_current_xact_id())
           OR EXISTS (SELECT FROM storage.upload_requests u
                      WHERE u.physical_name = bucket AND u.object_key = claim_deletions.object_key AND u.status = 'requested') THEN
            RETURN NEXT;
            CONTINUE;
        END IF;
        SELECT o.id INTO found_object FROM storage.objects o
        WHERE o.physical_name = bucket AND o.key = object_key FOR UPDATE SKIP LOCKED;
        IF NOT FOUND AND EXISTS (SELECT FROM storage.objects o WHERE o.physical_name = bucket AND o.key = object_key) THEN
            NULL;  -- somebody is linking a file to it; the next pass counts again
        ELSIF EXISTS (SELECT FROM storage.files f WHERE f.object_id = found_object) THEN
            DELETE FROM storage.object_deletions d WHERE d.id = job_id;
        ELSE
            unused := true;
            claimed_jobs := claimed_jobs || job_id;
            claimed_objects := claimed_objects || array_remove(ARRAY[found_object], NULL);
        END IF;
        RETURN NEXT;
    END LOOP;
    UPDATE storage.objects o SET deleting = true WHERE o.id = ANY (claimed_objects) AND NOT o.deleting;
    UPDATE storage.object_deletions d SET claimed_until = clock_timestamp() + lease WHERE d.id = ANY (claimed_jobs);
END $$;
COMMENT ON FUNCTION storage_private.claim_deletions(text, integer, timestamptz, timestamptz, bigint, interval) IS
'The next keys of a physical bucket that are due, in the order of their times and ids. unused: that no file uses it, counted over all files under a lock on the object; it is now being deleted, and the job is the caller''s for the time of the lease.';

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

CREATE FUNCTION storage_private.delay_deletions(job_ids bigint[], seconds double precision[], errors text[]) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE storage.object_deletions d
    SET attempts = d.attempts + 1, last_error = f.error, claimed_until = NULL,
        not_before = clock_timestamp() + make_interval(secs => f.seconds)
    FROM unnest($1, $2, $3) AS f(id, seconds, error)
    WHERE d.id = f.id
$$;
COMMENT ON FUNCTION storage_private.delay_deletions(bigint[], double precision[], text[]) IS
'Puts failed deletions back, each for so many seconds and with its error.';

-- What was due before the last pass began and is still there was looked at in vain: only the clock brings a new reason.
CREATE FUNCTION storage_private.next_due(began timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT least(
        (SELECT min(d.not_before AT TIME ZONE 'UTC') FROM storage.object_deletions d
         WHERE d.not_before AT TIME ZONE 'UTC' > $1 AT TIME ZONE 'UTC') AT TIME ZONE 'UTC',
        (SELECT min(d.claimed_until) FROM storage.object_deletions d WHERE d.claimed_until > $1),
        (SELECT min(u.expires_at) FROM storage.upload_requests u WHERE u.status = 'requested' AND u.expires_at > $1),
        (SELECT min(u.claimed_until) FROM storage.upload_requests u WHERE u.status = 'requested' AND u.claimed_until > $1),
        (SELECT min(f.expires_at) FROM storage.files f WHERE f.expires_at > $1),
        (SELECT min(p.next_attempt_at) FROM storage.physical_buckets p
         WHERE (p.state <> 'ready' OR p.applied_generation < p.desired_generation) AND p.next_attempt_at > $1))
$$;
COMMENT ON FUNCTION storage_private.next_due(timestamptz) IS
'When the first job, expiry or attempt after the beginning of a pass is due; NULL: none is. Retention of events is left to the usual interval.';

CREATE FUNCTION storage_private.record_pass(report bigint[], error text, next_pass timestamptz) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO storage_private.worker_passes AS w (finished_at, report, last_error, last_error_at, next_pass_at)
    VALUES (clock_timestamp(),
            CASE WHEN $1 IS NOT NULL THEN
                ROW($1[1], $1[2], $1[3], $1[4], $1[5], $1[6], $1[7], $1[8], $1[9], $1[10], $1[11])::storage.maintenance_report END,
            $2, CASE WHEN $2 IS NOT NULL THEN clock_timestamp() END, $3)
    ON CONFLICT (this) DO UPDATE
    SET finished_at = excluded.finished_at, report = excluded.report, next_pass_at = excluded.next_pass_at,
        last_error = coalesce(excluded.last_error, w.last_error),
        last_error_at = coalesce(excluded.last_error_at, w.last_error_at)
$$;
COMMENT ON FUNCTION storage_private.record_pass(bigint[], text, timestamptz) IS
'Records a pass of the worker: its numbers in the order of storage.maintenance_report, NULL when it was refused, what went wrong, and when the next is due.';

CREATE FUNCTION storage_private.wake_at_commit() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM storage_private.wake_worker();
    RETURN NULL;
END $$;
COMMENT ON FUNCTION storage_private.wake_at_commit() IS 'Trigger: there is work for the worker once this transaction commits.';

CREATE TRIGGER wake_at_commit AFTER INSERT ON storage.object_deletions
FOR EACH STATEMENT EXECUTE FUNCTION storage_private.wake_at_commit();

CREATE TRIGGER wake_at_commit AFTER INSERT ON storage.events
FOR EACH STATEMENT EXECUTE FUNCTION storage_private.wake_at_commit();

CREATE TRIGGER wake_at_commit AFTER INSERT OR UPDATE ON storage.physical_buckets
FOR EACH STATEMENT EXECUTE FUNCTION storage_private.wake_at_commit();

CREATE FUNCTION storage.start_worker() RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM storage_private.require_writable();
    RETURN storage_private.start_worker();
END $$;
COMMENT ON FUNCTION storage.start_worker() IS
'Starts a worker for this database, at once and whatever becomes of the transaction, and returns its process id. It needs no preload and ends with the server or with pg_terminate_backend(); after a crash of the server it comes back. Where pg_storage.databases names this database a worker runs already. For the extension''s owner. Errors: WORKER_RUNNING, NO_WORKER_SLOT, READ_ONLY.';

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
