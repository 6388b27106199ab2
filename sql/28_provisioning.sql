-- Provisioning records: what the store was brought to. Run by the library as their owner, like settlement.

CREATE FUNCTION storage_private.provisioning_of(physical text, store text)
RETURNS TABLE (access storage.bucket_access, endpoint text, ready boolean, desired_generation bigint, capabilities jsonb,
               allowed_origins text[], fixed boolean, key_prefix text, on_record boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.access, p.endpoint, p.state = 'ready' AND p.applied_generation = p.desired_generation, p.desired_generation, c.capabilities,
           p.allowed_origins, p.fixed OR (p.name IS NOT NULL AND p.access IS NULL), p.key_prefix,
           EXISTS (SELECT FROM storage.physical_buckets r WHERE r.name = asked.name)
    FROM (SELECT $1 AS name, $2 AS endpoint) asked
    -- What only failed so far binds nobody.
    LEFT JOIN storage.physical_buckets p ON p.name = asked.name AND p.provisioned_at IS NOT NULL
    LEFT JOIN storage.store_capabilities c ON c.endpoint = asked.endpoint
$$;
COMMENT ON FUNCTION storage_private.provisioning_of(text, text) IS
'What is recorded of a physical bucket and of the store; always one row, NULL where nothing is.';

CREATE FUNCTION storage_private.wanted_origins(physical text, bucket_id uuid, server_origins text[]) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(DISTINCT o.origin ORDER BY o.origin)
    FROM storage.buckets b
    LEFT JOIN storage.tenant_settings t USING (tenant_id)
    CROSS JOIN LATERAL unnest(coalesce(nullif(b.allowed_origins, '{}'), nullif(t.allowed_origins, '{}'), $3)) AS o(origin)
    WHERE b.physical_name = $1 OR b.id = $2
$$;
COMMENT ON FUNCTION storage_private.wanted_origins(text, uuid, text[]) IS
'CORS origins of a physical bucket: for each bucket on it its own, else its tenant''s, else the server''s.';

CREATE FUNCTION storage_private.has_own_origins(bucket_id uuid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(cardinality(coalesce(nullif(b.allowed_origins, '{}'), t.allowed_origins)), 0) > 0
    FROM storage.buckets b LEFT JOIN storage.tenant_settings t USING (tenant_id)
    WHERE b.id = $1
$$;
COMMENT ON FUNCTION storage_private.has_own_origins(uuid) IS
'True when a bucket brings origins that its physical bucket may not have yet.';

-- Whoever holds these locks has an open transaction that writes the same truth; a first upload does
-- not wait for it (wait = false), because what is true of the store needs no second record.
CREATE FUNCTION storage_private.record_provisioning(
    physical text, tenant text, bucket_access storage.bucket_access, fixed boolean, key_prefix text, store text,
    generation bigint, applied_steps jsonb, origins text[], wait boolean
) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    current boolean;
BEGIN
    IF wait THEN
        -- First the row, which others lock without our lock and then ask for that.
        PERFORM FROM storage.physical_buckets p WHERE p.name = physical FOR NO KEY UPDATE;
        PERFORM storage_private.hold_lock('physical bucket', physical);
    ELSIF NOT storage_private.try_hold_lock('physical bucket', physical) THEN
        RETURN 'left';
    ELSE
        PERFORM FROM storage.physical_buckets p WHERE p.name = physical FOR NO KEY UPDATE SKIP LOCKED;
        IF NOT FOUND AND EXISTS (SELECT FROM storage.physical_buckets p WHERE p.name = physical) THEN
            RETURN 'left';
        END IF;
    END IF;
    -- Tells those who cannot see the row yet; whoever holds it holds the lock above as well.
    PERFORM storage_private.hold_lock('physical bucket', physical || '/' || bucket_access);
    INSERT INTO storage.physical_buckets AS p
        (name, tenant_id, access, fixed, key_prefix, endpoint, state, desired_generation, applied_generation, steps, allowed_origins,
         provisioned_at)
    VALUES (physical, tenant, bucket_access, fixed, key_prefix, store, 'ready', generation, generation, applied_steps, origins,
            clock_timestamp())
    ON CONFLICT (name) DO UPDATE
        SET tenant_id = CASE WHEN p.provisioned_at IS NULL THEN excluded.tenant_id ELSE p.tenant_id END,
            access = CASE WHEN p.provisioned_at IS NULL THEN excluded.access ELSE p.access END,
            fixed = CASE WHEN p.provisioned_at IS NULL THEN excluded.fixed ELSE p.fixed END,
            endpoint = excluded.endpoint, state = 'ready', applied_generation = excluded.applied_generation, steps = excluded.steps,
            allowed_origins = excluded.allowed_origins, key_prefix = excluded.key_prefix,
            last_error = NULL, attempts = 0, next_attempt_at = NULL, provisioned_at = excluded.provisioned_at
    RETURNING p.applied_generation = p.desired_generation INTO current;
    RETURN CASE WHEN current THEN 'recorded' ELSE 'stale' END;
END $$;
COMMENT ON FUNCTION storage_private.record_provisioning(text, text, storage.bucket_access, boolean, text, text, bigint, jsonb, text[], boolean) IS
'Records that a physical bucket is ready. wait: whether to wait for another session that is recording the same. Gives recorded; left: to that session; stale: more was wanted meanwhile.';

-- Run in a transaction of its own, because the one that asks may be rolled back: before the store is asked to make a
-- bucket, so that bytes that come into it are found even so, and after it failed. Whoever holds the locks is recording a
-- success, and a success that came after the failure outweighs it.
CREATE FUNCTION storage_private.record_attempt(attempt jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a record;
BEGIN
    SELECT * INTO a FROM jsonb_to_record(attempt) AS r(
        name text, tenant_id text, access storage.bucket_access, fixed boolean, key_prefix text, endpoint text,
        steps jsonb, error text, failed_at double precision);
    IF NOT storage_private.try_hold_lock('physical bucket', a.name) THEN
        RETURN;
    END IF;
    PERFORM FROM storage.physical_buckets p WHERE p.name = a.name FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND AND EXISTS (SELECT FROM storage.physical_buckets p WHERE p.name = a.name) THEN
        RETURN;
    END IF;
    -- Whoever made it may clear it, also when nothing else is ever committed.
    PERFORM storage_private.record_installation();
    INSERT INTO storage.physical_buckets AS p
        (name, tenant_id, access, fixed, key_prefix, endpoint, state, steps, last_error, attempts, next_attempt_at)
    VALUES (a.name, a.tenant_id, a.access, a.fixed, a.key_prefix, a.endpoint,
            CASE WHEN a.error IS NULL THEN 'pending' ELSE 'failed' END::storage.provision_state, a.steps, a.error,
            (a.error IS NOT NULL)::integer, clock_timestamp() + interval '10 seconds')
    ON CONFLICT (name) DO UPDATE
        SET state = CASE WHEN p.state = 'ready' AND p.applied_generation = p.desired_generation THEN p.state ELSE 'failed' END,
            steps = excluded.steps, last_error = excluded.last_error, attempts = p.attempts + 1,
            next_attempt_at = clock_timestamp() + least(interval '10 seconds' * 2 ^ least(p.attempts, 9), interval '1 hour')
        WHERE a.error IS NOT NULL AND (p.provisioned_at IS NULL OR p.provisioned_at < to_timestamp(a.failed_at));
END $$;
COMMENT ON FUNCTION storage_private.record_attempt(jsonb) IS
'Records an attempt to make a physical bucket ready: without an error, that one is under way; with one, that it failed, with the steps taken and a later time for the next one. A bucket that is ready and current stays so.';

CREATE FUNCTION storage_private.record_capabilities(store text, observed jsonb) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT storage_private.try_hold_lock('store', store) THEN
        RETURN false;
    END IF;
    INSERT INTO storage.store_capabilities AS c (endpoint, capabilities) VALUES (store, observed)
    ON CONFLICT (endpoint) DO UPDATE SET capabilities = excluded.capabilities, probed_at = clock_timestamp();
    RETURN true;
END $$;
COMMENT ON FUNCTION storage_private.record_capabilities(text, jsonb) IS 'Records what a store was seen to enforce; false when another session is just doing it.';

-- Asked under the lock of this physical bucket's provisioning, so nobody else is just asking.
CREATE FUNCTION storage_private.access_being_recorded(physical text) RETURNS storage.bucket_access
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    candidate storage.bucket_access;
BEGIN
    FOREACH candidate IN ARRAY enum_range(NULL::storage.bucket_access) LOOP
        IF storage_private.is_locked('physical bucket', physical || '/' || candidate) THEN
            RETURN candidate;
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION storage_private.access_being_recorded(text) IS 'The one access of a physical bucket that another open transaction is recording; NULL: none is.';

-- The row comes last: only whoever finds all of it free goes on to write it.
CREATE FUNCTION storage_private.is_being_recorded(physical text, store text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF storage_private.is_locked('physical bucket', physical) OR storage_private.is_locked('store', store) THEN
        RETURN true;
    END IF;
    PERFORM FROM storage.physical_buckets p WHERE p.name = physical FOR NO KEY UPDATE SKIP LOCKED;
    RETURN NOT FOUND AND EXISTS (SELECT FROM storage.physical_buckets p WHERE p.name = physical);
END $$;
COMMENT ON FUNCTION storage_private.is_being_recorded(text, text) IS 'Whether another open transaction is recording a physical bucket or its store.';

-- A bucket must not name an operator's bucket before that is on record as one: without the record, the name alone would
-- have it configured as one of ours.
CREATE FUNCTION storage_private.record_physical_name(bucket_id uuid, physical text, fixed boolean) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE storage.buckets SET physical_name = $2
    WHERE id = (SELECT b.id FROM storage.buckets b WHERE b.id = $1 AND b.physical_name IS NULL FOR NO KEY UPDATE SKIP LOCKED)
      AND (NOT $3 OR EXISTS (SELECT FROM storage.physical_buckets p WHERE p.name = $2 AND p.provisioned_at IS NOT NULL))
$$;
COMMENT ON FUNCTION storage_private.record_physical_name(uuid, text, boolean) IS
'Gives a bucket its physical bucket, unless it has one or another session is just doing it.';

CREATE FUNCTION storage_private.capabilities_of(store text) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.capabilities FROM storage.store_capabilities c WHERE c.endpoint = $1
$$;
COMMENT ON FUNCTION storage_private.capabilities_of(text) IS 'What a store was seen to enforce; NULL when it was never tried.';

CREATE FUNCTION storage_private.is_provisioning_due() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- The first alone, in the order of the index: the planner takes a third of all for unready, and would look among all.
    SELECT coalesce((SELECT p.next_attempt_at IS NULL OR p.next_attempt_at <= clock_timestamp()
                     FROM storage.physical_buckets p
                     WHERE p.state <> 'ready' OR p.applied_generation < p.desired_generation
                     ORDER BY p.next_attempt_at NULLS FIRST LIMIT 1), false)
$$;
COMMENT ON FUNCTION storage_private.is_provisioning_due() IS 'Whether some physical bucket is not as it is wanted, and its time has come.';

CREATE FUNCTION storage_private.provisioning_due(store text)
RETURNS TABLE (name text, tenant_id text, access storage.bucket_access, fixed boolean, key_prefix text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.name, p.tenant_id, p.access, p.fixed, p.key_prefix FROM storage.physical_buckets p
    WHERE (p.state <> 'ready' OR p.applied_generation < p.desired_generation)
      AND (p.next_attempt_at IS NULL OR p.next_attempt_at <= clock_timestamp())
      AND p.endpoint = $1
    ORDER BY p.next_attempt_at NULLS FIRST LIMIT 100
$$;
COMMENT ON FUNCTION storage_private.provisioning_due(text) IS 'Physical buckets on a store that are not as they are wanted and whose time has come, the longest due first.';

CREATE FUNCTION storage_private.mark_missing(physical text) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE storage.physical_buckets p
    SET state = 'pending', desired_generation = p.desired_generation + 1, last_error = 'The bucket is gone from the store.',
        emptied_at = clock_timestamp()
    WHERE p.name = $1
$$;
COMMENT ON FUNCTION storage_private.mark_missing(text) IS 'Records that the store no longer has a physical bucket; the next use makes it again.';

CREATE FUNCTION storage_private.some_physical_bucket(store text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.name FROM storage.physical_buckets p
    WHERE p.endpoint = $1 AND p.state = 'ready' ORDER BY p.access = 'private' DESC NULLS LAST, p.name LIMIT 1
$$;
COMMENT ON FUNCTION storage_private.some_physical_bucket(text) IS 'A bucket to try a store out in, a private one where there is a choice.';

-- Some bucket without it outweighs others with it: a public bucket needs more of the store than a private one.
CREATE FUNCTION storage_private.recorded_functions(store text) RETURNS TABLE (function text, missing text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.step, max(s.reason) FILTER (WHERE s.outcome = 'skipped')
    FROM storage.physical_buckets p, jsonb_to_recordset(p.steps) AS s(step text, outcome text, reason text)
    WHERE p.endpoint = $1 AND s.step IN ('public_access_block', 'policy', 'cors', 'lifecycle')
        AND s.outcome IN ('applied', 'skipped')
    GROUP BY s.step ORDER BY s.step
$$;
COMMENT ON FUNCTION storage_private.recorded_functions(text) IS 'What provisioning asked of a store beyond the bucket itself; missing: why it was left out, NULL where it never was.';

-- The values stay out of it: a mistyped line may hold a secret.
CREATE FUNCTION storage_private.settings_not_applied() RETURNS SETOF text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF has_function_privilege('pg_catalog.pg_show_all_file_settings()', 'EXECUTE') THEN
        RETURN QUERY
            SELECT format('%s: %s (%s, line %s)', f.name, f.error, regexp_replace(f.sourcefile, '^.*/', ''), f.sourceline)
            FROM pg_show_all_file_settings() f
            WHERE starts_with(lower(f.name), 'pg_storage.') AND f.error IS NOT NULL
            ORDER BY f.name, f.seqno;
    END IF;
END
$$;
COMMENT ON FUNCTION storage_private.settings_not_applied() IS 'Settings of ours in the configuration file that PostgreSQL could not apply, where our owner may see them.';
