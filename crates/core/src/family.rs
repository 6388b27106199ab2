//! Which content types name the same bytes: aliases, and families that share one format on disk.

/// Formats on disk that several content types share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Characters.
    Text,
    /// ZIP archives and the documents that are ones.
    Zip,
    /// OLE compound files: the binary Office formats, mails, installers.
    Ole,
    /// ISO base media: MP4, M4A, QuickTime, 3GPP.
    IsoMedia,
    /// HEIF pictures, whatever they are coded with.
    Heif,
    /// Ogg.
    Ogg,
    /// Matroska and WebM.
    Matroska,
    /// gzip and what is usually packed with it.
    Gzip,
    /// TIFF and the raw pictures of cameras built on it.
    Tiff,
    /// Advanced Systems Format: WMV, WMA.
    Asf,
    /// TrueType and OpenType.
    Sfnt,
    /// WOFF, both versions.
    Woff,
    /// PDF and what is saved as one.
    Pdf,
}

/// A content type, lower case and without parameters, reduced to one spelling: aliases resolved, `x-` dropped.
pub(crate) fn canonical(essence: &str) -> (&str, &str) {
    let (main, sub) = essence.split_once('/').unwrap_or((essence, ""));
    let sub = sub.strip_prefix("x-").unwrap_or(sub);
    match (main, sub) {
        ("image", "jpg" | "pjpeg") => ("image", "jpeg"),
        ("image", "ms-bmp" | "windows-bmp") => ("image", "bmp"),
        ("image", "icon" | "ico") => ("image", "vnd.microsoft.icon"),
        ("image", "tif") => ("image", "tiff"),
        ("image", "photoshop" | "psd") | ("application", "photoshop" | "psd" | "vnd.adobe.photoshop") => {
            ("image", "vnd.adobe.photoshop")
        }
        ("audio", "mp3" | "mpeg3" | "mpeg-3" | "mpg") => ("audio", "mpeg"),
        ("audio", "wave" | "vnd.wave" | "pn-wav") => ("audio", "wav"),
        ("audio", "aif") => ("audio", "aiff"),
        ("audio", "aacp" | "vnd.dlna.adts" | "hx-aac-adts") => ("audio", "aac"),
        ("audio", "mid" | "sp-midi") => ("audio", "midi"),
        ("video", "avi" | "vnd.avi") => ("video", "msvideo"),
        ("video", "mpg" | "mp2p") => ("video", "mpeg"),
        ("application", "zip-compressed") | ("multipart", "zip") => ("application", "zip"),
        ("application", "gzip-compressed" | "gunzip") => ("application", "gzip"),
        ("application", "rar" | "rar-compressed") => ("application", "vnd.rar"),
        ("application", "7z") => ("application", "7z-compressed"),
        ("application", "bzip" | "bz2") => ("application", "bzip2"),
        ("application", "gtar" | "ustar") => ("application", "tar"),
        ("application", "sqlite3" | "sqlite") => ("application", "vnd.sqlite3"),
        ("application", "deb" | "debian-package") => ("application", "vnd.debian.binary-package"),
        ("application", "cab" | "cab-compressed") => ("application", "vnd.ms-cab-compressed"),
        ("application", "java-vm" | "java-class") => ("application", "java"),
        ("application", "elf" | "sharedlib" | "object" | "pie-executable") => ("application", "executable"),
        ("application", "msdownload" | "dosexec" | "msdos-program" | "ms-dos-executable") => {
            ("application", "vnd.microsoft.portable-executable")
        }
        ("application", "vnd.ms-word" | "vnd.msword" | "word") => ("application", "msword"),
        ("application", "excel" | "msexcel") => ("application", "vnd.ms-excel"),
        ("application", "powerpoint" | "mspowerpoint") => ("application", "vnd.ms-powerpoint"),
        ("application" | "image", "eps") => ("application", "postscript"),
        ("text", "rtf" | "richtext") => ("application", "rtf"),
        ("text", "pdf") => ("application", "pdf"),
        other => other,
    }
}

