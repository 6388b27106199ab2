-- Identity: who the caller is, as far as the claims say, or the role. Everything else asks these two.

CREATE FUNCTION storage.current_user_id() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN storage_private.claimed_user();
COMMENT ON FUNCTION storage.current_user_id() IS
'The caller''s user id: the setting named by pg_storage.user_id_setting (PostGraphile: jwt.claims.user_id); when empty, sub of the JSON in request.jwt.claims (PostgREST); when absent too, the role''s name. With pg_storage.identity_source = role it is the current role''s name, whatever the claims say. Fails with TENANT_REQUIRED when that JSON cannot be read.';

CREATE FUNCTION storage.current_tenant_id() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN storage_private.claimed_tenant();
COMMENT ON FUNCTION storage.current_tenant_id() IS
'The caller''s tenant: the setting named by pg_storage.tenant_id_setting (PostGraphile: jwt.claims.tenant_id); when empty, tenant_id of the JSON in request.jwt.claims; when absent too, pg_storage.default_tenant. With pg_storage.identity_source = role it is pg_storage.tenant, else pg_storage.default_tenant. Fails with TENANT_REQUIRED when that is empty, or when that JSON cannot be read.';
