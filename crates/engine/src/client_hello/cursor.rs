//! Reading fields one after the other, never beyond the end.

use std::ops::RangeInclusive;

use super::HelloError;

/// What is left of a row of fields.
pub(super) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `len` bytes.
    pub(super) fn bytes(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], HelloError> {
        let Some((bytes, rest)) = self.0.split_at_checked(len) else {
            return Err(HelloError::Cut { field, needed: len, left: self.0.len() });
        };
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn number8(&mut self, field: &'static str) -> Result<u8, HelloError> {
        let bytes = self.bytes(field, 1)?;
        Ok(bytes.first().copied().unwrap_or_default())
    }

    pub(super) fn number16(&mut self, field: &'static str) -> Result<u16, HelloError> {
        let bytes = self.bytes(field, 2)?;
        Ok(bytes.first_chunk().copied().map_or(0, u16::from_be_bytes))
    }

    /// Bytes behind a length of 8 bits, which must be one of `lengths`.
    pub(super) fn vector8(
        &mut self,
        field: &'static str,
        lengths: RangeInclusive<u16>,
    ) -> Result<&'a [u8], HelloError> {
        let len = u16::from(self.number8(field)?);
        self.content(field, len, lengths)
    }

    /// Bytes behind a length of 16 bits, which must be one of `lengths`.
    pub(super) fn vector16(
        &mut self,
        field: &'static str,
        lengths: RangeInclusive<u16>,
    ) -> Result<&'a [u8], HelloError> {
        let len = self.number16(field)?;
        self.content(field, len, lengths)
    }

    fn content(
        &mut self,
        field: &'static str,
        len: u16,
        lengths: RangeInclusive<u16>,
    ) -> Result<&'a [u8], HelloError> {
        if !lengths.contains(&len) {
            let (least, most) = lengths.into_inner();
            return Err(HelloError::Length { field, len, least, most });
        }
        self.bytes(field, usize::from(len))
    }
}
