//! Every parser in core: none panics, and what one accepts it would accept again as the same thing.

use pg_storage_core::agreement::{agrees, declared_with_extension, sniff};
use pg_storage_core::content_type::{ContentType, Pattern, allowed};
use pg_storage_core::digest::Digest;
use pg_storage_core::endpoint::Endpoint;
use pg_storage_core::error::Invalid;
use pg_storage_core::key;
use pg_storage_core::name::{BucketKey, Filename};
use pg_storage_core::origin::{MAX_LISTED, Origin, check_list};
use pg_storage_core::page_token::{self, Listing, Order, Position};
use pg_storage_core::parts::Parts;
use pg_storage_core::path::FilePath;
use pg_storage_core::physical::{BucketPrefix, KeyPrefix, bucket_name, check_bucket_name};
use pg_storage_core::policy::Access;
use pg_storage_core::prefix::{end_of, folder_of, next_after};
use pg_storage_core::upload::Status;

use crate::input::Input;

/// What may go into a log, a header and a terminal as it is.
fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// A refusal repeats what it refuses, but shortened and without what would move a terminal or a log.
fn check_refusal(refusal: &Invalid) {
    let [detail, hint] = [&refusal.detail, &refusal.hint].map(|part| part.as_deref().unwrap_or_default());
    let shown = format!("{refusal} {detail} {hint}");
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    assert!(shown.len() < 4096, "{} bytes", shown.len());
}

/// What was accepted, with what it is as text.
fn check<T>(
    parsed: Result<T, Invalid>,
    again: impl Fn(&T) -> String,
    parse: impl Fn(&str) -> Result<T, Invalid>,
) -> Option<T>
where
    T: PartialEq + std::fmt::Debug,
{
    match parsed {
        Ok(value) => {
            assert_eq!(parse(&again(&value)).as_ref().ok(), Some(&value), "accepted once");
            Some(value)
        }
        Err(refusal) => {
            check_refusal(&refusal);
            None
        }
    }
}

pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    names(&text);
    types(data);
    places(&text);
    keys(&text);
    pages(data);
    parts(data);
}

fn names(text: &str) {
    if let Some(key) = check(BucketKey::parse(text), |key| key.as_str().to_owned(), BucketKey::parse) {
        assert!(is_printable(key.as_str()) && uuid::Uuid::try_parse(key.as_str()).is_err());
    }
    if let Some(name) = check(Filename::parse(text), |name| name.as_str().to_owned(), Filename::parse) {
        assert!(!name.as_str().contains(['/', '\\', '\r', '\n', '\0']));
    }
    if let Some(path) = check(FilePath::parse(text), |path| path.as_str().to_owned(), FilePath::parse) {
        assert!(!path.as_str().contains("..") && !path.as_str().starts_with('/'));
        assert!(!path.as_str().contains(['\r', '\n', '\0', ' ', '\\', '%', '?', '#', '"', '<']));
    }
    assert!(Status::parse(text).is_none_or(|status| status.as_str() == text));
    assert!(Access::parse(text).is_none_or(|access| access.as_str() == text));
}

fn types(data: &[u8]) {
    let mut input = Input::new(data);
    let (name, declared, pattern) = (input.text(), input.text(), input.text());
    let declared =
        check(ContentType::parse(&declared), |found| found.as_str().to_owned(), ContentType::parse);
    let pattern = Pattern::parse(&pattern);
    let found = sniff(input.rest());
    if let Some(declared) = declared {
        assert!(is_printable(declared.as_str()));
        if let Err(refusal) = declared_with_extension(&name, &declared) {
            check_refusal(&refusal);
        }
        if let Ok(pattern) = &pattern {
            let _ = pattern.matches(&declared);
        }
        let _ = allowed(&declared, &[name]);
        assert!(found.is_none_or(|found| agrees(&declared, found) || declared.essence() != found));
    }
}

