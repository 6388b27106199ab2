-- Rules: what the tables do by themselves. Inputs are validated, trusted columns filled, keys queued.

CREATE FUNCTION storage_private.check_bucket() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM storage_private.validate_bucket(NEW.key, NEW.allowed_mime_types, NEW.allowed_origins, NEW.physical_name);
    IF NEW.owner_id = '' THEN
        PERFORM storage_private.refuse('INVALID_BUCKET_KEY', 'a bucket''s owner has a name', 'owner_id is empty.',
            'NULL makes it a bucket of the tenant.');
    ELSIF least(NEW.max_file_size, NEW.max_total_size, NEW.max_file_count) < 1 THEN
        PERFORM storage_private.refuse('INVALID_FILE_SIZE', 'the limits of a bucket are positive',
            format('max_file_size is %s, max_total_size %s, max_file_count %s.',
                   coalesce(NEW.max_file_size::text, 'NULL'), coalesce(NEW.max_total_size::text, 'NULL'),
                   coalesce(NEW.max_file_count::text, 'NULL')), 'NULL is no limit.');
    ELSIF least(NEW.upload_url_ttl, NEW.download_url_ttl) < '1 second'
          OR greatest(NEW.upload_url_ttl, NEW.download_url_ttl) > '7 days' OR NEW.file_ttl <= '0' THEN
        PERFORM storage_private.refuse('INVALID_EXPIRY', 'URLs live between 1 second and 7 days, files longer than nothing',
            format('upload_url_ttl is %s, download_url_ttl %s, file_ttl %s.',
                   coalesce(NEW.upload_url_ttl::text, 'NULL'), coalesce(NEW.download_url_ttl::text, 'NULL'),
                   coalesce(NEW.file_ttl::text, 'NULL')), 'NULL takes the server''s setting.');
    ELSIF jsonb_typeof(NEW.metadata) <> 'object' THEN
        PERFORM storage_private.refuse('INVALID_METADATA', 'metadata is a JSON object',
            format('It is of type %s.', jsonb_typeof(NEW.metadata)), 'Wrap the value: {"value": ...}.');
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF NEW.access <> OLD.access AND OLD.physical_name IS NOT NULL THEN
            PERFORM storage_private.refuse('BUCKET_NOT_EMPTY', 'the access of a bucket is fixed once it has been used',
                format('Bucket %s is %s.', OLD.id, OLD.access),
                'Create another bucket with the access you want.');
        END IF;
        NEW.updated_at := clock_timestamp();
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION storage_private.check_bucket() IS 'Trigger: refuses a bucket row that breaks a rule.';

CREATE TRIGGER check_bucket BEFORE INSERT OR UPDATE ON storage.buckets
FOR EACH ROW EXECUTE FUNCTION storage_private.check_bucket();

-- Definer: files that the caller cannot see keep a bucket as well.
CREATE FUNCTION storage_private.keep_full_bucket() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF storage_private.is_being_marked(OLD.id) THEN
        -- Deleting may take long, and the key is free meanwhile. The one it gets instead nobody can have taken before.
        UPDATE storage.buckets SET deleted_at = clock_timestamp(), deleted_key = key, key = 'deleted.' || gen_random_uuid()
        WHERE id = OLD.id AND deleted_at IS NULL;
        PERFORM storage_private.wake_worker();
        RETURN NULL;
    END IF;
    IF EXISTS (SELECT FROM storage.files f WHERE f.bucket_id = OLD.id) THEN
        PERFORM storage_private.refuse('BUCKET_NOT_EMPTY', 'the bucket still holds files', format('Bucket %s.', OLD.id),
            'Delete its files first, or have storage.delete_bucket(..., force => true) do it.');
    END IF;
    RETURN OLD;
END $$;
COMMENT ON FUNCTION storage_private.keep_full_bucket() IS 'Trigger: refuses to delete a bucket that holds files, or marks it where mark_bucket_deleted() asks.';

CREATE TRIGGER keep_full_bucket BEFORE DELETE ON storage.buckets
FOR EACH ROW EXECUTE FUNCTION storage_private.keep_full_bucket();

CREATE FUNCTION storage_private.check_tenant_settings() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM storage_private.validate_origins(NEW.allowed_origins);
    RETURN NEW;
END $$;
COMMENT ON FUNCTION storage_private.check_tenant_settings() IS 'Trigger: refuses origins that are none.';

CREATE TRIGGER check_tenant_settings BEFORE INSERT OR UPDATE ON storage.tenant_settings
FOR EACH ROW EXECUTE FUNCTION storage_private.check_tenant_settings();

