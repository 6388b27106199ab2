//! `request_upload_url`, warm, against a bare INSERT of the same row: same columns, indexes, checks and foreign key.

use std::path::{Path, PathBuf};

use pg_storage_tests::{Scene, scratch};

use crate::files::USER;
use crate::median::in_turns;
use crate::sizes::Sizes;
use crate::table::Row;

const REQUEST: &str =
    "SELECT * FROM storage.request_upload_url('private', 'report.pdf', 'application/pdf', 12345);\n";

/// What the server puts into such a row, as texts of the same length.
const INSERT: &str = "INSERT INTO bench.upload_requests (id, tenant_id, bucket_id, file_id, owner_id, filename, content_type, size,
    physical_name, object_key, final_key, direct, create_only, expires_at, created_at)
VALUES (gen_random_uuid(), 'default', :bucket, gen_random_uuid(), 'bench', 'report.pdf', 'application/pdf', 12345,
    'test-1-default-private-3b0f5d0ac28e', 'staging/default/' || gen_random_uuid(),
    'default/8d4f7a52-3f43-4c4a-9a40-0b5b8a2f9f53/' || gen_random_uuid(), false, true,
    clock_timestamp() + interval '15 minutes', clock_timestamp())
RETURNING id, file_id;
";

/// With every commit on disk, as PostgreSQL does by default, and without waiting for that.
pub fn rows(sizes: Sizes, scene: Scene) -> Vec<Row> {
    let stage = Stage::new(scene);
    let mut rows = Vec::new();
    for clients in [1, 2, 4, 8] {
        rows.push(stage.row(sizes, clients, "on"));
    }
    for clients in [1, 8] {
        rows.push(stage.row(sizes, clients, "off"));
    }
    rows
}

struct Stage {
    scene: Scene,
    bucket: String,
    request: PathBuf,
    insert: PathBuf,
}

impl Stage {
    fn new(scene: Scene) -> Self {
        let bucket = scene.value("SELECT id::text FROM storage.buckets WHERE key = 'private'");
        let make = format!(
            "CREATE SCHEMA bench; GRANT USAGE ON SCHEMA bench TO {0};
             CREATE TABLE bench.upload_requests (LIKE storage.upload_requests INCLUDING ALL);
             ALTER TABLE bench.upload_requests ADD FOREIGN KEY (bucket_id) REFERENCES storage.buckets ON DELETE CASCADE;
             GRANT SELECT, INSERT ON bench.upload_requests TO {0};",
            scene.writer
        );
        scene.superuser().batch_execute(&make).expect("make the copy of the table");
        let directory = scratch();
        let script = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).expect("write a script for pgbench");
            path
        };
        Self { bucket, request: script("request.sql", REQUEST), insert: script("insert.sql", INSERT), scene }
    }

    fn row(&self, sizes: Sizes, clients: usize, commits: &str) -> Row {
        let run = |script: &Path| self.pgbench(script, sizes.seconds, clients, commits);
        let (ours, bare) = in_turns(sizes.rounds, || run(&self.request), || run(&self.insert));
        let what = format!(
            "request_upload_url, warm, {clients} client{}{}",
            if clients == 1 { "" } else { "s" },
            if commits == "off" { ", synchronous_commit = off" } else { "" }
        );
        let ratio = ours / bare;
        Row::new(what, format!("{ours:.0}/s"))
            .against(format!("{bare:.0}/s bare INSERT"), ratio)
            .goal("≥ 0.8", ratio >= 0.8)
    }

    /// Transactions per second.
    fn pgbench(&self, script: &Path, seconds: u64, clients: usize, commits: &str) -> f64 {
        let cluster = self.scene.database.cluster();
        let output = cluster
            .client_program("pgbench")
            .env("PGUSER", &self.scene.writer)
            .env("PGOPTIONS", format!("-c jwt.claims.user_id={USER} -c synchronous_commit={commits}"))
            .args(["-n", "-M", "prepared", "-c", &clients.to_string(), "-j", &clients.min(2).to_string()])
            .args(["-T", &seconds.to_string(), "-D", &format!("bucket={}", self.bucket), "-f"])
            .arg(script)
            .arg(self.scene.database.name())
            .output()
            .expect("run pgbench");
        let said = String::from_utf8_lossy(&output.stdout);
        let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        rate.unwrap_or_else(|| panic!("pgbench failed: {said}{}", String::from_utf8_lossy(&output.stderr)))
    }
}
