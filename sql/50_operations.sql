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
    SELECT u.tenant_id, u.bucket_id, b.key AS bucket_key, u.status, u.reason, count(*) AS uploads,
           sum(u.size)::bigint AS declared_bytes, min(u.created_at) AS oldest, max(u.created_at) AS newest
    FROM storage.upload_requests u JOIN storage.buckets b ON b.id = u.bucket_id
    GROUP BY u.tenant_id, u.bucket_id, b.key, u.status, u.reason;
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
    SELECT d.id, d.physical_name, d.key, d.reason, d.not_before, d.not_before <= clock_timestamp() AS due,
           d.attempts, d.last_error, d.created_at
    FROM storage.object_deletions d;
COMMENT ON VIEW storage.deletion_queue IS 'The outbox: what is still to leave the store, and what the store said when it did not.';
COMMENT ON COLUMN storage.deletion_queue.id IS 'Of the queued deletion.';
COMMENT ON COLUMN storage.deletion_queue.physical_name IS 'The bucket in the store.';
COMMENT ON COLUMN storage.deletion_queue.key IS 'The key to be removed.';
COMMENT ON COLUMN storage.deletion_queue.reason IS 'Why it was queued.';
COMMENT ON COLUMN storage.deletion_queue.not_before IS 'Not to be removed before this.';
COMMENT ON COLUMN storage.deletion_queue.due IS 'Whether that time has come.';
COMMENT ON COLUMN storage.deletion_queue.attempts IS 'Failed attempts so far.';
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
