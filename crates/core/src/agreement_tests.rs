//! Cases of agreement and contradiction, as people and browsers produce them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use proptest::prelude::*;

fn declared(text: &str) -> ContentType {
    ContentType::parse(text).unwrap()
}

const DOCX: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
const XLSX: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";

#[test]
fn extensions_that_agree() {
    for (filename, content_type) in [
        ("invoice.pdf", "application/pdf"),
        ("INVOICE.PDF", "Application/PDF"),
        ("photo.jpg", "image/jpg"),
        ("photo.jpeg", "image/pjpeg"),
        ("photo.png", "image/png; q=1"),
        ("icon.ico", "image/vnd.microsoft.icon"),
        ("scan.tif", "image/tiff"),
        ("data.csv", "text/plain"),
        ("data.csv", "application/vnd.ms-excel"),
        ("data.json", "text/plain"),
        ("data.geojson", "application/geo+json"),
        ("page.html", "application/xhtml+xml"),
        ("app.js", "application/javascript"),
        ("app.js", "application/x-javascript"),
        ("conf.yaml", "application/yaml"),
        ("logo.svg", "text/xml"),
        ("query.sql", "text/plain"),
        ("run.sh", "text/x-shellscript"),
        ("letter.rtf", "text/rtf"),
        ("letter.rtf", "application/msword"),
        ("song.mp3", "audio/mp3"),
        ("song.m4a", "audio/mp4"),
        ("song.m4a", "audio/x-m4a"),
        ("song.wav", "audio/wave"),
        ("song.opus", "audio/opus"),
        ("song.flac", "audio/x-flac"),
        ("clip.mov", "video/mp4"),
        ("clip.mkv", "video/matroska"),
        ("clip.webm", "audio/webm"),
        ("clip.avi", "video/avi"),
        ("a.zip", "application/x-zip-compressed"),
        ("a.docx", "application/zip"),
        ("a.docx", DOCX),
        ("a.jar", "application/zip"),
        ("a.epub", "application/epub+zip"),
        ("a.tgz", "application/gzip"),
        ("a.tar.gz", "application/x-gzip"),
        ("a.rar", "application/vnd.rar"),
        ("a.ttf", "font/ttf"),
        ("a.otf", "font/otf"),
        ("a.woff", "font/woff"),
        ("a.exe", "application/x-msdownload"),
        ("main.ts", "text/typescript"),
        ("clip.ts", "video/mp2t"),
        ("model.stl", "model/stl"),
        ("drawing.ai", "application/pdf"),
        ("a.xml", "application/vnd.acme.report"),
        ("a.doc", "application/vnd.ms-word"),
        ("a.eps", "image/x-eps"),
    ] {
        assert_eq!(
            declared_with_extension(filename, &declared(content_type)),
            Ok(()),
            "{filename}: {content_type}"
        );
    }
}

#[test]
fn silence_agrees() {
    for (filename, content_type) in [
        ("invoice", "image/png"),
        ("invoice.", "image/png"),
        (".png", "application/pdf"),
        (".gitignore", "text/plain"),
        ("a.unheardof", "image/png"),
        ("a.pdf", "application/octet-stream"),
        ("a.pdf", "binary/octet-stream"),
        ("a.bin", "image/png"),
        // The registry knows these as bytes of no particular kind; the leading bytes decide.
        ("photo.png.exe", "image/png"),
        ("a.日本", "image/png"),
    ] {
        assert_eq!(
            declared_with_extension(filename, &declared(content_type)),
            Ok(()),
            "{filename}: {content_type}"
        );
    }
}

