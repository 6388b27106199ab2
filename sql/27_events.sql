-- Events: what happened to files, for consumers that must miss nothing. A queue in a table of ours, because a user's own
-- trigger on our tables is in no dump, and because NOTIFY reaches only those who are listening.

CREATE TABLE storage.events (
    id              bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    kind            storage.event_kind NOT NULL,
    file_id         uuid NOT NULL,
    upload_id       uuid,
    bucket_id       uuid NOT NULL,
    object_id       uuid NOT NULL,
    tenant_id       text NOT NULL,
    owner_id        text NOT NULL,
    filename        text NOT NULL,
    path            text,
    content_type    text NOT NULL,
    size            bigint NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    announced       boolean NOT NULL DEFAULT false,
    claimed_until   timestamptz,
    attempts        integer NOT NULL DEFAULT 0,
    acknowledged_at timestamptz
);
-- Claims change neither; what is acknowledged or announced leaves them, so both stay as short as the backlog.
CREATE INDEX events_unacknowledged ON storage.events (id) WHERE acknowledged_at IS NULL;
CREATE INDEX events_unannounced ON storage.events (id) WHERE NOT announced;

-- No foreign keys: an event outlives what it tells of.
COMMENT ON TABLE storage.events IS 'A queue of what happened to files, one row for each file that was committed as created or deleted. Kept for pg_storage.event_retention, acknowledged or not.';
COMMENT ON COLUMN storage.events.id IS 'Its identity. Ids are given when things happen, not when they are committed: a lower one may appear after a higher one.';
COMMENT ON COLUMN storage.events.kind IS 'created or deleted.';
COMMENT ON COLUMN storage.events.file_id IS 'The file.';
COMMENT ON COLUMN storage.events.upload_id IS 'created: the upload that made it. deleted: NULL.';
COMMENT ON COLUMN storage.events.bucket_id IS 'The logical bucket the file is or was in.';
COMMENT ON COLUMN storage.events.object_id IS 'The object that holds its bytes; other files may share it.';
COMMENT ON COLUMN storage.events.tenant_id IS 'The tenant.';
COMMENT ON COLUMN storage.events.owner_id IS 'The user who uploaded the file.';
COMMENT ON COLUMN storage.events.filename IS 'The file''s name at that time.';
COMMENT ON COLUMN storage.events.path IS 'The file''s path at that time, or NULL.';
COMMENT ON COLUMN storage.events.content_type IS 'The file''s type.';
COMMENT ON COLUMN storage.events.size IS 'The file''s bytes.';
COMMENT ON COLUMN storage.events.created_at IS 'When it happened; it was committed soon after.';
COMMENT ON COLUMN storage.events.announced IS 'Whether its NOTIFY was sent.';
COMMENT ON COLUMN storage.events.claimed_until IS 'Until when a consumer that claimed it has it to itself; NULL: nobody has.';
COMMENT ON COLUMN storage.events.attempts IS 'How often it was claimed since it happened or was replayed.';
COMMENT ON COLUMN storage.events.acknowledged_at IS 'When a consumer was done with it; NULL: nobody is yet.';

SELECT pg_catalog.pg_extension_config_dump('storage.events', '');
SELECT pg_catalog.pg_extension_config_dump('storage.events_id_seq', '');

CREATE FUNCTION storage.claim_events(max integer DEFAULT 100, lease interval DEFAULT '5 minutes') RETURNS SETOF storage.events
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- As a variable, because no index finds what is compared with a volatile function.
    now timestamptz := clock_timestamp();
BEGIN
    PERFORM storage_private.require_writable();
    IF max IS NULL OR max NOT BETWEEN 1 AND 10000 THEN
        PERFORM storage_private.refuse('INVALID_LIMIT', 'between 1 and 10000 events are claimed at once',
            format('Asked for %s.', coalesce(max::text, 'NULL')), 'Claim again for more.');
    ELSIF lease IS NULL OR lease NOT BETWEEN '1 second' AND '7 days' THEN
        PERFORM storage_private.refuse('INVALID_EXPIRY', 'a claim lasts between 1 second and 7 days',
            format('Asked for %s.', coalesce(lease::text, 'NULL')),
            'It is the time a consumer has; what it has not acknowledged by then is claimed by the next one.');
    END IF;
    RETURN QUERY
        WITH due AS MATERIALIZED (
            SELECT e.id FROM storage.events e
            WHERE e.acknowledged_at IS NULL AND (e.claimed_until IS NULL OR e.claimed_until <= now)
            ORDER BY e.id LIMIT max FOR NO KEY UPDATE SKIP LOCKED
        ), claimed AS (
            UPDATE storage.events e SET claimed_until = now + lease, attempts = e.attempts + 1
            FROM due d WHERE e.id = d.id RETURNING e.*
        )
        SELECT c.* FROM claimed c ORDER BY c.id;
