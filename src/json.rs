//! JSON of the caller's, which is kept and never looked into: every digit and every level as PostgreSQL has it, where a
//! parser of ours would round the one and refuse the other.

#![allow(unsafe_code)]

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::datum::{Datum, UnboxDatum};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{FromDatum, direct_function_call, pg_sys};

/// A jsonb, spelled as its output function does.
pub struct Jsonb(String);

impl Jsonb {
    /// An object with nothing in it.
    pub fn empty_object() -> Self {
        Self("{}".to_owned())
    }

    /// One that PostgreSQL has spelled.
    pub fn spelled(text: String) -> Self {
        Self(text)
    }

    /// Whether it is an object.
    pub fn is_object(&self) -> bool {
        self.0.starts_with('{')
    }

    /// Its text, which casts back to the same.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromDatum for Jsonb {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: a built-in function of one jsonb, which the caller says the datum is; it gives a string of its own.
        let text = unsafe { direct_function_call::<&std::ffi::CStr>(pg_sys::jsonb_out, &[Some(datum)]) };
        text.map(|text| Self(text.to_string_lossy().into_owned()))
    }
}

// SAFETY: an argument is what SQL says it is, a jsonb.
unsafe impl<'fcx> ArgAbi<'fcx> for Jsonb {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: as above. A function with such an argument is STRICT, or takes an Option; it is never asked for a NULL.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or_else(Self::empty_object)
    }
}

// SAFETY: the value owns its text.
unsafe impl UnboxDatum for Jsonb {
    type As<'src> = Self;

    unsafe fn unbox<'src>(datum: Datum<'src>) -> Self
    where
        Self: 'src,
    {
        // SAFETY: an element of an array of jsonb that is not NULL.
        unsafe { Self::from_datum(datum.sans_lifetime(), false) }.unwrap_or_else(Self::empty_object)
    }
}

// SAFETY: it reads and is a jsonb.
unsafe impl SqlTranslatable for Jsonb {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Jsonb);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}