#[test]
fn extensions_that_contradict() {
    for (filename, content_type) in [
        ("invoice.pdf", "image/png"),
        ("photo.png", "image/jpeg"),
        ("photo.jpg", "text/html"),
        ("page.html", "image/jpeg"),
        ("a.zip", "application/pdf"),
        ("a.docx", "application/pdf"),
        ("a.docx", XLSX),
        ("photo.heic", "video/mp4"),
        ("song.mp3", "video/mp4"),
        ("evil.svg", "image/png"),
        ("data.csv", "image/png"),
        ("invoice.pdf", "application/vnd.acme.report"),
        ("notes.txt", "application/zip"),
    ] {
        let refusal = declared_with_extension(filename, &declared(content_type)).unwrap_err();
        assert_eq!(refusal.token, Token::UploadTypeMismatch, "{filename}: {content_type}");
        assert!(refusal.detail.unwrap().contains(filename));
    }
}

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF\0";
const PDF: &[u8] = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n";
const ZIP: &[u8] = b"PK\x03\x04\x14\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0a";
const OLE: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0\0\0";
const GZIP: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\x03";
const MP4: &[u8] = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom";

#[test]
fn bytes_that_are_recognised() {
    for (bytes, essence) in [
        (PNG, "image/png"),
        (JPEG, "image/jpeg"),
        (PDF, "application/pdf"),
        (ZIP, "application/zip"),
        (OLE, "application/x-ole-storage"),
        (GZIP, "application/gzip"),
        (MP4, "video/mp4"),
        (b"<!DOCTYPE html>\n<html>", "text/html"),
        (b"<?xml version=\"1.0\"?><svg/>", "text/xml"),
        (b"#!/bin/sh\necho", "text/x-shellscript"),
        (b"%PDF-1.4\nplain so far", "application/pdf"),
        (b"MZ\x90\0\x03\0\0\0", "application/vnd.microsoft.portable-executable"),
    ] {
        assert_eq!(sniff(bytes), Some(essence));
    }
}

