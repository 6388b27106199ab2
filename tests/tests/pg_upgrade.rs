//! pg_upgrade: the rows, the privileges and the policies arrive, the new server changes nothing in the store until it is
//! declared the owner, and then works. From the version that PG_STORAGE_OLD_PG_CONFIG names, else from the same one,
//! which pg_upgrade takes as well.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::backup::{furnish, rows, surroundings};
use pg_storage_tests::flow::{self, Upload};
use pg_storage_tests::{Cluster, StoreAccess, environment, refused, scene};

#[test]
fn an_upgraded_server_goes_on_with_what_the_old_one_had() {
    let mut options = scene::remote(StoreAccess::chosen()).setting("pg_storage.bucket_prefix", "upgraded");
    match environment::older_postgres_programs() {
        Some(programs) => options = options.programs(programs),
        None => eprintln!("from the same version: PG_STORAGE_OLD_PG_CONFIG names no older one"),
    }
    let old = Cluster::start(options);
    let database = old.database();
    furnish(&database);
    let mut superuser = database.superuser();
    superuser
        .batch_execute("SELECT storage.add_policy('mine', 'files', 'read', $$filename = 'note.txt'$$)")
        .unwrap();
    let before = (rows(&mut superuser), surroundings(&mut superuser));
    drop(superuser);

    let new = old.upgraded();
    let mut session = new.connect("postgres", database.name());
    assert_eq!(rows(&mut session), before.0);
    assert_eq!(surroundings(&mut session), before.1);
    session.batch_execute("SET jwt.claims.user_id = 'ada'; SET jwt.claims.tenant_id = 'acme'").unwrap();
    for row in session.query("SELECT id::text FROM storage.files", &[]).unwrap() {
        flow::assert_downloads(&mut session, row.get(0), b"same bytes");
    }
    let refusal = refused(session.query("SELECT storage.run_maintenance()", &[]));
    assert_eq!(refusal.code(), ("55000", "NOT_OWNER_OF_OBJECTS"), "the old server could be started again");
    session.batch_execute("SELECT storage.adopt_installation(); SELECT storage.run_maintenance()").unwrap();
    let file = Upload::declared(b"after").complete(&mut session, b"after").file_id;
    flow::assert_downloads(&mut session, &file, b"after");
    session.batch_execute("SELECT storage.drop_policy('mine')").unwrap();
    session.batch_execute("DROP EXTENSION pg_storage CASCADE").unwrap();
}