-- Definer: the caller may change origins but not the provisioning state that follows from them.
CREATE FUNCTION storage_private.reapply_origins() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changed jsonb := to_jsonb(coalesce(NEW, OLD));
    stale text;
BEGIN
    FOR stale IN
        UPDATE storage.physical_buckets p SET desired_generation = p.desired_generation + 1
        WHERE NOT p.fixed AND p.name IN (
            SELECT b.physical_name FROM storage.buckets b
            WHERE b.id = (changed ->> 'id')::uuid OR (TG_TABLE_NAME = 'tenant_settings' AND b.tenant_id = changed ->> 'tenant_id'))
        RETURNING p.name
    LOOP
        PERFORM storage_private.forget_at_commit(stale);
    END LOOP;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION storage_private.reapply_origins() IS 'Trigger: allowed origins changed, so the physical buckets concerned are due for configuration again.';

CREATE TRIGGER reapply_origins AFTER UPDATE OF allowed_origins ON storage.buckets
FOR EACH ROW WHEN (NEW.allowed_origins IS DISTINCT FROM OLD.allowed_origins)
EXECUTE FUNCTION storage_private.reapply_origins();

CREATE TRIGGER reapply_origins AFTER INSERT OR UPDATE OR DELETE ON storage.tenant_settings
FOR EACH ROW EXECUTE FUNCTION storage_private.reapply_origins();

-- Definer: see above. The first use names a physical bucket too, but has applied the origins before that.
CREATE FUNCTION storage_private.bring_origins() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    stale text;
BEGIN
    FOR stale IN
        UPDATE storage.physical_buckets p SET desired_generation = p.desired_generation + 1
        WHERE p.name = NEW.physical_name AND NOT p.fixed
          AND NOT coalesce(nullif(NEW.allowed_origins, '{}'),
                           (SELECT t.allowed_origins FROM storage.tenant_settings t WHERE t.tenant_id = NEW.tenant_id),
                           '{}') <@ coalesce(p.allowed_origins, '{}')
        RETURNING p.name
    LOOP
        PERFORM storage_private.forget_at_commit(stale);
    END LOOP;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION storage_private.bring_origins() IS 'Trigger: a bucket was given a physical bucket that lacks its origins, so that one is due for configuration again.';

CREATE TRIGGER bring_origins_new AFTER INSERT ON storage.buckets
FOR EACH ROW WHEN (NEW.physical_name IS NOT NULL) EXECUTE FUNCTION storage_private.bring_origins();

CREATE TRIGGER bring_origins AFTER UPDATE OF physical_name ON storage.buckets
FOR EACH ROW WHEN (NEW.physical_name IS NOT NULL AND NEW.physical_name IS DISTINCT FROM OLD.physical_name)
EXECUTE FUNCTION storage_private.bring_origins();

-- The trusted columns of an upload request are never taken from the caller. A row that brings its end
-- comes from somebody who may write that column: the owner restoring a dump. Policies are checked after
-- this, so nothing here makes a bucket ready: before its first use a row has no place, see place_upload().
CREATE TRIGGER admit_upload BEFORE INSERT ON storage.upload_requests
FOR EACH ROW WHEN (NEW.expires_at IS NULL) EXECUTE FUNCTION storage_private.admit_upload();

-- After the insert and so after the policies: whoever may not upload is told that, and nothing of what others have.
CREATE TRIGGER limit_upload AFTER INSERT ON storage.upload_requests
FOR EACH ROW EXECUTE FUNCTION storage_private.limit_upload();

-- Definer: a path may be taken by a file that the caller cannot see.
CREATE FUNCTION storage_private.check_file() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    holder storage.files;
    latest storage.files;