END $$;
COMMENT ON FUNCTION storage.claim_events(integer, interval) IS
'The oldest events that nobody has claimed or acknowledged, claimed for the caller. max: 1 to 10000. lease: 1 second to 7 days; what is not acknowledged by then is claimed again, so an event arrives at least once, and a consumer must bear to see it twice. Other consumers are not waited for. A claim in a transaction that rolls back never was. Only events that row-level security shows. Errors: INVALID_LIMIT, INVALID_EXPIRY, READ_ONLY.';

CREATE FUNCTION storage.acknowledge_events(ids bigint[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    acknowledged bigint;
BEGIN
    PERFORM storage_private.require_writable();
    UPDATE storage.events e SET acknowledged_at = clock_timestamp(), claimed_until = NULL
    WHERE e.id = ANY (ids) AND e.acknowledged_at IS NULL;
    GET DIAGNOSTICS acknowledged = ROW_COUNT;
    RETURN acknowledged;
END $$;
COMMENT ON FUNCTION storage.acknowledge_events(bigint[]) IS
'Ends events that a consumer is done with; nobody gets them again, but for replay_events(). ids: as claim_events() gave them; those that are acknowledged, removed or hidden already are passed over. Returns how many were ended now. Errors: READ_ONLY.';

CREATE FUNCTION storage.replay_events(since timestamptz) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    replayed bigint;
BEGIN
    PERFORM storage_private.require_writable();
    UPDATE storage.events e SET acknowledged_at = NULL, claimed_until = NULL, attempts = 0 WHERE e.acknowledged_at >= since;
    GET DIAGNOSTICS replayed = ROW_COUNT;
    RETURN replayed;
END $$;
COMMENT ON FUNCTION storage.replay_events(timestamptz) IS
'Makes events claimable again that were acknowledged at or after a time: for a consumer that lost what it knew since then. Events past pg_storage.event_retention are gone. Returns how many. Errors: READ_ONLY.';

-- After the commit and by another transaction: NOTIFY in the one that makes a file would forbid it PREPARE TRANSACTION,
-- and would have all commits that make files wait for each other.
CREATE FUNCTION storage_private.announce_events(batch integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    announced bigint := 0;
    message record;
BEGIN
    -- One listener that does not read fills the queue for all, and a full one fails every commit that notifies.
    IF pg_notification_queue_usage() > 0.5 THEN
        RETURN 0;
    END IF;
    FOR message IN
        WITH due AS MATERIALIZED (
            SELECT e.id FROM storage.events e WHERE NOT e.announced ORDER BY e.id LIMIT batch FOR NO KEY UPDATE SKIP LOCKED
        ), marked AS (
            UPDATE storage.events e SET announced = true FROM due d WHERE e.id = d.id RETURNING e.id, e.file_id
        ), numbered AS (
            -- A payload has less than 8000 bytes, and an event takes 76 of them at most.
            SELECT m.*, (row_number() OVER (ORDER BY m.id) - 1) / 100 AS part FROM marked m
        )
        SELECT count(*) AS events,
               '[' || string_agg(format('{"event":%s,"file":"%s"}', n.id, n.file_id), ',' ORDER BY n.id) || ']' AS payload
        FROM numbered n GROUP BY n.part ORDER BY n.part
    LOOP
        PERFORM pg_notify('storage_events', message.payload);
        announced := announced + message.events;
    END LOOP;
    RETURN announced;
END $$;
COMMENT ON FUNCTION storage_private.announce_events(integer) IS
'Sends NOTIFY storage_events for events that had none, and marks them. Returns how many, 0 also while the server''s queue of notifications is more than half full.';

-- The oldest by id are the oldest by time, but for those that happened in the same instant: the time needs no index. They
-- are found by lists of ids: of a join the planner would expect a tenth of all events, and read the table for them.
CREATE FUNCTION storage_private.remove_events(batch integer) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
    WITH oldest AS MATERIALIZED (
        SELECT e.id, e.created_at FROM storage.events e ORDER BY e.id LIMIT $1
    ), due AS MATERIALIZED (
        SELECT e.id FROM storage.events e
        WHERE e.id = ANY (ARRAY(
            SELECT o.id FROM oldest o WHERE o.created_at <= clock_timestamp() - storage_private.event_retention()))
        FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM storage.events e WHERE e.id = ANY (ARRAY(SELECT d.id FROM due d)) RETURNING e.id
    )
    SELECT count(*) FROM gone
$$;
COMMENT ON FUNCTION storage_private.remove_events(integer) IS 'Removes events that are past pg_storage.event_retention, acknowledged or not; returns how many.';
