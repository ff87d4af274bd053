//! Who members and users are: names, keys, authorities, certificates, and TLS with them.

#![forbid(unsafe_code)]

mod authority;
mod certificate;
mod files;
mod name;
mod private_key;
mod request;
pub mod tls;
mod token_text;
mod verify;

pub use authority::{CertificateAuthority, LeafName, SigningError};
pub use certificate::{CertificateFacts, from_pem, to_pem};
pub use files::{read_private, write_private};
pub use name::{CertificateSubject, SpiffeId, admin_host};
pub use private_key::PrivateKey;
pub use request::{CertificateRequest, RequestError};
pub use token_text::{TOKEN_ENDPOINTS_MAX, TokenText, TokenTextError, secret_hash};
pub use verify::{
    AuthenticatedMember, AuthenticatedUser, CertificateRefusal, FoundAuthority, PeerStanding, PeerTrust,
    check_peer, check_user, member_of, time_text, verify_authority, verify_member, verify_own, verify_peer,
    verify_user,
};
