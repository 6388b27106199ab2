//! Uploads by form: a request whose size is a range.

use std::rc::Rc;

use pg_storage_core::content_type::ContentType;
use pg_storage_core::error::Token;
use pg_storage_core::presign;
use pgrx::JsonB;
use pgrx::datum::TimestampWithTimeZone;
use uuid::Uuid;

use super::examine::capabilities;
use super::request::{Wanted, open_placed};
use crate::bucket::Bucket;
use crate::error::{Failure, Result};
use crate::{catalog, config, session};

/// What the client gets.
pub struct Form {
    /// What is confirmed later.
    pub upload_id: pgrx::Uuid,
    /// The file to be.
    pub file_id: pgrx::Uuid,
    /// Where to post it.
    pub url: String,
    /// The form's fields.
    pub fields: JsonB,
    /// When it ends.
    pub expires_at: TimestampWithTimeZone,
}

/// Inserts the request as the caller and signs a form. The declared size is the most that the form takes.
///
/// # Errors
/// `NOT_CONFIGURED` where the store was not seen to keep to its forms, and those of a request by PUT.
pub fn open_form(bucket: &Rc<Bucket>, wanted: &Wanted<'_>) -> Result<Form> {
    let opened = open_placed(bucket, &wanted.declared, &wanted.metadata)?;
    let config = config::current()?;
    let place = opened.named()?;
    let capabilities = capabilities(&config, &place.physical_name)?;
    if !capabilities.has_forms() {
        return Err(Failure::new(Token::NotConfigured, "the store takes no uploads by form")
            .detail("It was not seen to refuse what a form does not permit.")
            .hint("Use storage.request_upload_url(); storage.check() tries the store again."));
    }
    catalog::run_as_owner("SELECT storage_private.place_form($1)", &[opened.id.into()])?;
    let id = Uuid::from_bytes(*opened.id.as_bytes());
    let content_type = ContentType::parse(wanted.declared.content_type)?;
    let form = presign::Form {
        bucket: &place.physical_name,
        key: &place.object_key,
        content_type: &content_type,
        max_size: wanted.declared.size.unsigned_abs(),
        expires: opened.created_at.seconds_until(opened.expires_at),
        mark: capabilities.marked().then_some(&id),
        cache_control: opened.cache_control,
    };
    let signed = session::with_signer(&config, |signer| signer.form(&form, opened.created_at.signing()))?;
    let fields = signed.fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    Ok(Form {
        upload_id: opened.id,
        file_id: opened.file_id,
        url: signed.url,
        fields: JsonB(serde_json::Value::Object(fields)),
        expires_at: opened.expires_at.column()?,
    })
}