fn places(text: &str) {
    if let Some(origin) = check(Origin::parse(text), |origin| origin.as_str().to_owned(), Origin::parse) {
        assert!(is_printable(origin.as_str()) && !origin.as_str().contains([' ', '"', '<', '>', '&', '\'']));
        assert!(origin.as_str().matches('*').count() <= 1);
    }
    if let Ok(endpoint) = Endpoint::parse(text) {
        let shown = endpoint.to_string();
        assert_eq!(Endpoint::parse(&shown).as_ref(), Ok(&endpoint));
        assert!(is_printable(&shown) && !shown.contains([' ', '@', '?', '#', '\\']));
        // What is taken for this machine is this machine.
        if endpoint.is_loopback() {
            let host = endpoint.host();
            assert!(host == "localhost" || host.starts_with("127.") || host.starts_with('['), "{host}");
        }
    }
    if let Ok(prefix) = BucketPrefix::parse(text) {
        assert_eq!(check_bucket_name(&bucket_name(&prefix, &[text, "private"])), Ok(()));
    }
    if let Ok(prefix) = KeyPrefix::parse(text) {
        assert_eq!(KeyPrefix::parse(prefix.as_str()), Ok(prefix.clone()));
        assert!(
            !prefix.as_str().contains("..") || !prefix.as_str().split('/').any(|segment| segment == "..")
        );
    }
    let _ = check_bucket_name(text);
}

/// Nobody can make a token, and one that was made fits its own listing alone.
fn pages(data: &[u8]) {
    let mut input = Input::new(data);
    let (prefix, other, text) = (input.text(), input.text(), input.text());
    let id = uuid::Uuid::from_u128(u128::from(input.byte()));
    let number = i64::from_be_bytes([(); 8].map(|()| input.byte()));
    let order = input.choice(&[Order::Path, Order::Newest, Order::Largest]);
    let listing = Listing { bucket: id, prefix: &prefix, delimiter: Some(&other), order };
    for position in [
        Position::Path(text.clone()),
        Position::Pathless(id),
        Position::Newest(number, id),
        Position::Largest(number, id),
    ] {
        let token = page_token::seal(b"a key", &listing, &position);
        assert_eq!(page_token::open(b"a key", &listing, &token).as_ref(), Ok(&position));
        let swapped = Listing { prefix: &other, delimiter: Some(&prefix), ..listing };
        assert!(prefix == other || page_token::open(b"a key", &swapped, &token).is_err());
        assert!(page_token::open(b"another", &listing, &token).is_err());
    }
    if let Err(refusal) = page_token::open(b"a key", &listing, &text) {
        check_refusal(&refusal);
    }
    let _ = Order::parse(&text);
    assert!(next_after(&text).as_bytes() > text.as_bytes());
    assert!(end_of(&text).is_none_or(|end| end.as_bytes() > text.as_bytes() && !end.starts_with(&text)));
    if let Some(folder) = folder_of(&text, &prefix, &other) {
        assert!(text.starts_with(folder) && folder.starts_with(&prefix) && folder.ends_with(&other));
    }
    match check_list(text.split(',').collect::<Vec<_>>().into_iter()) {
        Ok(()) => assert!(text.split(',').count() <= MAX_LISTED),
        Err(refusal) => check_refusal(&refusal),
    }
}

/// The parts of a file are all of it, each byte once.
fn parts(data: &[u8]) {
    let mut input = Input::new(data);
    let [size, part_size] =
        [(); 2].map(|()| u64::from_be_bytes([(); 8].map(|()| input.byte())) >> (input.byte() % 64));
    let asked = input.one_in(2).then_some(part_size.cast_signed());
    // Nobody uploads nothing.
    match Parts::divide(size.max(1), asked) {
        Ok(parts) => {
            let last = parts.count();
            let (start, length) = parts.place(last).expect("the last part is one");
            assert_eq!(start + length, size.max(1));
            assert!(last == 1 || parts.place(last - 1).is_ok_and(|(first, length)| first + length == start));
            for none in [0, last + 1, i32::MIN, i32::MAX] {
                check_refusal(&parts.place(none).expect_err("there is no such part"));
            }
        }
        Err(refusal) => check_refusal(&refusal),
    }
}

fn keys(text: &str) {
    if let Ok(digest) = Digest::parse_hex(text) {
        assert_eq!(digest.to_hex(), text);
        assert_eq!(Digest::from_base64(&digest.to_base64()), Some(digest));
    }
    let _ = Digest::from_base64(text);
    let segment = key::tenant_segment(text);
    assert!((1..=64).contains(&segment.len()) && !segment.starts_with('.'), "{segment}");
    assert!(segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)), "{segment}");
    let id = uuid::Uuid::from_u128(7);
    for made in [
        key::content_key(text, &id, &Digest::of(text.as_bytes()), &id),
        key::undeclared_key(text, &id, &id),
        key::staging_key(text, &id),
    ] {
        assert_eq!(key::upload_of(&made), Some(id));
        assert_eq!(key::upload_of(&key::attempt_key(&made)), Some(id));
    }
    let _ = key::upload_of(text);
}
