//! Founding a cluster without a person: the members that each one's configuration names as the initial ones find one another, know one
//! another by a secret that all of them have, and the first-named founds as soon as all answer and none belongs to a cluster. The others
//! join by a token that comes from the same secret and is made by the entry that founds the cluster.
//!
//! No second cluster is founded: that takes an answer of every initial member, of this round, that it is empty. A member whose disk is lost
//! finds one that is not, or one that does not answer, and waits.

mod decide;
mod exchange;
mod follow;
mod own;
mod token_file;

use trestle_identity::FoundingToken;

pub(crate) use follow::{found_or_join, was_interrupted};
pub(crate) use own::Founding;
pub use token_file::write_founding_token;

/// A new founding token, of random bytes of the system.
///
/// # Errors
/// When the system has none.
pub fn new_founding_token() -> std::io::Result<FoundingToken> {
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(std::io::Error::other)?;
    Ok(FoundingToken::new(secret))
}
