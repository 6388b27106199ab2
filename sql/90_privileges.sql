-- Privileges: nothing for PUBLIC; three levels, each the one before and more.

REVOKE ALL ON ALL TABLES IN SCHEMA storage, storage_private FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA storage, storage_private FROM PUBLIC;

-- There is no ALL TYPES IN SCHEMA. Row types of tables stay as they are: pg_dump knows no privileges of theirs
-- and would say so in every dump; without USAGE on the schema they are out of reach anyway.
DO $$
DECLARE
    type regtype;
BEGIN
    FOR type IN
        SELECT t.oid FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
        WHERE t.typnamespace = ANY (ARRAY['storage', 'storage_private']::pg_catalog.regnamespace[])
          AND (t.typtype = 'e' OR c.relkind = 'c')
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON TYPE %s FROM PUBLIC', type);
    END LOOP;
END $$;

-- One list of what each level needs; granting and revoking read the same.
CREATE FUNCTION storage_private.level_privileges(level text) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF level NOT IN ('reader', 'writer', 'manager') OR level IS NULL THEN
        PERFORM storage_private.refuse('RBAC_FORBIDDEN', 'there is no such access level', format('Asked for %L.', level),
            'Levels are reader, writer and manager.');
    END IF;

    RETURN QUERY VALUES
        ('USAGE ON SCHEMA storage, storage_private'),
        -- For functions of one's own around ours; calling ours takes no right on their types.
        ('USAGE ON TYPE storage.bucket_access, storage.upload_status, storage.dedup_scope,'
         ' storage.upload_ticket, storage.upload_spec, storage.upload_form, storage.multipart_ticket, storage.signed_part,'
         ' storage.upload_part, storage.signed_url'),
        ('SELECT ON storage.buckets, storage.files, storage_private.deleted_buckets'),
        ('EXECUTE ON FUNCTION storage.current_user_id(), storage.current_tenant_id(), storage.operation(),'
         ' storage.download_url(uuid, interval, boolean, text), storage.download_urls(uuid[], interval, boolean),'
         ' storage.files_download_url(storage.files), storage.public_url(uuid)'),
        ('EXECUTE ON FUNCTION storage_private.claimed_user(), storage_private.claimed_tenant(), storage_private.asked_operation(), storage_private.is_manager(),'
         ' storage_private.refuse(text, text, text, text),'
         ' storage_private.sign_downloads(uuid[], interval, boolean, text), storage_private.unsigned_url(uuid)'),
        ('EXECUTE ON FUNCTION storage.get_file(uuid), storage_private.get(uuid),'
         ' storage.search_files(text, jsonb, integer, uuid), storage_private.search(uuid, text, integer, uuid)'),
        ('USAGE ON TYPE storage.list_order, storage.list_entry'),
        ('EXECUTE ON FUNCTION storage.list_files(text, text, text, integer, text, storage.list_order),'
         ' storage_private.find_bucket(text), storage_private.list_page(uuid, text, text, integer, text, text)');
    IF level IN ('writer', 'manager') THEN
        RETURN QUERY VALUES
            ('SELECT ON storage.upload_requests'),
            ('INSERT (bucket_id, filename, path, content_type, size, sha256, metadata, expires_in) ON storage.upload_requests'),
            ('UPDATE (filename, path, metadata) ON storage.files'),
            ('DELETE ON storage.files'),
            ('EXECUTE ON FUNCTION storage.put_file(text, text, bytea, text, text, jsonb), storage.copy_file(uuid, text, text, text),'
             ' storage.move_file(uuid, text, text), storage.set_file_access(uuid, storage.bucket_access),'
             ' storage.restore_version(uuid), storage.expire_versions(text, text, integer, interval),'
             ' storage_private.put(uuid, text, bytea, text, text, jsonb), storage_private.copy(uuid, uuid, text, text),'
             ' storage_private.relocate(uuid, uuid, text, boolean)'),
            ('EXECUTE ON FUNCTION'
             ' storage.request_upload_url(text, text, text, bigint, text, text, jsonb, interval),'
             ' storage.request_upload_urls(text, storage.upload_spec[]),'
             ' storage.request_upload_form(text, text, text, bigint, text, jsonb, interval),'
             ' storage.request_multipart_upload(text, text, text, bigint, bigint, text, text, jsonb, interval, boolean),'
             ' storage.sign_upload_parts(uuid, integer[], text[]), storage.list_upload_parts(uuid),'
             ' storage.confirm_upload(uuid), storage.confirm_uploads(uuid[]), storage.abort_upload(uuid), storage.delete_file(uuid)'),
            ('EXECUTE ON FUNCTION storage_private.require_writable(), storage_private.find_bucket(text),'
             ' storage_private.open_upload(text, text, text, bigint, text, text, jsonb, interval),'
             ' storage_private.open_uploads(text, text[], text[], bigint[], text[], text[], jsonb[]),'
             ' storage_private.open_form(text, text, text, bigint, text, jsonb, interval),'
             ' storage_private.open_parts(text, text, text, bigint, bigint, text, text, jsonb, interval, boolean),'
             ' storage_private.sign_parts(uuid, integer[], text[]), storage_private.arrived_parts(uuid),'
             ' storage_private.shareable_objects(uuid, text, bigint), storage_private.shares_with(storage.buckets, storage.buckets),'
             ' storage_private.confirm(uuid), storage_private.confirm_all(uuid[]), storage_private.abort(uuid)');
    END IF;
    IF level = 'manager' THEN
        RETURN QUERY VALUES
            ('SELECT, INSERT, UPDATE, DELETE ON storage.tenant_settings'),
            ('SELECT ON storage.physical_buckets'),
            ('INSERT (tenant_id, owner_id, key, access, is_default, allowed_mime_types, max_file_size, max_total_size, max_file_count,'
             ' allowed_origins, upload_url_ttl, download_url_ttl, file_ttl, dedup, verify_content_type, metadata) ON storage.buckets'),
            ('UPDATE (key, is_default, allowed_mime_types, max_file_size, max_total_size, max_file_count,'
             ' allowed_origins, upload_url_ttl, download_url_ttl, file_ttl, dedup, verify_content_type, metadata) ON storage.buckets'),
            ('DELETE ON storage.buckets'),
            ('EXECUTE ON FUNCTION'
             ' storage.create_bucket(text, storage.bucket_access, text, text[], bigint, text[], boolean),'
             ' storage.create_user_buckets(text), storage.delete_bucket(text, boolean), storage.provision_bucket(text),'
             ' storage.inspect_bucket(text)'),
            ('EXECUTE ON FUNCTION storage_private.seed_buckets(text, text), storage_private.mark_bucket_deleted(uuid),'
             ' storage_private.provision(uuid),'
             ' storage_private.inspect_bucket(uuid), storage_private.validate_bucket(text, text[], text[], text),'
             ' storage_private.validate_origins(text[])');
    END IF;
