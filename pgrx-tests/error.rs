//! Every failure carries its token, the SQLSTATE that groups it, DETAIL and HINT.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pg_storage_core::error::{Invalid, Token};
    use pg_storage_store::{ErrorKind, StoreError};
    use pgrx::prelude::*;

    use super::super::raised;
    use crate::error::Failure;

    /// The contract, written down a second time: clients branch on it.
    const CONTRACT: [(&str, &str); 8] = [
        (
            "22023",
            "INVALID_BUCKET_KEY INVALID_CONTENT_HASH INVALID_CONTENT_TYPE INVALID_FILE_SIZE INVALID_FILENAME INVALID_PATH \
             INVALID_EXPIRY INVALID_ORIGIN INVALID_METADATA INVALID_PAGE_TOKEN INVALID_DELIMITER INVALID_PART INVALID_LIMIT INVALID_POLICY CONTENT_TYPE_NOT_ALLOWED UPLOAD_TYPE_MISMATCH",
        ),
        ("42704", "BUCKET_NOT_FOUND UPLOAD_NOT_FOUND FILE_NOT_FOUND POLICY_NOT_FOUND"),
        ("42710", "BUCKET_EXISTS PATH_TAKEN POLICY_EXISTS"),
        ("42501", "RBAC_FORBIDDEN TENANT_REQUIRED"),
        (
            "53400",
            "FILE_TOO_LARGE BULK_UPLOAD_FILES_EXCEEDED BULK_UPLOAD_SIZE_EXCEEDED QUOTA_EXCEEDED TOO_MANY_PENDING_UPLOADS \
             RATE_LIMIT NO_WORKER_SLOT",
        ),
        (
            "55000",
            "NOT_CONFIGURED DEFAULT_BUCKET_MISSING DEFAULT_BUCKET_AMBIGUOUS BUCKET_NOT_EMPTY UPLOAD_NOT_PENDING NOT_PUBLIC \
             NEEDS_PRELOAD NOT_OWNER_OF_OBJECTS WORKER_RUNNING",
        ),
        ("58030", "STORE_UNAVAILABLE STORE_TIMEOUT STORE_DENIED STORE_ERROR BUCKET_NAME_TAKEN"),
        ("25006", "READ_ONLY"),
    ];

    #[pg_test]
    fn every_token_has_the_sqlstate_of_the_contract() {
        let mut told = 0;
        for (sqlstate, tokens) in CONTRACT {
            for token in tokens.split(' ') {
                let error = raised(&format!(
                    "SELECT storage_private.refuse('{token}', 'what is wrong', 'the values', 'the way out')"
                ));
                assert_eq!(error.sqlstate, sqlstate, "{token}");
                assert_eq!(error.message, format!("{token}: what is wrong"));
                assert_eq!((error.detail.as_str(), error.hint.as_str()), ("the values", "the way out"));
                told += 1;
            }
        }
        assert_eq!(told, Token::ALL.len(), "the contract and the code differ in their tokens");
    }

    #[pg_test]
    fn detail_and_hint_may_be_missing() {
        let error = raised("SELECT storage_private.refuse('FILE_NOT_FOUND', 'no such file', NULL, NULL)");
        assert_eq!((error.detail.as_str(), error.hint.as_str()), ("", ""));
    }

    #[pg_test]
    fn an_unknown_token_is_a_defect_and_says_so() {
        for token in ["", "file_not_found", "FILE_NOT_FOUND ", "XX000"] {
            let error = raised(&format!("SELECT storage_private.refuse('{token}', 'm', NULL, NULL)"));
            assert_eq!(error.sqlstate, "XX000", "{token}");
        }
    }

    #[pg_test]
    fn a_refusal_that_is_not_reached_is_not_raised() {
        Spi::run("SELECT CASE WHEN current_user = '' THEN storage_private.refuse('READ_ONLY', 'm', NULL, NULL) END").unwrap();
    }

    #[pg_test]
    fn a_refused_input_keeps_its_words() {
        let invalid = Invalid {
            token: Token::InvalidPath,
            message: "m".into(),
            detail: Some("d".into()),
            hint: Some("h".into()),
        };
        let failure = Failure::from(invalid);
        assert_eq!(failure.summary(), "INVALID_PATH: m");
        assert_eq!((failure.details(), failure.advice()), (Some("d"), Some("h")));
    }

    #[pg_test]
    fn a_failure_of_the_store_says_what_its_operator_needs() {
        for (kind, token) in [
            (ErrorKind::Timeout, "STORE_TIMEOUT"),
            (ErrorKind::Unavailable, "STORE_UNAVAILABLE"),
            (ErrorKind::Denied, "STORE_DENIED"),
            (ErrorKind::NameTaken, "BUCKET_NAME_TAKEN"),
            (ErrorKind::NoSuchBucket, "STORE_ERROR"),
            (ErrorKind::NotFound, "STORE_ERROR"),
            (ErrorKind::Invalid, "STORE_ERROR"),
            (ErrorKind::Unexpected, "STORE_ERROR"),
        ] {
            let failure = Failure::from(StoreError {
                kind,
                operation: "PutObject",
                status: Some(503),
                code: Some("SlowDown".into()),
                request_id: Some("ABC123".into()),
                message: "slow down".into(),
                attempts: Some(3),
            });
            assert_eq!(failure.summary(), format!("{token}: PutObject failed: slow down"));
            let detail = failure.details().unwrap();
            for part in ["PutObject", "503", "SlowDown", "ABC123", "3 attempt"] {
                assert!(detail.contains(part), "{detail}");
            }
            assert!(failure.advice().is_some(), "{kind:?} shows no way out");
        }
    }

    #[pg_test]
    fn errors_of_the_sql_functions_carry_their_token_first() {
        for (call, sqlstate, token) in [
            ("storage.create_bucket('No')", "22023", "INVALID_BUCKET_KEY"),
            ("storage.request_upload_url('nothing', 'a', 'text/plain', 1)", "42704", "BUCKET_NOT_FOUND"),
            ("storage.confirm_upload(gen_random_uuid())", "42704", "UPLOAD_NOT_FOUND"),
            ("storage.abort_upload(gen_random_uuid())", "42704", "UPLOAD_NOT_FOUND"),
            ("storage.download_url(gen_random_uuid())", "42704", "FILE_NOT_FOUND"),
            ("storage.public_url(gen_random_uuid())", "42704", "FILE_NOT_FOUND"),
            ("storage.delete_file(gen_random_uuid())", "42704", "FILE_NOT_FOUND"),
            ("storage.download_url(gen_random_uuid(), '8 days')", "22023", "INVALID_EXPIRY"),
            ("storage.grant_access('postgres', 'king')", "42501", "RBAC_FORBIDDEN"),
        ] {
            let error = raised(&format!("SELECT {call}"));
            assert_eq!(error.sqlstate, sqlstate, "{call}: {error:?}");
            assert!(error.message.starts_with(&format!("{token}: ")), "{call}: {error:?}");
        }
    }
}
