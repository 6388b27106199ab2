-- Operations: what a DBA reads. None of this is granted to anybody; superusers see it.

CREATE FUNCTION storage.check() RETURNS SETOF storage.check_result
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT c.* FROM storage_private.diagnose() c;
END $$;
COMMENT ON FUNCTION storage.check() IS
'Examines settings, credentials, clock, reachability and, by trying, what the store enforces: wrong checksum, wrong length, second create-only PUT, expired and tampered URLs. Uses and cleans a scratch prefix in one of the provisioned buckets. Never fails; each finding is a row.';

CREATE FUNCTION storage.cache_stats() RETURNS storage.cache_statistics
LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT c.* FROM storage_private.cache_statistics() c;
END;
COMMENT ON FUNCTION storage.cache_stats() IS 'How the cache of provisioned buckets does.';

CREATE FUNCTION storage.provisioned_buckets() RETURNS SETOF storage.provisioned_bucket
LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT c.* FROM storage_private.cache_entries() c;
END;
COMMENT ON FUNCTION storage.provisioned_buckets() IS 'What the cache holds of this database.';

CREATE FUNCTION storage.reset_cache() RETURNS void
LANGUAGE sql VOLATILE
RETURN storage_private.clear_cache();
COMMENT ON FUNCTION storage.reset_cache() IS 'Empties the cache for this database. Costs each bucket one look-up, nothing else.';

CREATE VIEW storage.upload_state AS
    -- The key after the grouping and not by a join: once for each line, and not for each upload or bucket.
    SELECT u.tenant_id, u.bucket_id, (SELECT b.key FROM storage.buckets b WHERE b.id = u.bucket_id) AS bucket_key,
           u.status, u.reason, count(*) AS uploads,
           sum(u.size)::bigint AS declared_bytes, min(u.created_at) AS oldest, max(u.created_at) AS newest
    FROM storage.upload_requests u
    GROUP BY u.tenant_id, u.bucket_id, u.status, u.reason;
COMMENT ON VIEW storage.upload_state IS 'Uploads by bucket, status and reason.';
COMMENT ON COLUMN storage.upload_state.tenant_id IS 'The tenant.';
COMMENT ON COLUMN storage.upload_state.bucket_id IS 'The logical bucket.';
COMMENT ON COLUMN storage.upload_state.bucket_key IS 'Its key.';
COMMENT ON COLUMN storage.upload_state.status IS 'Where the uploads stand.';
COMMENT ON COLUMN storage.upload_state.reason IS 'Why.';
COMMENT ON COLUMN storage.upload_state.uploads IS 'How many.';
COMMENT ON COLUMN storage.upload_state.declared_bytes IS 'Sum of their declared sizes in bytes.';
COMMENT ON COLUMN storage.upload_state.oldest IS 'When the first of them was asked for.';
COMMENT ON COLUMN storage.upload_state.newest IS 'When the last was.';

CREATE VIEW storage.bucket_usage AS
    SELECT b.tenant_id, b.owner_id, b.id AS bucket_id, b.key AS bucket_key, b.access, b.physical_name,
           count(f.id) AS files, coalesce(sum(f.size), 0)::bigint AS bytes,
           count(DISTINCT f.object_id) AS objects, max(f.created_at) AS last_upload
    FROM storage.buckets b LEFT JOIN storage.files f ON f.bucket_id = b.id
    GROUP BY b.id;
COMMENT ON VIEW storage.bucket_usage IS 'Files and bytes by bucket; fewer objects than files is what dedup saved.';
COMMENT ON COLUMN storage.bucket_usage.tenant_id IS 'The tenant.';
COMMENT ON COLUMN storage.bucket_usage.owner_id IS 'The user it belongs to; NULL: the tenant as a whole.';
COMMENT ON COLUMN storage.bucket_usage.bucket_id IS 'The logical bucket.';
COMMENT ON COLUMN storage.bucket_usage.bucket_key IS 'Its key.';
COMMENT ON COLUMN storage.bucket_usage.access IS 'private, public or temp.';
COMMENT ON COLUMN storage.bucket_usage.physical_name IS 'The bucket in the store; NULL: not used yet.';
COMMENT ON COLUMN storage.bucket_usage.files IS 'How many files.';
COMMENT ON COLUMN storage.bucket_usage.bytes IS 'Sum of their sizes.';
COMMENT ON COLUMN storage.bucket_usage.objects IS 'How many objects they share.';
COMMENT ON COLUMN storage.bucket_usage.last_upload IS 'When the newest was confirmed.';

