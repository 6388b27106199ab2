//! Presigned URLs in the wrong hands: every case on the local store, on Garage and on Ceph, refused or provably harmless.
//! docs/abuse.md is what came of them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod additions;
mod cases;
mod downloads;
mod forms;
mod judge;
mod parameters;
mod places;
mod posts;
mod report;
mod stage;
mod times;

use pg_storage_tests::{Scene, flow, say};
use report::Column;
use stage::Stage;

/// Every case on one store.
fn play_all(store: &'static str, scene: Scene) -> Column {
    let mut stage = Stage::new(scene);
    let mut column = Column::new(store);
    for case in cases::all() {
        let (outcome, said) = judge::play(&mut stage, &case);
        column.add(&case, outcome, &said);
    }
    every_file_is_what_its_row_says(&mut stage);
    let told = "SELECT status FROM storage.check() WHERE name = 'tampered_url'";
    assert_eq!(stage.scene.value::<String>(told), "ok", "check() tells the operator of {store}");
    column
}

fn every_file_is_what_its_row_says(stage: &mut Stage) {
    let files = stage.ada.query("SELECT id::text, sha256 FROM storage.files", &[]).unwrap();
    assert!(files.len() > 50, "the honest uploads are files: {}", files.len());
    for file in files {
        let (id, recorded): (String, String) = (file.get(0), file.get(1));
        let answer = flow::download(&mut stage.ada, &id);
        assert_eq!((answer.status, flow::sha256(&answer.body)), (200, recorded), "{id}");
    }
}

#[test]
fn a_presigned_url_in_the_wrong_hands_is_refused_or_harmless() {
    let columns = std::thread::scope(|threads| {
        let playing = [
            threads.spawn(|| play_all("local store", Scene::embedded("it plays on each store"))),
            threads.spawn(|| play_all("Garage", Scene::garage())),
            threads.spawn(|| play_all("Ceph", Scene::ceph())),
        ];
        playing.map(|column| column.join().expect("every case was played"))
    });
    for column in &columns {
        say(&column.summary());
    }
    let harms: Vec<String> = columns.iter().flat_map(Column::harms).collect();
    assert!(harms.is_empty(), "{}", harms.join("\n"));
    report::compare_with_file(&columns);
}
