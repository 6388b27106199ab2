//! One suite of behaviours that every store has to show, run against the local store and a real Garage.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod garage;
mod local_store;
mod scratch;
mod suite;
mod suite_buckets;
mod suite_multipart;
mod suite_parts;
mod suite_uploads;

use std::time::Duration;

use pg_storage_core::endpoint::Endpoint;
use pg_storage_core::presign::{Credentials, Secret, Signer, Target};
use pg_storage_store::probe::Capabilities;
use pg_storage_store::{CredentialSource, S3Store, StoreConfig};

/// A running store and what it is known to do.
pub(crate) struct Fixture {
    pub(crate) url: String,
    pub(crate) region: &'static str,
    pub(crate) credentials: Credentials,
    pub(crate) capabilities: Capabilities,
    /// Whether it has bucket policies and public-access blocks.
    pub(crate) has_policies: bool,
}

impl Fixture {
    pub(crate) fn store(&self) -> S3Store {
        self.store_as(self.credentials.clone())
    }

    pub(crate) fn store_as(&self, credentials: Credentials) -> S3Store {
        S3Store::connect(StoreConfig {
            endpoint: Endpoint::parse(&self.url).unwrap(),
            region: self.region.to_owned(),
            path_style: true,
            credentials: CredentialSource::Static(credentials),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            max_attempts: 3,
        })
        .unwrap()
    }

    pub(crate) fn signer(&self) -> Signer {
        let endpoint = Endpoint::parse(&self.url).unwrap();
        Signer::new(Target::new(&endpoint, self.region, true), self.credentials.clone())
    }

    /// The same access key with another secret.
    pub(crate) fn impostor(&self) -> Credentials {
        Credentials { secret_access_key: Secret::new("0".repeat(64)), ..self.credentials.clone() }
    }
}

/// One test per behaviour, each with a store of its own.
macro_rules! conformance {
    ($start:path: $($module:ident::{$($behaviour:ident),* $(,)?}),* $(,)?) => {
        $($(
            #[tokio::test]
            async fn $behaviour() {
                let server = $start().await;
                crate::$module::$behaviour(&server.fixture).await;
            }
        )*)*
    };
}
pub(crate) use conformance;

/// The list of behaviours, given to [`conformance!`] for the store that `$start` starts.
macro_rules! every_behaviour {
    ($start:path) => {
        crate::conformance! { $start:
            suite::{
                objects_come_back_as_they_went,
                what_is_absent_is_told_apart,
                a_wrong_sum_is_refused,
                create_only_is_as_the_probe_says,
                copies_are_whole_and_pinned,
                deletes_are_told_key_by_key,
                listings_are_complete_and_in_order,
                wrong_credentials_are_denied,
            },
            suite_buckets::{
                buckets_come_and_go,
                provisioning_twice_is_provisioning_once,
                provisioning_at_the_same_time_succeeds_for_all,
                access_can_change_both_ways,
                a_given_bucket_is_not_created,
            },
            suite_multipart::{
                unfinished_uploads_are_listed_and_aborted,
            },
            suite_parts::{
                parts_become_one_object,
                a_part_that_is_missing_can_still_be_sent,
                an_upload_that_is_over_is_absent,
                a_copy_in_parts_is_whole_and_pinned,
            },
            suite_uploads::{
                the_probe_sees_what_the_store_does_and_leaves_nothing,
                a_probe_of_nothing_is_an_error,
                a_direct_upload_is_verified_in_place,
                a_staged_upload_is_copied_and_verified,
            },
        }
    };
}
pub(crate) use every_behaviour;
