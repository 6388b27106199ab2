//! The credentials of a local store: made once, kept in a file that only its owner can read.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use pg_storage_core::presign::{Credentials, Secret};
use uuid::Uuid;

use crate::blobs::{parent, sync_dir};

/// The characters of an access key. Their number divides 256, so each is as likely as the others; the same holds for
/// [`SECRET`].
const ID: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The characters of a secret key.
const SECRET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Reads the credentials from a file, or makes new ones and writes them there.
///
/// The file has two lines, access key and secret key, and mode 0600. It appears whole or not at all; of several
/// processes that make one at the same time the first wins and all return its credentials.
///
/// # Errors
/// `PermissionDenied` when others than the file's owner may read it, `InvalidData` when it is not of that form,
/// and whatever reading or writing says.
pub fn load_or_create_credentials(path: &Path) -> io::Result<Credentials> {
    match load(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(path)?;
            load(path)
        }
        loaded => loaded,
    }
}

fn load(path: &Path) -> io::Result<Credentials> {
    let mode = fs::metadata(path)?.mode();
    if mode & 0o077 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{} must not be accessible to others: its mode is {:o}, expected 600",
                path.display(),
                mode & 0o777
            ),
        ));
    }
    let text = fs::read_to_string(path)?;
    let mut lines = text.lines();
    match (lines.next(), lines.next(), lines.next()) {
        (Some(id), Some(secret), None) if !id.is_empty() && !secret.is_empty() => Ok(Credentials {
            access_key_id: id.to_owned(),
            secret_access_key: Secret::new(secret),
            session_token: None,
        }),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} must hold two lines, access key and secret key", path.display()),
        )),
    }
}

fn create(path: &Path) -> io::Result<()> {
    let directory = parent(path);
    let temporary = directory.join(format!(".credentials-{}", Uuid::new_v4().simple()));
    let written = write(&temporary).and_then(|()| {
        // link and not rename: it refuses to replace what another process has just made.
        match fs::hard_link(&temporary, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    });
    let removed = fs::remove_file(&temporary);
    written.and(removed)?;
    sync_dir(directory)
}

fn write(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // The umask can only take bits away; make sure none the owner needs is gone.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    writeln!(file, "LOCAL{}\n{}", random(16, ID)?, random(40, SECRET)?)?;
    file.sync_all()
}

fn random(length: usize, alphabet: &[u8]) -> io::Result<String> {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes
        .iter()
        .filter_map(|byte| alphabet.get(usize::from(*byte) % alphabet.len()))
        .map(|byte| char::from(*byte))
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn credentials_are_made_once_and_are_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        let made = load_or_create_credentials(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(load_or_create_credentials(&path).unwrap(), made);
        assert!(made.secret_access_key.expose().len() >= 40);
        let other = load_or_create_credentials(&directory.path().join("other")).unwrap();
        assert_ne!(other.secret_access_key, made.secret_access_key);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "no temporary file stays");
    }

    #[test]
    fn of_many_who_make_them_all_get_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        let made: Vec<_> = std::thread::scope(|scope| {
            let makers: Vec<_> =
                (0..8).map(|_| scope.spawn(|| load_or_create_credentials(&path).unwrap())).collect();
            makers.into_iter().map(|maker| maker.join().unwrap()).collect()
        });
        assert!(made.windows(2).all(|pair| pair.first() == pair.last()));
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_broken_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        load_or_create_credentials(&path).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = load_or_create_credentials(&path).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for text in ["", "one\n", "\nsecret\n", "a\nb\nc\n"] {
            fs::write(&path, text).unwrap();
            assert_eq!(
                load_or_create_credentials(&path).unwrap_err().kind(),
                io::ErrorKind::InvalidData,
                "{text:?}"
            );
        }
    }
}