END $$;
COMMENT ON FUNCTION storage_private.level_privileges(text) IS 'The privileges of an access level, as GRANT and REVOKE spell them.';

CREATE FUNCTION storage.grant_access(role name, level text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    privilege text;
BEGIN
    FOR privilege IN SELECT storage_private.level_privileges(level) LOOP
        EXECUTE format('GRANT %s TO %I', privilege, role);
    END LOOP;
END $$;
COMMENT ON FUNCTION storage.grant_access(name, text) IS
'Gives a role what it needs and no more. level reader: see buckets and files, download; writer: also upload, rename and delete own files; manager: also make, change and provision the tenant''s buckets. For the extension''s owner.';

CREATE FUNCTION storage.revoke_access(role name) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    privilege text;
BEGIN
    FOR privilege IN SELECT storage_private.level_privileges('manager') LOOP
        EXECUTE format('REVOKE %s FROM %I', privilege, role);
    END LOOP;
END $$;
COMMENT ON FUNCTION storage.revoke_access(name) IS 'Takes every access level from a role. For the extension''s owner.';

-- Created after the blanket REVOKE above.
REVOKE ALL ON FUNCTION storage_private.level_privileges(text), storage.grant_access(name, text), storage.revoke_access(name) FROM PUBLIC;

-- What an installation before this one left in this database's cache is not on record here.
SELECT storage_private.clear_cache();
