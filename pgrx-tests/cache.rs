//! The cache: positive facts of one database and endpoint, forgotten when told to, never too full.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::cache::{self, Ready};

    const ENDPOINT: &str = "http://cache.test";

    fn ready(generation: i64) -> Ready {
        Ready {
            generation,
            access: None,
            fixed: false,
            recorded: true,
            settings: 0,
            origins: 0,
            server_origins: true,
            direct: true,
            create_only: false,
            marked: false,
        }
    }

    /// The cache is shared by all sessions, the other tests' included; forgetting and filling it reach them.
    fn alone() {
        Spi::run("SELECT pg_advisory_xact_lock(hashtext('the cache of the test server'))").unwrap();
    }

    fn put(endpoint: &str, name: &str, ready: Ready) {
        cache::put(endpoint, name, ready, cache::forgettings(name));
    }

    #[pg_test]
    fn what_was_put_is_found_under_its_endpoint_and_name_only() {
        alone();
        put(ENDPOINT, "cache-found", ready(7));
        assert_eq!(cache::get(ENDPOINT, "cache-found"), Some(ready(7)));
        assert_eq!(cache::get("http://other.test", "cache-found"), None);
        assert_eq!(cache::get(ENDPOINT, "cache-foun"), None);
        put(ENDPOINT, "cache-found", ready(8));
        assert_eq!(cache::get(ENDPOINT, "cache-found"), Some(ready(8)));
        let entries = cache::entries();
        assert_eq!(entries.iter().filter(|(name, ..)| name == "cache-found").count(), 1, "{entries:?}");
    }

    #[pg_test]
    fn forgetting_reaches_every_endpoint() {
        alone();
        for endpoint in [ENDPOINT, "http://other.test"] {
            put(endpoint, "cache-forgotten", ready(1));
        }
        cache::evict("cache-forgotten");
        for endpoint in [ENDPOINT, "http://other.test"] {
            assert_eq!(cache::get(endpoint, "cache-forgotten"), None);
        }
    }

    #[pg_test]
    fn what_was_looked_up_before_something_was_forgotten_is_not_kept() {
        alone();
        let seen = cache::forgettings("cache-stale");
        cache::evict("cache-stale");
        cache::put(ENDPOINT, "cache-stale", ready(1), seen);
        assert_eq!(cache::get(ENDPOINT, "cache-stale"), None);
    }

    #[pg_test]
    fn hits_and_misses_are_counted() {
        alone();
        put(ENDPOINT, "cache-counted", ready(1));
        let (.., before) = cache::statistics();
        cache::get(ENDPOINT, "cache-counted");
        cache::get(ENDPOINT, "cache-not-there");
        let (.., after) = cache::statistics();
        assert_eq!((after.hits, after.misses), (before.hits + 1, before.misses + 1));
    }

    #[pg_test]
    fn a_full_cache_takes_new_entries_and_forgets_old_ones() {
        alone();
        let (shared, capacity, ..) = cache::statistics();
        assert!(shared, "the test server preloads the library");
        for number in 0..capacity * 2 {
            let name = format!("cache-full-{number}");
            put(ENDPOINT, &name, ready(number as i64));
            assert_eq!(cache::get(ENDPOINT, &name), Some(ready(number as i64)));
        }
        let (_, _, entries, counters) = cache::statistics();
        assert!(entries <= capacity, "{entries} of {capacity}");
        assert!(counters.evictions > 0);
    }

    #[pg_test]
    fn names_and_endpoints_of_any_length_are_told_apart() {
        alone();
        let long = "n".repeat(63);
        let endpoint = format!("http://{}.test", "e".repeat(300));
        put(&endpoint, &long, ready(3));
        assert_eq!(cache::get(&endpoint, &long), Some(ready(3)));
        assert_eq!(cache::get(&format!("{endpoint}x"), &long), None);
        assert_eq!(cache::get(&endpoint, &long[..62]), None);
    }

    #[pg_test]
    fn the_sql_functions_show_it() {
        alone();
        put(ENDPOINT, "cache-shown", ready(5));
        let row = super::super::text(
            "SELECT format('%s %s %s', endpoint, generation, direct) FROM storage.provisioned_buckets() WHERE physical_name = 'cache-shown'",
        );
        assert_eq!(row.as_deref(), Some("http://cache.test 5 t"));
        let shared =
            "SELECT format('%s %s', shared, entries > 0 AND capacity >= entries) FROM storage.cache_stats()";
        assert_eq!(super::super::text(shared).as_deref(), Some("t t"));
    }
}
