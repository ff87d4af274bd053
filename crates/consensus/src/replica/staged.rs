//! Applying a proposal that came in pieces.

use std::sync::Arc;

use prost::Message as _;
use trestle_api::storage;
use trestle_model::{Command, Invalid, Machine, Origin, Proposal, Refusal, Violation};

/// The proposal to apply for one from the log: itself, or what was staged.
pub(crate) fn resolved(machine: &mut Machine, proposal: Arc<Proposal>) -> Result<Arc<Proposal>, Refusal> {
    let Command::ApplyStaged { upload, pieces } = proposal.command else { return Ok(proposal) };
    // A repeated request is answered as it was; its pieces are gone by then.
    if proposal.request.as_ref().is_some_and(|request| machine.repeated(request).is_some()) {
        return Ok(proposal);
    }
    let bytes = machine.take_staged(upload, pieces)?;
    let wrong = |rule: String| Refusal::Invalid(Invalid(vec![Violation::new("document", "", rule)]));
    let staged = storage::Proposal::decode(&bytes[..]).map_err(|error| wrong(error.to_string()))?;
    let staged = Proposal::try_from(staged).map_err(|error| wrong(error.to_string()))?;
    if !matches!(staged.command, Command::Restore { .. }) || staged.request != proposal.request {
        return Err(wrong("must be one whole configuration".to_owned()));
    }
    // The leader that wrote the last entry says when; the pieces were made where the request came in.
    let origin = staged.origin.map(|origin| Origin {
        time_ms: proposal.origin.as_ref().map_or(origin.time_ms, |written| written.time_ms),
        ..origin
    });
    Ok(Arc::new(Proposal { origin, ..staged }))
}