#[test]
fn bytes_that_are_not_recognised() {
    for bytes in [
        b"".as_slice(),
        b"\0\x01\x02\x03vendor",
        b"hello world",
        "grüße".as_bytes(),
        b"{\"a\": 1}",
        b"a,b,c\n1,2,3\n",
        b"BMW is a car maker.",
        b"MZ is the abbreviation of Mainz.",
        b"ID3 tags explained",
        b"FWS and CWS are magic numbers",
        &"BMé".as_bytes()[..3],
    ] {
        assert_eq!(sniff(bytes), None, "{}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn bytes_and_declarations_that_agree() {
    for (bytes, content_type) in [
        (PNG, "image/png"),
        (PNG, "image/x-png"),
        (PNG, "application/octet-stream"),
        (ZIP, DOCX),
        (ZIP, "application/java-archive"),
        (ZIP, "application/epub+zip"),
        (ZIP, "application/x-zip-compressed"),
        (ZIP, "model/vnd.usdz+zip"),
        (ZIP, "application/vnd.acme.project"),
        (ZIP, "application/vnd.ms-excel.sheet.macroEnabled.12"),
        (OLE, "application/msword"),
        (OLE, "application/vnd.ms-excel"),
        (OLE, "application/vnd.ms-outlook"),
        (OLE, XLSX),
        (GZIP, "application/x-compressed-tar"),
        (MP4, "audio/mp4"),
        (MP4, "video/quicktime"),
        (b"<?xml version=\"1.0\"?><svg/>", "image/svg+xml"),
        (b"<?xml version=\"1.0\"?><gpx/>", "application/gpx+xml"),
        (b"<?xml version=\"1.0\"?><a/>", "application/vnd.acme.report"),
        (b"<!DOCTYPE html>", "text/plain"),
        (b"#!/usr/bin/env python\n", "text/x-python"),
        (b"{\\rtf1 }", "application/rtf"),
    ] {
        let sniffed = sniff(bytes).unwrap();
        assert!(agrees(&declared(content_type), sniffed), "{sniffed}: {content_type}");
    }
    assert!(agrees(&declared("application/json"), "text/plain"));
    assert!(agrees(&declared("text/csv"), "text/plain"));
    assert!(agrees(&declared(&format!("{DOCX}; x=y")), DOCX));
    assert!(agrees(
        &declared("application/vnd.openxmlformats-officedocument.wordprocessingml.template"),
        DOCX
    ));
    assert!(agrees(&declared("image/x-nikon-nef"), "image/tiff"));
}

#[test]
fn bytes_and_declarations_that_contradict() {
    for (bytes, content_type) in [
        (JPEG, "image/png"),
        (PNG, "image/jpeg"),
        (PNG, "text/plain"),
        (PNG, "image/svg+xml"),
        (PNG, "application/vnd.acme.report"),
        (ZIP, "application/pdf"),
        (PDF, "application/zip"),
        (PDF, DOCX),
        (ZIP, "image/png"),
        (ZIP, "text/plain"),
        (GZIP, "application/zip"),
        (OLE, "application/pdf"),
        (OLE, "application/java-archive"),
        (MP4, "image/heic"),
        (b"<!DOCTYPE html>", "image/jpeg"),
        (b"<!DOCTYPE html>", "application/pdf"),
        (b"<!DOCTYPE html>", "application/vnd.acme.report"),
        (b"MZ\x90\0\x03\0\0\0", "image/png"),
    ] {
        let sniffed = sniff(bytes).unwrap();
        assert!(!agrees(&declared(content_type), sniffed), "{sniffed}: {content_type}");
    }
    assert!(!agrees(&declared(XLSX), DOCX));
    assert!(!agrees(&declared("application/vnd.oasis.opendocument.text"), DOCX));
}

proptest! {
    #[test]
    fn any_bytes_are_answered(magic in prop::sample::select(vec![
        b"".as_slice(), PNG, JPEG, PDF, ZIP, OLE, GZIP, MP4, b"PK\x03\x04\xff\xff\xff\xff", b"\x1aE\xdf\xa3", b"RIFF", b"<", b"\xca\xfe\xba\xbe",
        b"dex\n035\0", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18\0\0\0\0", b"\x04\x22\x4d\x18", b"II*\0", b"\0\0\0\x0cftypheic",
        b"PK\x03\x04aaaaaaaaaaaaaa\xff\xff\xff\xffaaaaaaaa[Content_Types].xml", b"\0\0\x01\0", b"8BPS", b"\x7fELF", b"\xff\xfe", b"#!", b"!<arch>\n",
    ]), rest in prop::collection::vec(any::<u8>(), 0..600)) {
        let bytes = [magic, &rest].concat();
        if let Some(essence) = sniff(&bytes) {
            prop_assert!(agrees(&declared("application/octet-stream"), essence));
            // A type agrees with itself, and so it does when declared with the name of what was found.
            prop_assert!(agrees(&declared(essence), essence));
        }
    }

    #[test]
    fn any_filename_is_answered(filename: String, dotted in "[a-z]{0,3}\\.\\PC{0,5}") {
        for name in [filename, dotted] {
            let _ = declared_with_extension(&name, &declared("application/pdf"));
            prop_assert_eq!(declared_with_extension(&name, &declared("application/octet-stream")), Ok(()));
        }
    }
}

#[test]
fn agreement_is_mutual() {
    let essences = [
        "image/png",
        "image/jpeg",
        "text/plain",
        "text/html",
        "text/xml",
        "application/xml",
        "application/json",
        "application/zip",
        DOCX,
        "application/gzip",
        "application/x-tgz",
        "application/x-ole-storage",
        "application/msword",
        "application/pdf",
        "application/vnd.acme.report",
        "model/stl",
        "video/mp4",
        "audio/x-m4a",
        "image/heic",
        "application/vnd.sqlite3",
    ];
    for one in essences {
        for two in essences {
            assert_eq!(agrees(&declared(one), two), agrees(&declared(two), one), "{one}, {two}");
        }
    }
}
