//! Sends bytes: an object, or a range of it, as a stream that holds one piece in memory.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use s3s::dto::StreamingBlob;

use crate::blobs::{Blobs, Pinned};
use crate::failure::Outcome;
use crate::index::objects;
use crate::index::records::{Object, Segment};
use crate::store::Store;

/// Bytes read from disk at a time.
const PIECE: u64 = 256 * 1024;

/// Finds an object and holds on to its bytes, so that they can be read to the end whatever is deleted meanwhile.
pub fn hold(
    store: &Store,
    find: impl Fn(&redb::ReadTransaction) -> Outcome<Object>,
) -> Outcome<(Object, Pinned)> {
    loop {
        let object = store.index.read(&find)?;
        let pinned = store.blobs.pin(object.segments.iter().map(|segment| segment.blob).collect());
        // Unchanged after pinning means pinned before anything could remove the bytes.
        if store.index.read(&find)?.segments == object.segments {
            return Ok((object, pinned));
        }
    }
}

/// [`hold`] for a bucket and a key.
pub fn hold_key(store: &Store, bucket: &str, key: &str) -> Outcome<(Object, Pinned)> {
    hold(store, |transaction| objects::get(transaction, bucket, key))
}

struct Reader {
    blobs: Arc<Blobs>,
    /// What is still to be sent: blob, offset, length; last first.
    rest: Vec<(Segment, Range<u64>)>,
    open: Option<File>,
    _pinned: Pinned,
}

impl Reader {
    fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        let Some((segment, range)) = self.rest.last_mut() else { return Ok(None) };
        let file = match &mut self.open {
            Some(file) => file,
            none => {
                let mut file = self.blobs.read(segment.blob)?;
                file.seek(SeekFrom::Start(range.start))?;
                none.insert(file)
            }
        };
        let length = PIECE.min(range.end - range.start);
        let mut piece = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        let read = file.take(length).read_to_end(&mut piece)? as u64;
        if read < length {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        range.start += read;
        if range.start == range.end {
            self.rest.pop();
            self.open = None;
        }
        Ok(Some(piece.into()))
    }
}

/// The bytes of `range` of an object.
pub fn stream(blobs: &Arc<Blobs>, object: &Object, range: Range<u64>, pinned: Pinned) -> StreamingBlob {
    let mut rest = Vec::new();
    let mut start = 0;
    for segment in &object.segments {
        let end = start + segment.size;
        let (from, to) = (range.start.max(start), range.end.min(end));
        if from < to {
            rest.push((*segment, from - start..to - start));
        }
        start = end;
    }
    rest.reverse();
    let reader = Reader { blobs: Arc::clone(blobs), rest, open: None, _pinned: pinned };
    StreamingBlob::wrap(stream::try_unfold(reader, |mut reader| async move {
        let (piece, reader) = tokio::task::spawn_blocking(move || (reader.next(), reader)).await?;
        Ok::<_, std::io::Error>(piece?.map(|piece| (piece, reader)))
    }))
}
