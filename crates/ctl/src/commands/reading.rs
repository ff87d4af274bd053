//! What commands that read have in common.

use trestle_api::v1;

use crate::args::ReadArgs;
use crate::error::Error;

/// Most resources that the API puts on a page.
pub(super) const PAGE_SIZE: i32 = 1000;

/// The consistency that a reader asks for, as the API has it.
pub(super) fn consistency(read: &ReadArgs) -> i32 {
    let wanted = if read.local { v1::Consistency::Local } else { v1::Consistency::Linearizable };
    wanted.into()
}

/// The token of the next page, or `None` on the last one.
///
/// # Errors
/// When the member would send the same page for ever.
pub(super) fn next_page(before: &str, next: String) -> Result<Option<String>, Error> {
    if next.is_empty() {
        return Ok(None);
    }
    if next == before {
        return Err(Error::BadAnswer(format!("the member names page \"{next}\" as the one after itself")));
    }
    Ok(Some(next))
}