/// The family of a canonical type.
pub(crate) fn family((main, sub): (&str, &str)) -> Option<Family> {
    let suffix = sub.rsplit_once('+').map_or("", |(_, suffix)| suffix);
    let family = match (main, sub) {
        (_, "zip" | "java-archive" | "vnd.android.package-archive" | "xpinstall" | "openraster") => {
            Family::Zip
        }
        ("application", sub) if office_zip(sub) => Family::Zip,
        (_, _) if suffix == "zip" => Family::Zip,
        ("text" | "message", _) => Family::Text,
        ("application", sub) if text_application(sub) || sub.ends_with("-flat-xml") => Family::Text,
        (_, _) if matches!(suffix, "json" | "xml" | "yaml" | "json-seq") => Family::Text,
        (
            "application",
            "ole-storage" | "cfb" | "msword" | "vnd.ms-excel" | "vnd.ms-powerpoint" | "vnd.visio"
            | "vnd.ms-outlook" | "vnd.ms-project" | "vnd.ms-works" | "msi" | "mspublisher",
        ) => Family::Ole,
        (
            "audio" | "video",
            "mp4" | "m4a" | "m4v" | "m4b" | "m4p" | "quicktime" | "3gpp" | "3gpp2" | "f4v",
        )
        | ("application", "mp4") => Family::IsoMedia,
        ("image", "heif" | "heic" | "heif-sequence" | "heic-sequence" | "avif" | "avif-sequence") => {
            Family::Heif
        }
        (_, "ogg") | ("audio", "opus" | "vorbis" | "vorbis+ogg" | "opus+ogg" | "speex" | "speex+ogg") => {
            Family::Ogg
        }
        ("audio" | "video", "matroska" | "webm") => Family::Matroska,
        ("application", "gzip" | "compressed" | "tgz" | "compressed-tar" | "gtar-compressed") => Family::Gzip,
        (_, _) if suffix == "gzip" => Family::Gzip,
        (
            "image",
            "tiff" | "canon-cr2" | "nikon-nef" | "adobe-dng" | "dng" | "sony-arw" | "pentax-pef"
            | "samsung-srw" | "olympus-orf" | "panasonic-rw2" | "epson-erf" | "kodak-dcr",
        ) => Family::Tiff,
        ("audio" | "video", "ms-wmv" | "ms-wma" | "ms-asf" | "ms-wm") | ("application", "vnd.ms-asf") => {
            Family::Asf
        }
        ("font", "ttf" | "otf" | "sfnt" | "collection" | "opentype" | "truetype")
        | (
            "application",
            "font-sfnt" | "font-ttf" | "font-otf" | "font-truetype" | "font-opentype" | "vnd.ms-opentype",
        ) => Family::Sfnt,
        ("font", "woff" | "woff2") | ("application", "font-woff" | "font-woff2") => Family::Woff,
        ("application", "pdf" | "illustrator" | "vnd.adobe.illustrator") => Family::Pdf,
        _ => return None,
    };
    Some(family)
}

/// Office documents that are ZIP archives.
fn office_zip(sub: &str) -> bool {
    [
        "vnd.openxmlformats-officedocument.",
        "vnd.ms-word.",
        "vnd.ms-excel.",
        "vnd.ms-powerpoint.",
        "vnd.sun.xml.",
    ]
    .iter()
    .any(|start| sub.starts_with(start))
        || (sub.starts_with("vnd.oasis.opendocument.") && !sub.ends_with("-flat-xml"))
        || matches!(
            sub,
            "vnd.apple.pages" | "vnd.apple.numbers" | "vnd.apple.keynote" | "vnd.google-earth.kmz"
        )
        || matches!(sub, "vnd.ms-xpsdocument" | "oxps" | "vnd.ms-visio.drawing" | "vnd.visio2013")
}

/// Types outside `text/*` whose bytes are text.
fn text_application(sub: &str) -> bool {
    matches!(
        sub,
        "json"
            | "xml"
            | "xml-dtd"
            | "javascript"
            | "ecmascript"
            | "typescript"
            | "yaml"
            | "toml"
            | "sql"
            | "graphql"
            | "csv"
            | "ndjson"
            | "jsonlines"
            | "jsonl"
            | "json5"
            | "sh"
            | "shellscript"
            | "csh"
            | "bash"
            | "perl"
            | "python"
            | "ruby"
            | "httpd-php"
            | "php"
            | "tex"
            | "latex"
            | "texinfo"
            | "troff"
            | "subrip"
            | "mbox"
            | "mpegurl"
            | "vnd.apple.mpegurl"
            | "pem-file"
            | "pgp-keys"
            | "pgp-signature"
            | "pgp-encrypted"
            | "rtf"
            | "n-quads"
            | "n-triples"
            | "trig"
            | "edn"
            | "sparql-query"
            | "sieve"
            | "msdos-batch"
            | "bat"
            | "ipynb"
    )
}

/// The format inside a container: the office formats have many types each, for documents, templates and macros.
pub(crate) fn flavour(sub: &str) -> &str {
    if sub.contains("wordprocessingml") || sub.starts_with("vnd.ms-word.") {
        "word"
    } else if sub.contains("spreadsheetml") || sub.starts_with("vnd.ms-excel.") {
        "excel"
    } else if sub.contains("presentationml") || sub.starts_with("vnd.ms-powerpoint.") {
        "powerpoint"
    } else if sub.starts_with("vnd.oasis.opendocument.") {
        // Templates and master documents: "text-template", "text-master".
        sub.split_once('-').map_or(sub, |(kind, _)| kind)
    } else {
        sub
    }
}
