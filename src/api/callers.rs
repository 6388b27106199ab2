//! Who asks, what may be asked, and what sessions line up behind.

use pgrx::pg_schema;

#[pg_schema]
mod storage_private {
    use pg_storage_core::content_type::Pattern;
    use pg_storage_core::error::{Invalid, Token};
    use pg_storage_core::name::BucketKey;
    use pg_storage_core::origin;
    use pg_storage_core::physical::check_bucket_name;
    use pgrx::datum::Interval;
    use pgrx::prelude::*;

    use crate::error::{Failure, OrRaise};
    use crate::lock::{self, On};
    use crate::upload::{self};
    use crate::{catalog, guc, identity, operation};

    /// Holds a lock of ours until the transaction ends.
    #[pg_extern(volatile)]
    fn hold_lock(kind: &str, name: &str) {
        lock::hold(On::named(kind, name).or_raise());
    }

    /// Holds a lock of ours until the transaction ends, unless another session has it.
    #[pg_extern(volatile)]
    fn try_hold_lock(kind: &str, name: &str) -> bool {
        lock::try_hold(On::named(kind, name).or_raise())
    }

    /// Whether another session has a lock of ours.
    #[pg_extern(volatile)]
    fn is_locked(kind: &str, name: &str) -> bool {
        lock::is_held(On::named(kind, name).or_raise())
    }

    /// The caller's user id as the claims say it.
    #[pg_extern(stable, parallel_safe)]
    fn claimed_user() -> String {
        identity::user().or_raise()
    }

    /// The caller's tenant as the claims say it.
    #[pg_extern(stable, parallel_safe)]
    fn claimed_tenant() -> String {
        identity::tenant().or_raise()
    }

    /// The operation that is asking. A parallel worker would not know it.
    #[pg_extern(stable, parallel_restricted)]
    fn asked_operation() -> &'static str {
        operation::current().as_str()
    }

    /// Refuses a text that is not one SQL expression.
    #[pg_extern(stable)]
    fn validate_expression(expression: &str) {
        operation::check_expression(expression).or_raise();
    }

    /// Ends the statement with an error in the house style: the token's SQLSTATE, message, DETAIL and HINT.
    ///
    /// Volatile: the planner calls what is less with constant arguments, also where the statement never would.
    #[pg_extern(volatile, parallel_safe)]
    fn refuse(token: &str, message: &str, detail: Option<&str>, hint: Option<&str>) {
        let Some(token) = Token::ALL.iter().find(|known| known.as_str() == token) else {
            Failure::internal(format!("unknown error token {token}")).raise()
        };
        let mut failure = Failure::new(*token, message);
        if let Some(detail) = detail {
            failure = failure.detail(detail);
        }
        if let Some(hint) = hint {
            failure = failure.hint(hint);
        }
        failure.raise()
    }

    /// Refuses to go on where nothing can be written.
    #[pg_extern(stable)]
    fn require_writable() {
        catalog::require_writable().or_raise();
    }

    /// How long an object outlives its last file.
    #[pg_extern(stable)]
    fn deletion_delay() -> Interval {
        Interval::from_seconds(guc::DELETION_DELAY.get().into())
    }

    /// How long events are kept; nothing: they are not recorded.
    #[pg_extern(stable)]
    fn event_retention() -> Interval {
        Interval::from_seconds(guc::EVENT_RETENTION.get().into())
    }

    /// Refuses a bucket row that breaks the rules.
    #[pg_extern(stable)]
    fn validate_bucket(
        key: Option<&str>,
        allowed_mime_types: Option<Vec<Option<String>>>,
        allowed_origins: Option<Vec<Option<String>>>,
        physical_name: Option<&str>,
    ) {
        BucketKey::parse(key.unwrap_or_default()).or_raise();
        for pattern in allowed_mime_types.into_iter().flatten() {
            Pattern::parse(pattern.as_deref().unwrap_or_default()).or_raise();
        }
        check_origins(allowed_origins).or_raise();
        if let Some(name) = physical_name {
            check_bucket_name(name)
                .map_err(|reason| {
                    Failure::new(Token::InvalidBucketKey, "the physical name is not a bucket name")
                        .detail(format!("'{name}': {reason}."))
                        .hint("S3 bucket names have 3 to 63 of a-z, 0-9, dot and hyphen.")
                })
                .or_raise();
        }
    }

    /// Refuses origins that are none.
    #[pg_extern(stable)]
    fn validate_origins(allowed_origins: Option<Vec<Option<String>>>) {
        check_origins(allowed_origins).or_raise();
    }

    fn check_origins(origins: Option<Vec<Option<String>>>) -> Result<(), Invalid> {
        let origins = origins.unwrap_or_default();
        origin::check_list(origins.iter().map(|origin| origin.as_deref().unwrap_or_default()))
    }

    /// Refuses a file name or path that breaks the rules.
    #[pg_extern(stable)]
    fn validate_file(filename: Option<&str>, path: Option<&str>) {
        upload::check_names(filename.unwrap_or_default(), path);
    }

    /// Refuses a file name that contradicts the file's type.
    #[pg_extern(stable)]
    fn validate_rename(filename: &str, content_type: &str) {
        upload::check_rename(filename, content_type).or_raise();
    }
}
