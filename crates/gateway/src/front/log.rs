//! The access log: one line per request, `METHOD path status operation`. Never a query: it holds signatures.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use http::{Method, StatusCode};

/// An open access log.
#[derive(Debug)]
pub struct AccessLog(Mutex<File>);

impl AccessLog {
    /// Opens the file for appending, creating it if need be.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Ok(Self(Mutex::new(file)))
    }

    /// Writes one line, at once. A log that cannot be written must not fail the request.
    pub fn write(&self, method: &Method, path: &str, status: StatusCode, operation: Option<&str>) {
        let line = format!("{method} {path} {} {}\n", status.as_u16(), operation.unwrap_or("-"));
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = file.write_all(line.as_bytes());
    }
}