CREATE VIEW storage.deletion_queue AS
    SELECT d.id, d.physical_name, d.key, d.reason, d.not_before,
           d.not_before AT TIME ZONE 'UTC' <= now() AT TIME ZONE 'UTC' AS due,
           d.claimed_until, d.attempts, d.attempts > 10 AS dead, d.last_error, d.created_at
    FROM storage.object_deletions d;
COMMENT ON VIEW storage.deletion_queue IS 'The outbox: what is still to leave the store, and what the store said when it did not.';
COMMENT ON COLUMN storage.deletion_queue.id IS 'Of the queued deletion.';
COMMENT ON COLUMN storage.deletion_queue.physical_name IS 'The bucket in the store.';
COMMENT ON COLUMN storage.deletion_queue.key IS 'The key to be removed.';
COMMENT ON COLUMN storage.deletion_queue.reason IS 'Why it was queued.';
COMMENT ON COLUMN storage.deletion_queue.not_before IS 'Not to be removed before this.';
COMMENT ON COLUMN storage.deletion_queue.due IS 'Whether that time has come; an index finds those with WHERE due.';
COMMENT ON COLUMN storage.deletion_queue.claimed_until IS 'A collector is at it and has until then; NULL: nobody is.';
COMMENT ON COLUMN storage.deletion_queue.attempts IS 'Failed attempts so far.';
COMMENT ON COLUMN storage.deletion_queue.dead IS 'Whether it failed more than ten times: somebody should look at last_error. It is still repeated, about once an hour.';
COMMENT ON COLUMN storage.deletion_queue.last_error IS 'What the store said last.';
COMMENT ON COLUMN storage.deletion_queue.created_at IS 'When it was queued.';

CREATE VIEW storage.provisioning_state AS
    SELECT p.name, p.endpoint, p.tenant_id, p.access, p.state, p.applied_generation < p.desired_generation AS stale,
           s.step, s.outcome, s.reason, p.last_error, p.provisioned_at
    FROM storage.physical_buckets p
    LEFT JOIN LATERAL jsonb_to_recordset(p.steps) AS s(step text, outcome text, reason text) ON true;
COMMENT ON VIEW storage.provisioning_state IS 'Physical buckets, a row for each provisioning step with its outcome.';
COMMENT ON COLUMN storage.provisioning_state.name IS 'The bucket in the store.';
COMMENT ON COLUMN storage.provisioning_state.endpoint IS 'The store.';
COMMENT ON COLUMN storage.provisioning_state.tenant_id IS 'The one tenant it serves; NULL: several.';
COMMENT ON COLUMN storage.provisioning_state.access IS 'The one access it serves; NULL: all.';
COMMENT ON COLUMN storage.provisioning_state.state IS 'pending, ready or failed.';
COMMENT ON COLUMN storage.provisioning_state.stale IS 'Whether its configuration is to be applied again.';
COMMENT ON COLUMN storage.provisioning_state.step IS 'The provisioning step.';
COMMENT ON COLUMN storage.provisioning_state.outcome IS 'applied, skipped or failed.';
COMMENT ON COLUMN storage.provisioning_state.reason IS 'Why it was skipped or failed.';
COMMENT ON COLUMN storage.provisioning_state.last_error IS 'What went wrong last.';
COMMENT ON COLUMN storage.provisioning_state.provisioned_at IS 'When it was last brought to the wanted configuration.';

