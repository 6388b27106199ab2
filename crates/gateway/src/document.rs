//! S3's XML documents as texts: how a bucket's settings are kept.

use s3s::xml::{Deserialize, Deserializer, Serialize, Serializer};
use s3s::{S3Result, s3_error};

use crate::failure::{Failure, Outcome};

/// The document as XML.
pub fn write(document: &impl Serialize) -> S3Result<String> {
    let mut bytes = Vec::new();
    document
        .serialize(&mut Serializer::new(&mut bytes))
        .map_err(|error| s3_error!(error, InternalError, "a document could not be written"))?;
    String::from_utf8(bytes).map_err(|error| s3_error!(error, InternalError, "a document is not UTF-8"))
}

/// A document that [`write()`] wrote.
pub fn read<T: for<'xml> Deserialize<'xml>>(text: &str) -> Outcome<T> {
    T::deserialize(&mut Deserializer::new(text.as_bytes())).map_err(|error| Failure::Record(Box::new(error)))
}
