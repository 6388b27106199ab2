//! What is known of a bucket: no request of the store, and how many looks at the cache.

use pg_storage_tests::Scene;
use pg_storage_tests::flow::Upload;

use crate::files::USER;
use crate::sizes::Sizes;
use crate::table::Row;

/// Requests of the store that warm upload requests and downloads take: counted by the store.
pub fn calls(sizes: Sizes) -> Row {
    let (scene, store) = Scene::counting();
    let mut user = scene.user(USER);
    Upload::of(b"first").request(&mut user);
    let hits = || scene.value::<i64>("SELECT (storage.cache_stats()).hits");
    let (asked_before, hits_before) = (scene.asked(store), hits());
    for _ in 0..sizes.uploads {
        Upload::of(b"content").request(&mut user);
    }
    let (asked, hits) = (scene.asked(store) - asked_before, hits() - hits_before);
    Row::new(
        format!("store calls of {} warm requests", sizes.uploads),
        format!("{asked} calls, {hits} cache hits"),
    )
    .goal("0", asked == 0 && hits >= sizes.uploads as i64)
}
