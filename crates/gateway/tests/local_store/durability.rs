//! What survives: kills, full disks, races; and what does not grow: memory.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use pg_storage_core::presign::Method;

use crate::harness::{Server, refusal, sha256, signal};

/// Files in the data directory.
pub fn blobs(server: &Server) -> usize {
    let shards = fs::read_dir(server.root().join("data")).unwrap();
    shards.map(|shard| fs::read_dir(shard.unwrap().path()).unwrap().count()).sum()
}

fn staged(server: &Server) -> usize {
    fs::read_dir(server.root().join("staging")).unwrap().count()
}

fn body(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|index| ((index * 31 + seed * 17) % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_sixteen_create_only_writers_exactly_one_wins() {
    let server = Arc::new(Server::start());
    server.with_bucket().await;
    for round in 0..10 {
        let key = format!("round-{round}");
        let headers = [("if-none-match", "*")];
        let url = Arc::new(server.presign(Method::Put, &key, &headers));
        let gate = Arc::new(std::sync::Barrier::new(16));
        let writers: Vec<_> = (0..16usize)
            .map(|writer| {
                let (server, url, gate) = (Arc::clone(&server), Arc::clone(&url), Arc::clone(&gate));
                std::thread::spawn(move || {
                    let bytes = body(writer, 20_000);
                    gate.wait();
                    (server.send("PUT", &url, &headers, &bytes).status, bytes)
                })
            })
            .collect();
        let mut winners = Vec::new();
        for writer in writers {
            match writer.join().unwrap() {
                (200, bytes) => winners.push(bytes),
                (412, _) => {}
                (other, _) => panic!("round {round}: {other}"),
            }
        }
        assert_eq!(winners.len(), 1, "round {round}");
        let read = server.send("GET", &server.presign(Method::Get, &key, &[]), &[], b"");
        assert!(read.body == winners[0], "round {round}");
    }
    assert_eq!(blobs(&server), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_comes_back_with_whole_objects_only() {
    let mut server = Server::start();
    server.with_bucket().await;
    let mut acknowledged = Vec::new();
    for round in 0..4usize {
        let count = Arc::new(AtomicUsize::new(0));
        let shared = Arc::new(server);
        let writers: Vec<_> = (0..6usize)
            .map(|writer| {
                let (server, count) = (Arc::clone(&shared), Arc::clone(&count));
                std::thread::spawn(move || {
                    let mut done = Vec::new();
                    for number in 0.. {
                        let key = format!("{round}/{writer}/{number}");
                        // Every other write replaces an object, so both kinds are cut off.
                        let key = if number % 2 == 0 { key } else { format!("shared/{writer}") };
                        let bytes = body(number + writer, 150_000 + writer * 70_000);
                        let sum = sha256(&bytes);
                        let headers = [("x-amz-meta-sum", sum.as_str())];
                        let url = server.presign(Method::Put, &key, &headers);
                        let Some(200) = try_put(&server, &url, &headers, &bytes) else { return done };
                        count.fetch_add(1, Ordering::Relaxed);
                        if number % 2 == 0 {
                            done.push((key, sum));
                        }
                    }
                    done
                })
            })
            .collect();
        let deadline = Instant::now() + Duration::from_secs(60);
        while count.load(Ordering::Relaxed) < 20 {
            assert!(Instant::now() < deadline, "the writers stopped");
            std::thread::sleep(Duration::from_millis(2));
        }
        signal("KILL", shared.process_id());
        for writer in writers {
            acknowledged.extend(writer.join().unwrap());
        }
        server = Arc::into_inner(shared).unwrap().kill_and_restart();
        assert_eq!(staged(&server), 0);

        let client = server.client();
        let mut objects = 0;
        let mut pages = client.list_objects_v2().bucket("bucket").into_paginator().send();
        while let Some(page) = pages.next().await {
            for object in page.unwrap().contents() {
                let key = object.key().unwrap();
                let read = client.get_object().bucket("bucket").key(key).send().await.unwrap();
                let told = read.metadata().unwrap()["sum"].clone();
                let bytes = read.body.collect().await.unwrap().to_vec();
                assert_eq!(sha256(&bytes), told, "{key}: headers of one write, bytes of another");
                objects += 1;
            }
        }
        for (key, sum) in &acknowledged {
            let head = client.head_object().bucket("bucket").key(key).send().await.unwrap();
            assert_eq!(&head.metadata().unwrap()["sum"], sum, "{key} was acknowledged");
        }
        assert_eq!(blobs(&server), objects, "nothing is left over");
    }
}

/// A put whose server may die under it.
fn try_put(server: &Server, url: &str, headers: &[(&str, &str)], bytes: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(server.address()).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let target = &url[url[7..].find('/')? + 7..];
    let mut head = format!(
        "PUT {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n",
        server.address(),
        bytes.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(bytes).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.get(9..12)?.parse().ok()
}

/// A small file system that is unmounted when dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// Needs the right to mount; `None` without it.
    fn mount(path: std::path::PathBuf, mebibytes: usize) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let options = format!("size={mebibytes}m,mode=700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).output();
        let mounted = mounted.is_ok_and(|output| output.status.success()).then_some(Self(path));
        if mounted.is_none() {
            eprintln!(
                "no right to mount a file system: the part with a disk that is really full is left out"
            );
        }
        mounted
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A server whose files can be kept from growing while it runs: the kernel then fails a write as a full disk does.
fn limitable() -> Server {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("store");
    Server::start_in(directory, root, |command| {
        let binary = command.get_program().to_owned();
        *command = Command::new("env");
        // The signal that comes with the limit would end the process.
        command.arg("--ignore-signal=XFSZ").arg(binary)
    })
}

fn limit_files(server: &Server, bytes: &str) {
    let limit = format!("--fsize={bytes}:unlimited");
    let id = server.process_id().to_string();
    assert!(Command::new("prlimit").args([&limit, "--pid", &id]).status().unwrap().success());
}

async fn refuses_what_does_not_fit(server: Server, too_large: usize) {
    let client = server.with_bucket().await;
    client.put_object().bucket("bucket").key("k").body(ByteStream::from_static(b"old")).send().await.unwrap();
    for _ in 0..3 {
        let put = client.put_object().bucket("bucket").key("k").body(body(1, too_large).into()).send().await;
        assert_eq!(refusal(put.unwrap_err()), (507, "InsufficientStorage".into()));
        assert_eq!((blobs(&server), staged(&server)), (1, 0));
    }
    let old = client.get_object().bucket("bucket").key("k").send().await.unwrap();
    assert_eq!(old.body.collect().await.unwrap().to_vec(), b"old");
    client.put_object().bucket("bucket").key("l").body(body(2, 1000).into()).send().await.unwrap();
    let server = server.kill_and_restart();
    let new = server.client().get_object().bucket("bucket").key("l").send().await.unwrap();
    assert_eq!(new.body.collect().await.unwrap().to_vec(), body(2, 1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_fit_is_refused_and_nothing_is_lost() {
    let server = limitable();
    limit_files(&server, "8388608");
    refuses_what_does_not_fit(server, 20 << 20).await;
    let directory = tempfile::tempdir().unwrap();
    // The same on a disk that is really full, where the test may mount one.
    if let Some(disk) = SmallDisk::mount(directory.path().join("disk"), 16) {
        let root = disk.0.join("store");
        refuses_what_does_not_fit(Server::start_in(directory, root, |command| command), 20 << 20).await;
    }
}

/// The index itself finds no room: it must refuse, lose nothing, and work again as soon as there is room.
async fn recovers(server: &Server, starve: impl Fn(), feed: impl Fn()) {
    let client = server.with_bucket().await;
    let mut stored = Vec::new();
    for round in 0..3 {
        // Empty objects need the index and nothing else.
        let put = |number: u32| {
            let key = format!("{round}/{number}/{}", "x".repeat(900));
            let put = client.put_object().bucket("bucket").key(&key).body(ByteStream::from_static(b""));
            async move { (put.send().await, key) }
        };
        for number in 0..20 {
            let (answer, key) = put(number).await;
            answer.unwrap();
            stored.push(key);
        }
        starve();
        let mut refused = 0;
        for number in 20..20_000 {
            match put(number).await {
                (Ok(_), key) => stored.push(key),
                (Err(error), _) => {
                    assert_eq!(refusal(error), (507, "InsufficientStorage".into()));
                    refused += 1;
                }
            }
            if refused == 3 {
                break;
            }
        }
        assert_eq!(refused, 3, "there was always room");
        // What is there can still be read while nothing can be written.
        for key in &stored {
            client.head_object().bucket("bucket").key(key).send().await.unwrap();
        }
        feed();
        client
            .put_object()
            .bucket("bucket")
            .key("after")
            .body(ByteStream::from_static(b"x"))
            .send()
            .await
            .unwrap();
        for key in &stored {
            client.head_object().bucket("bucket").key(key).send().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_without_room_recovers() {
    let server = limitable();
    let size = || fs::metadata(server.root().join("index.redb")).unwrap().len();
    recovers(&server, || limit_files(&server, &size().to_string()), || limit_files(&server, "unlimited"))
        .await;

    let directory = tempfile::tempdir().unwrap();
    if let Some(disk) = SmallDisk::mount(directory.path().join("disk"), 12) {
        let root = disk.0.join("store");
        let server = Server::start_in(directory, root, |command| command);
        let ballast = disk.0.join("ballast");
        let starve = || {
            let mut file = fs::File::create(&ballast).unwrap();
            while file.write_all(&[0; 4096]).is_ok() {}
        };
        recovers(&server, starve, || fs::remove_file(&ballast).unwrap()).await;
    }
}

/// The most memory the server ever held, in bytes.
pub fn peak_memory(server: &Server) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process_id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_the_file() {
    const SIZE: usize = 256 << 20;
    let server = Server::start();
    server.with_bucket().await;
    let transfer = |key: &str, size: usize| {
        let length = size.to_string();
        let headers = [("content-length", length.as_str())];
        let url = server.presign(Method::Put, key, &headers);
        let mut stream = TcpStream::connect(server.address()).unwrap();
        let target = &url[url[7..].find('/').unwrap() + 7..];
        let head = format!(
            "PUT {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n",
            server.address()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let piece = vec![b'x'; 1 << 20];
        for from in (0..size).step_by(piece.len()) {
            stream.write_all(&piece[..piece.len().min(size - from)]).unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

        let url = server.presign(Method::Get, key, &[]);
        let target = &url[url[7..].find('/').unwrap() + 7..];
        let mut stream = TcpStream::connect(server.address()).unwrap();
        let head =
            format!("GET {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", server.address());
        stream.write_all(head.as_bytes()).unwrap();
        let received = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        assert!(received >= size as u64);
    };
    transfer("small", 4 << 20);
    let before = peak_memory(&server);
    transfer("large", SIZE);
    let grown = peak_memory(&server) - before;
    assert!(grown < 16 << 20, "grew by {grown} bytes for {SIZE}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_ends_whole_though_its_object_is_deleted_meanwhile() {
    let server = Server::start();
    let client = server.with_bucket().await;
    // In parts: the files of the later ones are not open yet when the object goes.
    let bytes = body(5, 24 << 20);
    let upload =
        client.create_multipart_upload().bucket("bucket").key("k").send().await.unwrap().upload_id.unwrap();
    let mut parts = CompletedMultipartUpload::builder();
    for (number, piece) in (1..).zip(bytes.chunks(6 << 20)) {
        let part = client.upload_part().bucket("bucket").key("k").upload_id(&upload).part_number(number);
        let tag = part.body(piece.to_vec().into()).send().await.unwrap().e_tag;
        parts = parts.parts(CompletedPart::builder().part_number(number).set_e_tag(tag).build());
    }
    let complete = client.complete_multipart_upload().bucket("bucket").key("k").upload_id(&upload);
    complete.multipart_upload(parts.build()).send().await.unwrap();
    let url = server.presign(Method::Get, "k", &[]);
    let target = &url[url[7..].find('/').unwrap() + 7..];
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let head = format!("GET {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", server.address());
    stream.write_all(head.as_bytes()).unwrap();
    let mut start = vec![0; 1000];
    stream.read_exact(&mut start).unwrap();
    client.delete_object().bucket("bucket").key("k").send().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    start.extend(rest);
    assert!(start.ends_with(&bytes));
    for _ in 0..500 {
        if blobs(&server) == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the bytes stayed");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_at_a_time_and_a_clean_end_on_sigterm() {
    let mut server = Server::start();
    let client = server.with_bucket().await;
    let mode = |path: std::path::PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(server.directory.path().join("credentials")), 0o600);
    assert_eq!(mode(server.root().to_owned()), 0o700);
    let second = Command::new(env!("CARGO_BIN_EXE_pg_storage_local_store"))
        .args(["--listen", "127.0.0.1:0", "--root"])
        .arg(server.root())
        .arg("--credentials")
        .arg(server.directory.path().join("credentials"))
        .output()
        .unwrap();
    assert!(!second.status.success());
    assert!(!String::from_utf8_lossy(&second.stdout).contains("listening"), "ready, and then not");
    client.put_object().bucket("bucket").key("k").body(ByteStream::from_static(b"x")).send().await.unwrap();
    assert!(server.terminate());
    let beyond = Command::new(env!("CARGO_BIN_EXE_pg_storage_local_store"))
        .args(["--listen", "0.0.0.0:0", "--root"])
        .arg(server.root())
        .arg("--credentials")
        .arg(server.directory.path().join("credentials"))
        .output()
        .unwrap();
    assert!(!beyond.status.success());
    assert!(String::from_utf8_lossy(&beyond.stderr).contains("loopback"));
}
