//! Rows that PostgreSQL hands to triggers and takes from functions, each formed once: pgrx copies the whole row for every
//! column that is set.

#![allow(unsafe_code)]

use std::ffi::CString;

use pgrx::prelude::*;
use pgrx::{AllocatedByRust, IntoDatum, PgTupleDesc};

use crate::error::{Failure, Result};

/// The row that a trigger before an INSERT is given, and may change.
pub struct NewRow<'t> {
    columns: PgTupleDesc<'t>,
    values: Vec<Option<pg_sys::Datum>>,
}

impl<'t> NewRow<'t> {
    /// The row of a trigger that is fired for each row of an INSERT.
    pub fn of(trigger: &'t PgTrigger<'t>) -> Result<Self> {
        let data = trigger.trigger_data();
        if !trigger.event().fired_for_row() || !trigger.event().fired_by_insert() {
            return Err(Failure::internal("this trigger is for each row of an INSERT"));
        }
        // SAFETY: such a trigger has a relation and a row of it, both of which outlive the call; the arrays have a place for
        // each column.
        unsafe {
            let columns = PgTupleDesc::from_pg_unchecked((*data.tg_relation).rd_att);
            let mut values = vec![pg_sys::Datum::null(); columns.len()];
            let mut nulls = vec![true; columns.len()];
            pg_sys::heap_deform_tuple(
                data.tg_trigtuple,
                columns.as_ptr(),
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            let values =
                values.into_iter().zip(nulls).map(|(value, null)| (!null).then_some(value)).collect();
            Ok(Self { columns, values })
        }
    }

    /// The value of a column.
    pub fn get<T: FromDatum + IntoDatum>(&self, column: &str) -> Result<Option<T>> {
        let (at, type_oid) = self.find(column)?;
        Self::agree::<T>(column, type_oid)?;
        let value = self.values.get(at).copied().flatten();
        // SAFETY: the datum is of the column's type, which is the one that is read.
        Ok(value.and_then(|value| unsafe { T::from_polymorphic_datum(value, false, type_oid) }))
    }

    /// Gives a column another value.
    pub fn set<T: IntoDatum>(&mut self, column: &str, value: T) -> Result<()> {
        let (at, type_oid) = self.find(column)?;
        Self::agree::<T>(column, type_oid)?;
        self.put(at, value.into_datum())
    }

    /// Gives a column the value that its type spells like this.
    pub fn set_spelled(&mut self, column: &str, value: &str) -> Result<()> {
        let (at, type_oid) = self.find(column)?;
        let spelled = CString::new(value).map_err(|_| Failure::internal("a value has a NUL in it"))?;
        // SAFETY: the input function of the column's type is called with a string, as COPY does.
        let value = unsafe {
            let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
            pg_sys::getTypeInputInfo(type_oid, &raw mut input, &raw mut parameter);
            pg_sys::OidInputFunctionCall(input, spelled.as_ptr().cast_mut(), parameter, -1)
        };
        self.put(at, Some(value))
    }

    /// The row as PostgreSQL takes it back.
    pub fn formed(self) -> Result<PgHeapTuple<'t, AllocatedByRust>> {
        form(self.columns, self.values)
    }

    fn put(&mut self, at: usize, value: Option<pg_sys::Datum>) -> Result<()> {
        let place = self.values.get_mut(at).ok_or_else(|| Failure::internal("a row has too few columns"))?;
        *place = value;
        Ok(())
    }

    fn find(&self, column: &str) -> Result<(usize, pg_sys::Oid)> {
        self.columns
            .iter()
            .position(|attribute| attribute.name() == column)
            .and_then(|at| self.columns.get(at).map(|attribute| (at, attribute.atttypid)))
            .ok_or_else(|| Failure::internal(format!("a row has no column {column}")))
    }

    fn agree<T: IntoDatum>(column: &str, type_oid: pg_sys::Oid) -> Result<()> {
        if T::is_compatible_with(type_oid) {
            return Ok(());
        }
        Err(Failure::internal(format!("the column {column} is of another type than it was")))
    }
}

/// A value of the composite type that the function being called returns; `values` are those of its columns, in order.
pub fn returned(
    call: pg_sys::FunctionCallInfo,
    values: Vec<Option<pg_sys::Datum>>,
) -> Result<PgHeapTuple<'static, AllocatedByRust>> {
    // SAFETY: PostgreSQL called the function with this; a composite type has a row type, of which a copy is taken.
    let columns = unsafe {
        let type_oid = pg_sys::get_func_rettype((*(*call).flinfo).fn_oid);
        PgTupleDesc::for_composite_type_by_oid(type_oid)
    };
    let columns = columns.ok_or_else(|| Failure::internal("a function returns no type"))?;
    let mut values = values.into_iter();
    // A column that an update took away keeps its place.
    let placed: Vec<_> = columns
        .iter()
        .map(|column| if column.attisdropped { None } else { values.next().flatten() })
        .collect();
    if values.next().is_some() {
        return Err(Failure::internal("a function returns a type with fewer columns than it knows"));
    }
    form(columns, placed)
}

fn form<'t>(
    columns: PgTupleDesc<'t>,
    values: Vec<Option<pg_sys::Datum>>,
) -> Result<PgHeapTuple<'t, AllocatedByRust>> {
    // SAFETY: each value is of its column's type: read from such a row, held against the type, or of the declared columns
    // of a type of this extension.
    unsafe { PgHeapTuple::from_datums(columns, values) }
        .map_err(|error| Failure::internal(format!("a row could not be formed: {error}")))
}