BEGIN
    -- The rules were others once: what it has already, it keeps.
    PERFORM storage_private.validate_file(NEW.filename, CASE WHEN NEW.path IS DISTINCT FROM OLD.path THEN NEW.path END);
    IF NEW.filename IS DISTINCT FROM OLD.filename THEN
        PERFORM storage_private.validate_rename(NEW.filename, NEW.content_type);
    END IF;
    IF NEW.path IS NOT DISTINCT FROM OLD.path THEN
        RETURN NEW;
    ELSIF NEW.path IS NULL THEN
        -- A version of no path would be neither listed nor expired.
        NEW.is_current := true;
        NEW.superseded_at := NULL;
        NEW.previous_version_id := NULL;
        RETURN NEW;
    END IF;
    holder := storage_private.path_holder(NEW.bucket_id, NEW.path);
    IF NEW.is_current AND holder.id IS NOT NULL
       OR NOT NEW.is_current AND EXISTS (SELECT FROM storage.files f
                                         WHERE f.bucket_id = NEW.bucket_id AND f.path = NEW.path
                                           AND (f.version = NEW.version OR f.version < NEW.version AND f.is_current
                                                 OR f.owner_id <> NEW.owner_id)) THEN
        PERFORM storage_private.refuse_path(NEW.bucket_id, NEW.path);
    END IF;
    IF NEW.is_current THEN
        -- What was there before, it comes after: as an upload would.
        SELECT * INTO latest FROM storage.files f
        WHERE f.bucket_id = NEW.bucket_id AND f.path = NEW.path ORDER BY f.version DESC LIMIT 1;
        NEW.version := greatest(NEW.version, latest.version + 1);
        -- What another still comes after comes after nothing: the two might come after each other.
        NEW.previous_version_id := CASE WHEN latest.owner_id = NEW.owner_id
            AND NOT EXISTS (SELECT FROM storage.files f WHERE f.previous_version_id = NEW.id) THEN latest.id END;
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION storage_private.check_file() IS
'Trigger: refuses a file name or path that breaks the rules, a name that contradicts the type, and a path that is taken; what comes to a path that has versions is the latest of them.';

CREATE TRIGGER check_file BEFORE UPDATE OF filename, path ON storage.files
FOR EACH ROW EXECUTE FUNCTION storage_private.check_file();

-- Definer: whoever may delete files may not touch the outbox. Whether an object is still needed is
-- not asked here but when it is collected, under a lock, over all files and not only the visible ones.
CREATE FUNCTION storage_private.queue_deleted_files() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO storage.object_deletions (physical_name, key, reason, not_before)
    SELECT DISTINCT o.physical_name, o.key, 'file deleted', clock_timestamp() + storage_private.deletion_delay()
    FROM gone JOIN storage.objects o ON o.id = gone.object_id;
    UPDATE storage.files f SET previous_version_id = NULL FROM gone WHERE f.previous_version_id = gone.id;
    IF storage_private.event_retention() > '0' THEN
        INSERT INTO storage.events (kind, file_id, bucket_id, object_id, tenant_id, owner_id, filename, path, content_type, size)
        SELECT 'deleted', g.id, g.bucket_id, g.object_id, g.tenant_id, g.owner_id, g.filename, g.path, g.content_type, g.size
        FROM gone g;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION storage_private.queue_deleted_files() IS
'Trigger: queues the objects of deleted files, leaves their next versions without a predecessor, and records the events.';

CREATE TRIGGER queue_deleted_files AFTER DELETE ON storage.files
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION storage_private.queue_deleted_files();

CREATE FUNCTION storage_private.queue_deleted_requests() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO storage.object_deletions (physical_name, key, reason, not_before, multipart_id)
    SELECT gone.physical_name, gone.object_key, 'upload request deleted',
           -- The bytes of a file that was deleted just before stay as long as those of any other.
           CASE WHEN gone.status = 'uploaded' THEN greatest(d.due, clock_timestamp() + storage_private.deletion_delay()) ELSE d.due END,
           gone.multipart_id
    FROM gone
    CROSS JOIN LATERAL storage_private.sweep_times(gone.expires_at) AS d(due)
    -- What ended was queued when it did, and nothing more arrives once its URL is over.
    WHERE gone.object_key IS NOT NULL
      AND (gone.status = 'requested' OR gone.expires_at + interval '1 hour' > clock_timestamp());
    RETURN NULL;
END $$;
COMMENT ON FUNCTION storage_private.queue_deleted_requests() IS 'Trigger: queues whatever a deleted upload request may have brought in.';

CREATE TRIGGER queue_deleted_requests AFTER DELETE ON storage.upload_requests
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION storage_private.queue_deleted_requests();

-- TRUNCATE fires no row-level accounting and would strand every object.
CREATE FUNCTION storage_private.refuse_truncate() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM storage_private.refuse('BUCKET_NOT_EMPTY', format('%I.%I cannot be truncated', TG_TABLE_SCHEMA, TG_TABLE_NAME),
        'TRUNCATE would leave the bytes in the store without any record of them.', 'Use DELETE.');
    RETURN NULL;
END $$;
COMMENT ON FUNCTION storage_private.refuse_truncate() IS 'Trigger: refuses TRUNCATE.';

CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON storage.files EXECUTE FUNCTION storage_private.refuse_truncate();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON storage.objects EXECUTE FUNCTION storage_private.refuse_truncate();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON storage.upload_requests EXECUTE FUNCTION storage_private.refuse_truncate();
