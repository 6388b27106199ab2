-- Policies: who may see and do what. Row-level security is the only authorization model; these are
-- the ones that ship, owner and tenant isolation with public buckets readable within the tenant.

ALTER TABLE storage.buckets ENABLE ROW LEVEL SECURITY;
ALTER TABLE storage.tenant_settings ENABLE ROW LEVEL SECURITY;
ALTER TABLE storage.physical_buckets ENABLE ROW LEVEL SECURITY;
ALTER TABLE storage.store_capabilities ENABLE ROW LEVEL SECURITY;
ALTER TABLE storage.objects ENABLE ROW LEVEL SECURITY;
ALTER TABLE storage.files ENABLE ROW LEVEL SECURITY;
ALTER TABLE storage.upload_requests ENABLE ROW LEVEL SECURITY;
ALTER TABLE storage.object_deletions ENABLE ROW LEVEL SECURITY;
ALTER TABLE storage.events ENABLE ROW LEVEL SECURITY;

-- A manager is a role that was given the right to make buckets; see storage.grant_access().
CREATE FUNCTION storage_private.is_manager() RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN pg_catalog.has_column_privilege('storage.buckets', 'key', 'INSERT');
COMMENT ON FUNCTION storage_private.is_manager() IS 'True when the current role may make buckets.';

CREATE FUNCTION storage_private.create_default_policies() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    CREATE POLICY default_select ON storage.buckets FOR SELECT USING (
        tenant_id = (SELECT storage.current_tenant_id())
        AND (owner_id IS NULL OR owner_id = (SELECT storage.current_user_id()) OR access = 'public'
             OR (SELECT storage_private.is_manager())));
    CREATE POLICY default_insert ON storage.buckets FOR INSERT WITH CHECK (
        tenant_id = (SELECT storage.current_tenant_id()));
    CREATE POLICY default_update ON storage.buckets FOR UPDATE USING (
        tenant_id = (SELECT storage.current_tenant_id()));
    CREATE POLICY default_delete ON storage.buckets FOR DELETE USING (
        tenant_id = (SELECT storage.current_tenant_id()));

    CREATE POLICY default_all ON storage.tenant_settings USING (
        tenant_id = (SELECT storage.current_tenant_id()));

    CREATE POLICY default_select ON storage.physical_buckets FOR SELECT USING (
        tenant_id = (SELECT storage.current_tenant_id())
        OR EXISTS (SELECT FROM storage.buckets b WHERE b.physical_name = physical_buckets.name));

    CREATE POLICY default_select ON storage.files FOR SELECT USING (
        tenant_id = (SELECT storage.current_tenant_id())
        AND (owner_id = (SELECT storage.current_user_id())
             OR EXISTS (SELECT FROM storage.buckets b
                        WHERE b.id = files.bucket_id AND (b.owner_id IS NULL OR b.access = 'public'))));
    CREATE POLICY default_update ON storage.files FOR UPDATE USING (
        tenant_id = (SELECT storage.current_tenant_id()) AND owner_id = (SELECT storage.current_user_id()));
    CREATE POLICY default_delete ON storage.files FOR DELETE USING (
        tenant_id = (SELECT storage.current_tenant_id()) AND owner_id = (SELECT storage.current_user_id()));

    CREATE POLICY default_select ON storage.upload_requests FOR SELECT USING (
        tenant_id = (SELECT storage.current_tenant_id()) AND owner_id = (SELECT storage.current_user_id()));
    CREATE POLICY default_insert ON storage.upload_requests FOR INSERT WITH CHECK (
        tenant_id = (SELECT storage.current_tenant_id()) AND owner_id = (SELECT storage.current_user_id())
        AND EXISTS (SELECT FROM storage.buckets b
                    WHERE b.id = upload_requests.bucket_id
                      AND (b.owner_id IS NULL OR b.owner_id = (SELECT storage.current_user_id()))));

    -- For consumers, who were granted the table: no level is.
    CREATE POLICY default_select ON storage.events FOR SELECT USING (
        tenant_id = (SELECT storage.current_tenant_id()));
    CREATE POLICY default_update ON storage.events FOR UPDATE USING (
        tenant_id = (SELECT storage.current_tenant_id()));

    COMMENT ON POLICY default_select ON storage.buckets IS 'Yours, public ones, those of the tenant as a whole, and all of the tenant for managers.';
    COMMENT ON POLICY default_insert ON storage.buckets IS 'In your tenant.';
    COMMENT ON POLICY default_update ON storage.buckets IS 'In your tenant.';
    COMMENT ON POLICY default_delete ON storage.buckets IS 'In your tenant.';
    COMMENT ON POLICY default_all ON storage.tenant_settings IS 'Those of your tenant.';
    COMMENT ON POLICY default_select ON storage.physical_buckets IS 'Those of your tenant, and those that a bucket which you see is in.';
    COMMENT ON POLICY default_select ON storage.files IS 'Yours, and those in public buckets and in buckets of the tenant as a whole.';
    COMMENT ON POLICY default_update ON storage.files IS 'Yours.';
    COMMENT ON POLICY default_delete ON storage.files IS 'Yours.';
    COMMENT ON POLICY default_select ON storage.upload_requests IS 'Yours.';
    COMMENT ON POLICY default_insert ON storage.upload_requests IS 'As yourself, into your buckets and those of the tenant as a whole.';
    COMMENT ON POLICY default_select ON storage.events IS 'Those of your tenant.';
    COMMENT ON POLICY default_update ON storage.events IS 'Those of your tenant.';
END $$;
COMMENT ON FUNCTION storage_private.create_default_policies() IS 'Creates the owner-and-tenant policies.';

CREATE FUNCTION storage_private.drop_default_policies() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p record;
BEGIN
    FOR p IN
        SELECT schemaname, tablename, policyname FROM pg_catalog.pg_policies
        WHERE schemaname = 'storage'
          AND policyname IN ('default_all', 'default_select', 'default_insert', 'default_update', 'default_delete')
    LOOP
        EXECUTE format('DROP POLICY %I ON %I.%I', p.policyname, p.schemaname, p.tablename);
    END LOOP;
END $$;
COMMENT ON FUNCTION storage_private.drop_default_policies() IS 'Drops the owner-and-tenant policies.';

SELECT storage_private.create_default_policies();

-- Policies on an extension's tables are not dumped; a row is. Restoring the row switches them again.
CREATE FUNCTION storage_private.apply_policy_switch() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM storage_private.drop_default_policies();
    ELSE
        PERFORM storage_private.create_default_policies();
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION storage_private.apply_policy_switch() IS 'Trigger: a row in policy_switch means that the default policies are off.';

CREATE TRIGGER apply_policy_switch AFTER INSERT OR DELETE ON storage_private.policy_switch
FOR EACH ROW EXECUTE FUNCTION storage_private.apply_policy_switch();

CREATE FUNCTION storage.enable_default_policies(enabled boolean DEFAULT true) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF coalesce(enabled, true) THEN
        DELETE FROM storage_private.policy_switch;
    ELSE
        INSERT INTO storage_private.policy_switch VALUES (false) ON CONFLICT DO NOTHING;
    END IF;
END $$;
COMMENT ON FUNCTION storage.enable_default_policies(boolean) IS
'Turns the shipped owner-and-tenant policies on (true, the default) or off (false: nobody but superusers sees anything until you create policies of your own). For the extension''s owner; survives dump and restore.';
