//! A proposal that is too large for one entry: its pieces go into the log one after the other, and the last entry applies
//! them at once. Until then nothing has changed.

use std::time::Duration;

use prost::Message;
use sha2::{Digest as _, Sha256};
use trestle_api::status::Failure;
use trestle_api::storage;
use trestle_model::defaults::STAGED_MAX;
use trestle_model::{Command, Proposal};

use crate::error::Error;
use crate::peer_calls::AppliedProposal;
use crate::propose::Proposals;
use crate::store::PROPOSAL_MAX;

/// Bytes of a piece: what is left of an entry beside the piece's own fields and where it comes from.
const PIECE_MAX: usize = PROPOSAL_MAX - 256;

/// Recognises the bytes of a proposal: the first eight bytes of their SHA-256.
fn upload(bytes: &[u8]) -> u64 {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

impl Proposals {
    /// Proposes a restore that takes more than one entry. `within` is for each entry.
    pub(crate) async fn propose_in_pieces(
        &self,
        proposal: Proposal,
        within: Duration,
    ) -> Result<AppliedProposal, Error> {
        let bytes = storage::Proposal::from(&proposal).encode_to_vec();
        if bytes.len() > STAGED_MAX {
            return Err(Failure::TooLarge { size: bytes.len(), max: STAGED_MAX }.into());
        }
        // A document with mistakes must not cost an entry for each of its pieces.
        let view = self.reads.read(within).await?;
        view.state.decide(view.applied + 1, &proposal.command)?;
        let upload = upload(&bytes);
        let mut pieces = 0;
        for piece in bytes.chunks(PIECE_MAX) {
            let command = Command::StagePiece { upload, number: pieces, bytes: piece.into() };
            self.propose_one(Proposal { origin: None, request: None, command }, within).await?;
            pieces += 1;
        }
        let command = Command::ApplyStaged { upload, pieces };
        let origin = proposal.origin;
        self.propose_one(Proposal { origin, request: proposal.request, command }, within).await
    }
}
