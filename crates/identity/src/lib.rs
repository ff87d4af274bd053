//! Who members and users are: names, keys, authorities, certificates, and TLS with them.

#![forbid(unsafe_code)]

mod authority;
mod certificate;
mod files;
mod founding_text;
mod name;
mod private_key;
mod request;
mod sealed_key;
pub mod tls;
mod token_text;
mod verification_time;
mod verify;

pub use authority::{CertificateAuthority, LeafName, SigningError};
pub use certificate::{AUTHORITIES_HEADER, CertificateFacts, authorities_mark, from_pem, to_pem};
pub use files::{lock_directory, read_private, write_private};
pub use founding_text::{FoundingSide, FoundingTextError, FoundingToken};
pub use name::{CertificateSubject, SpiffeId, admin_host};
pub use private_key::PrivateKey;
pub use request::{CertificateRequest, RequestError};
pub use sealed_key::{PASSPHRASE_MIN, SealError, SealedKey};
pub use token_text::{TOKEN_ENDPOINTS_MAX, TokenText, TokenTextError, secret_hash};
pub use verification_time::VerificationTime;
pub use verify::{
    AuthenticatedMember, AuthenticatedUser, CertificateRefusal, FoundAuthority, PeerStanding, PeerTrust,
    ShownChain, check_authority, check_peer, check_user, is_signed_by, member_of, time_text,
    verify_authority, verify_called_member, verify_issued, verify_member, verify_own, verify_peer,
    verify_user,
};
