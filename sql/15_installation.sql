-- Whose objects these are. Rows can be copied (a restored dump, CREATE DATABASE ... TEMPLATE), the bytes in
-- the store cannot: only the database that the rows were made in may add, provision or delete any.

-- Not one row but alike ones, and no key: first uploads record without waiting for each other, and a restored
-- dump collides with nothing.
CREATE TABLE storage_private.installation (
    system_identifier bigint NOT NULL,
    database          oid NOT NULL
);
COMMENT ON TABLE storage_private.installation IS 'The database that owns the objects: recorded with the first upload, dumped, and no longer true in a copy. Simultaneous first uploads leave several rows, all alike.';
COMMENT ON COLUMN storage_private.installation.system_identifier IS 'Of the cluster; a standby and a promoted one have the same.';
COMMENT ON COLUMN storage_private.installation.database IS 'Of the database in it; renaming does not change it.';

CREATE TABLE storage_private.former_installations (LIKE storage_private.installation);
COMMENT ON TABLE storage_private.former_installations IS 'The databases that owned the objects before adopt_installation(): what they brought in is this one''s now. Dumped.';
COMMENT ON COLUMN storage_private.former_installations.system_identifier IS 'Of the cluster.';
COMMENT ON COLUMN storage_private.former_installations.database IS 'Of the database in it.';

SELECT pg_catalog.pg_extension_config_dump('storage_private.installation', '');
SELECT pg_catalog.pg_extension_config_dump('storage_private.former_installations', '');

-- Not dumped: a restored database makes one of its own. A standby has it.
CREATE TABLE storage_private.secrets (
    this boolean PRIMARY KEY DEFAULT true CHECK (this),
    key  bytea NOT NULL CHECK (length(key) = 32)
);
COMMENT ON TABLE storage_private.secrets IS 'What page tokens are sealed with, and what nobody can compute the locks of others without. Read by the owner alone, in no dump, and other in every database but copies on disk.';
COMMENT ON COLUMN storage_private.secrets.this IS 'There is one.';
COMMENT ON COLUMN storage_private.secrets.key IS '244 random bits in 256.';

INSERT INTO storage_private.secrets (key)
VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

CREATE FUNCTION storage_private.secret() RETURNS bytea
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT s.key FROM storage_private.secrets s);
END $$;
COMMENT ON FUNCTION storage_private.secret() IS 'The secret of this database.';

CREATE FUNCTION storage_private.this_installation() RETURNS storage_private.installation
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.system_identifier, d.oid FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()
$$;
COMMENT ON FUNCTION storage_private.this_installation() IS 'The identity of this database.';

-- Rows without an owner were not made here: they came without it, and stay unowned until somebody decides.
-- PL/pgSQL, because it keeps its plans: this runs in every request.
CREATE FUNCTION storage_private.record_installation() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM storage_private.installation)
       AND NOT EXISTS (SELECT FROM storage.upload_requests)
       AND NOT EXISTS (SELECT FROM storage.objects)
       AND NOT EXISTS (SELECT FROM storage.object_deletions) THEN
        INSERT INTO storage_private.installation SELECT i.* FROM storage_private.this_installation() i;
    END IF;
END $$;
COMMENT ON FUNCTION storage_private.record_installation() IS 'Records, with the first upload or before the first bucket is made, that this database owns the objects to come.';

CREATE FUNCTION storage_private.require_ownership() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this storage_private.installation := storage_private.this_installation();
    owner storage_private.installation;
BEGIN
    SELECT i.* INTO owner FROM storage_private.installation i
    ORDER BY (i.system_identifier, i.database) = (this.system_identifier, this.database) LIMIT 1;
    IF FOUND AND owner = this THEN
        RETURN;
    ELSIF NOT FOUND AND NOT EXISTS (SELECT FROM storage.upload_requests) AND NOT EXISTS (SELECT FROM storage.objects)
          AND NOT EXISTS (SELECT FROM storage.object_deletions) THEN
        RETURN;
    END IF;
    PERFORM storage_private.refuse('NOT_OWNER_OF_OBJECTS', 'this database is a copy, and the objects belong to the original',
        format('The objects belong to %s; this is system %s, database %s.',
               coalesce(format('system %s, database %s', owner.system_identifier, owner.database), 'nobody on record'),
               this.system_identifier, this.database),
        'Should this database own them from now on, and no other delete them, call storage.adopt_installation().');
END $$;
COMMENT ON FUNCTION storage_private.require_ownership() IS 'Refuses to change a store whose objects another database may own. Errors: NOT_OWNER_OF_OBJECTS.';

CREATE FUNCTION storage.adopt_installation() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM storage_private.require_writable();
    INSERT INTO storage_private.former_installations
    SELECT i.* FROM storage_private.installation i
    EXCEPT (SELECT f.* FROM storage_private.former_installations f UNION SELECT t.* FROM storage_private.this_installation() t);
    DELETE FROM storage_private.installation;
    INSERT INTO storage_private.installation SELECT i.* FROM storage_private.this_installation() i;
END $$;
COMMENT ON FUNCTION storage.adopt_installation() IS
'Declares that this database owns the objects from now on, after a restore that replaces the original. Before that a copy signs downloads, and refuses uploads, provisioning and maintenance with NOT_OWNER_OF_OBJECTS. The original must not run any more: each would delete what the other still uses. For the extension''s owner.';
