//! Whether extension, declared type and leading bytes tell the same story.
//!
//! Silence agrees: an unknown extension, `application/octet-stream` and bytes that nothing recognises contradict nobody.
//! Text is one family. A container agrees with what can be in it, but two different contents of one container contradict
//! each other. The aim is to refuse a PDF that calls itself a picture, not to refuse anyone for a spelling.

use mime_guess::from_ext;

use crate::content_type::ContentType;
use crate::error::{Invalid, Token, shown};
use crate::family::{Family, canonical, family, flavour};

/// Extensions that stand for formats besides the one in the registry: TypeScript or MPEG, batch files, Wavefront and STL
/// models, gettext and Graphviz, keys and certificates in text or binary form.
const AMBIGUOUS_EXTENSIONS: [&str; 22] = [
    "asc", "bat", "cer", "cmd", "com", "crt", "der", "dot", "key", "msg", "mts", "nb", "obj", "org", "p7s",
    "pem", "pot", "prn", "pub", "sig", "stl", "ts",
];

/// Types that browsers and programs declare for an extension although the registry has another: a Windows with Excel
/// calls CSV files Excel's own, and Illustrator has saved PDF for decades.
const EXTRA_TYPES: [(&str, &str); 4] = [
    ("csv", "application/vnd.ms-excel"),
    ("rtf", "application/msword"),
    ("ai", "application/pdf"),
    ("mpp", "application/vnd.ms-project"),
];

/// Whether the extension of a file's name contradicts the declared type.
///
/// # Errors
/// [`Token::UploadTypeMismatch`].
pub fn declared_with_extension(filename: &str, declared: &ContentType) -> Result<(), Invalid> {
    let Some(extension) = extension(filename) else { return Ok(()) };
    if AMBIGUOUS_EXTENSIONS.contains(&extension.as_str()) {
        return Ok(());
    }
    let extra = EXTRA_TYPES.iter().filter(|(name, _)| *name == extension).map(|(_, essence)| *essence);
    let usual = from_ext(&extension);
    let mut known = usual.iter_raw().chain(extra).peekable();
    if known.peek().is_none() || known.any(|essence| agrees(declared, essence)) {
        return Ok(());
    }
    let usual = usual.first_raw().unwrap_or_default();
    Err(Invalid::new(
        Token::UploadTypeMismatch,
        "the file name's extension contradicts the declared content type",
    )
    .with_detail(format!(
        "The name is {}, the declared type is {}.",
        shown(filename),
        shown(declared.as_str())
    ))
    .with_hint(format!(
        "Declare what the file is (for '.{extension}' usually '{usual}') or name it accordingly."
    )))
}

/// The extension in lower case. A name that only begins with a dot has none.
fn extension(filename: &str) -> Option<String> {
    let (stem, extension) = filename.rsplit_once('.')?;
    (!stem.is_empty() && !extension.is_empty()).then(|| extension.to_ascii_lowercase())
}

/// What the leading bytes of a file are recognised as; 4096 are enough.
///
/// Bytes that read as text are not taken for a binary format just because they begin with its letters, as a note that
/// begins with "BMW" does.
pub fn sniff(head: &[u8]) -> Option<&'static str> {
    // Compound files are told apart by a directory that need not be in the leading bytes; `infer` calls each a Word file.
    const OLE_MAGIC: [u8; 8] = [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];
    if head.starts_with(&OLE_MAGIC) {
        return Some("application/x-ole-storage");
    }
    let found = infer::Infer::new().get(head)?.mime_type();
    let may_be_text = matches!(found, "application/pdf" | "application/postscript")
        || family(canonical(found)) == Some(Family::Text);
    (may_be_text || !reads_as_text(head)).then_some(found)
}

/// UTF-8, possibly cut within a character, without control characters other than those of plain text.
fn reads_as_text(head: &[u8]) -> bool {
    let complete = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    complete
        && !head
            .iter()
            .any(|byte| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b))
}

/// Whether a declared type and a recognised one (from [`sniff`] or an extension) can be true of the same file.
pub fn agrees(declared: &ContentType, sniffed: &str) -> bool {
    let one = canonical(declared.essence());
    let two = canonical(sniffed);
    if is_silent(one) || is_silent(two) || one == two {
        return true;
    }
    match (family(one), family(two)) {
        (Some(Family::Zip), Some(Family::Zip)) | (Some(Family::Ole), Some(Family::Ole)) => {
            is_container(one) || is_container(two) || flavour(one.1) == flavour(two.1)
        }
        (Some(one), Some(two)) if one == two => true,
        // A document with a password is encrypted, and then wrapped in a compound file.
        (Some(Family::Zip), Some(Family::Ole)) => may_be_encrypted(one) && is_container(two),
        (Some(Family::Ole), Some(Family::Zip)) => may_be_encrypted(two) && is_container(one),
        (None, Some(_)) => is_container(two) && is_vendors_own(one),
        (Some(_), None) => is_container(one) && is_vendors_own(two),
        _ => false,
    }
}

/// Types that say nothing about the bytes.
fn is_silent(canonical: (&str, &str)) -> bool {
    matches!(
        canonical,
        ("application" | "binary", "octet-stream")
            | ("application", "unknown" | "binary" | "download" | "force-download")
    )
}

/// Formats that others are built in.
fn is_container(canonical: (&str, &str)) -> bool {
    matches!(
        canonical,
        ("application", "zip" | "gzip" | "ole-storage" | "xml" | "json" | "vnd.sqlite3")
            | ("text", "xml" | "shellscript")
    )
}

/// Office documents since 2007.
fn may_be_encrypted((_, sub): (&str, &str)) -> bool {
    matches!(flavour(sub), "word" | "excel" | "powerpoint")
}

/// A type of which only its vendor knows what it is built in: neither a medium nor a format that is recognised.
fn is_vendors_own((main, sub): (&str, &str)) -> bool {
    let recognised = || {
        let infer = infer::Infer::new();
        [format!("{main}/{sub}"), format!("{main}/x-{sub}")]
            .iter()
            .any(|essence| infer.is_mime_supported(essence))
    };
    !matches!(main, "text" | "image" | "audio" | "video" | "font" | "message" | "multipart") && !recognised()
}

#[cfg(test)]
#[path = "agreement_tests.rs"]
mod tests;
