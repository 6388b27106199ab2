//! Files that were never uploaded: rows, made in one statement past the triggers, for measuring what reads them.

use pg_storage_tests::Scene;
use postgres::Client;
use uuid::Uuid;

/// Whose files these are.
pub const USER: &str = "bench";

/// Gives the user's bucket `private` so many files, each with an object of its own; their ids.
pub fn add(scene: &Scene, count: usize) -> Vec<Uuid> {
    let mut session = past_triggers(scene);
    let place = scene
        .value::<String>("SELECT physical_name FROM storage.buckets WHERE physical_name IS NOT NULL LIMIT 1");
    let insert = "WITH bucket AS (
             SELECT id FROM storage.buckets WHERE owner_id = $1 AND key = 'private'
         ), made AS (
             SELECT n, gen_random_uuid() AS object, encode(sha256(n::text::bytea), 'hex') AS hash FROM generate_series(1, $2) n
         ), objects AS (
             INSERT INTO storage.objects (id, physical_name, key, bucket_id, sha256, size, content_type)
             SELECT m.object, $3, 'default/' || b.id || '/' || m.hash || '/' || gen_random_uuid(), b.id, decode(m.hash, 'hex'), n,
                    'application/pdf'
             FROM made m, bucket b
         )
         INSERT INTO storage.files (tenant_id, bucket_id, object_id, owner_id, filename, content_type, size, sha256)
         SELECT 'default', b.id, m.object, $1, 'invoice-' || n || '.pdf', 'application/pdf', n, m.hash FROM made m, bucket b
         RETURNING id::text";
    let files = session.query(insert, &[&USER, &(count as i32), &place]).expect("add files");
    session.batch_execute("VACUUM ANALYZE storage.files, storage.objects").expect("VACUUM");
    files.iter().map(|row| row.get::<_, String>(0).parse().expect("an id")).collect()
}

/// Gives the user's bucket `private` so many files in folders of a thousand, all with one object, in an order of no
/// meaning: neighbours in a listing lie apart in the table. Indexes that keep nothing but order are made afterwards.
pub fn add_in_folders(scene: &Scene, count: usize) {
    let mut session = past_triggers(scene);
    let indexes: Vec<(String, String)> = session
        .query(
            "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index i
             WHERE indrelid = 'storage.files'::regclass AND NOT indisunique",
            &[],
        )
        .expect("look the indexes up")
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    for (name, _) in &indexes {
        session.batch_execute(&format!("DROP INDEX {name}")).expect("DROP INDEX");
    }
    session
        .execute(
            "WITH object AS (
                 INSERT INTO storage.objects (physical_name, key, sha256, size, content_type)
                 VALUES ('none', 'none', sha256(''), 1, 'text/plain') RETURNING id
             )
             INSERT INTO storage.files (tenant_id, bucket_id, object_id, owner_id, filename, path, content_type, size, sha256, created_at)
             SELECT 'default', b.id, o.id, $1, at || '.txt', to_char(at / 1000, 'FM0000000') || '/' || to_char(at % 1000, 'FM000') || '.txt',
                    'text/plain', 1 + n % 1000000, encode(sha256(at::text::bytea), 'hex'), now() - n * interval '1 second'
             FROM object o, storage.buckets b, generate_series(0, $2::bigint - 1) n, LATERAL (SELECT n * 6700417 % $2 AS at) a
             WHERE b.owner_id = $1 AND b.key = 'private'",
            &[&USER, &(count as i64)],
        )
        .expect("add files");
    for (_, definition) in &indexes {
        session.batch_execute(definition).expect("CREATE INDEX");
    }
    session.batch_execute("VACUUM ANALYZE storage.files").expect("VACUUM");
}

fn past_triggers(scene: &Scene) -> Client {
    let mut session = scene.superuser();
    session
        .batch_execute("SET session_replication_role = replica; SET maintenance_work_mem = '512MB'")
        .expect("SET");
    session
}