-- A worker that ran and runs no more stays visible: its last error may say why.
CREATE VIEW storage.worker_state AS
    WITH running AS (
        SELECT a.datname::text AS database, a.pid, substr(a.backend_type, 12) AS kind, a.backend_start AS started_at,
               a.state, CASE WHEN a.state <> 'idle' THEN a.query END AS task
        FROM pg_stat_activity a WHERE a.backend_type IN ('pg_storage launcher', 'pg_storage worker')
        UNION ALL
        SELECT current_database()::text, NULL, 'worker', NULL, 'not running', NULL
        FROM storage_private.worker_passes
        WHERE NOT EXISTS (SELECT FROM pg_stat_activity a
                          WHERE a.datname = current_database() AND a.backend_type = 'pg_storage worker')
    )
    SELECT r.database, r.pid, r.kind, r.started_at, r.state, r.task, w.finished_at AS last_pass_at,
           (w.report).uploads_expired, (w.report).uploads_confirmed, (w.report).files_expired,
           (w.report).objects_deleted, (w.report).deletions_failed, (w.report).buckets_provisioned,
           (w.report).buckets_deleted, (w.report).orphans_queued, (w.report).multiparts_aborted,
           (w.report).events_announced, (w.report).events_removed,
           w.last_error, w.last_error_at, w.next_pass_at
    FROM running r
    LEFT JOIN storage_private.worker_passes w ON r.kind = 'worker' AND r.database = current_database()::text;
COMMENT ON VIEW storage.worker_state IS
'The launcher and the workers of all databases that run now, and what the worker of this database did last.';
COMMENT ON COLUMN storage.worker_state.database IS 'The database it works for; NULL: the launcher, which works for none.';
COMMENT ON COLUMN storage.worker_state.pid IS 'Its process; NULL: a worker that ran here and does not any more.';
COMMENT ON COLUMN storage.worker_state.kind IS 'launcher or worker.';
COMMENT ON COLUMN storage.worker_state.started_at IS 'When it was started.';
COMMENT ON COLUMN storage.worker_state.state IS 'active or idle, as in pg_stat_activity; not running.';
COMMENT ON COLUMN storage.worker_state.task IS 'What it is doing; NULL while it is idle.';
COMMENT ON COLUMN storage.worker_state.last_pass_at IS 'When its last pass ended; NULL for workers of other databases, as all that follows.';
COMMENT ON COLUMN storage.worker_state.uploads_expired IS 'In the last pass: pending uploads that were ended.';
COMMENT ON COLUMN storage.worker_state.uploads_confirmed IS 'In the last pass: pending uploads that nobody confirmed, whose bytes were right and that were accepted.';
COMMENT ON COLUMN storage.worker_state.files_expired IS 'In the last pass: files past their time that were deleted.';
COMMENT ON COLUMN storage.worker_state.objects_deleted IS 'In the last pass: objects removed from the store.';
COMMENT ON COLUMN storage.worker_state.deletions_failed IS 'In the last pass: deletions put back for later.';
COMMENT ON COLUMN storage.worker_state.buckets_provisioned IS 'In the last pass: physical buckets brought to their wanted configuration.';
COMMENT ON COLUMN storage.worker_state.buckets_deleted IS 'In the last pass: buckets that were being deleted with their files, and are gone.';
COMMENT ON COLUMN storage.worker_state.orphans_queued IS 'In the last pass: keys in the store that no row knew, queued for deletion.';
COMMENT ON COLUMN storage.worker_state.multiparts_aborted IS 'In the last pass: multipart uploads that nobody completed, aborted.';
COMMENT ON COLUMN storage.worker_state.events_announced IS 'In the last pass: events whose notification was sent.';
COMMENT ON COLUMN storage.worker_state.events_removed IS 'In the last pass: events past their time that were removed.';
COMMENT ON COLUMN storage.worker_state.last_error IS 'What went wrong in the last pass in which something did.';
COMMENT ON COLUMN storage.worker_state.last_error_at IS 'When that was; before last_pass_at: all went well since.';
COMMENT ON COLUMN storage.worker_state.next_pass_at IS 'When the next pass is due, unless a commit wakes it before.';
