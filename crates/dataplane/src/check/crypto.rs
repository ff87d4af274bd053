//! What checks can do in TLS: ring's algorithms, and those that OpenSSL takes and ring lacks.
//!
//! ring has no P-521, neither for keys and signatures nor for the key exchange, and its verifiers take RSA-PSS signatures
//! only from keys of type rsaEncryption, not from those of type id-RSASSA-PSS (RFC 4055 §1.2). Ed448, X448, and the key
//! exchanges of TLS 1.2 without ECDHE stay out: [`LACKS`].

use std::sync::{Arc, LazyLock};

use p521::PublicKey;
use p521::ecdh::EphemeralSecret;
use p521::ecdsa::signature::hazmat::PrehashVerifier;
use p521::ecdsa::{Signature, VerifyingKey};
use p521::elliptic_curve::Generate;
use p521::elliptic_curve::sec1::ToSec1Point;
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, SharedSecret, SupportedKxGroup, WebPkiSupportedAlgorithms, ring,
};
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
use rustls::{Error, NamedGroup, PeerMisbehaved, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// What a backend may require and no check here can do. HAProxy's checks can, because they use OpenSSL.
pub(super) const LACKS: &str = "Ed448, X448, and key exchange by DHE or static RSA";

pub(super) type SignatureAlgorithm = &'static dyn SignatureVerificationAlgorithm;

/// The cryptography that every check over TLS uses.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = ring::default_provider();
        // Last, so that it is used only with a backend that takes nothing else.
        provider.kx_groups.push(&Secp521r1);
        provider.signature_verification_algorithms = with_more(provider.signature_verification_algorithms);
        Arc::new(provider)
    });
    PROVIDER.clone()
}

/// What verifies the signature of a handshake by the certificate's key where rustls cannot choose: a key of type
/// id-RSASSA-PSS may say in many ways which hashes it is for, and those are no matter once the scheme was agreed on.
pub(super) fn rsa_pss_scheme(scheme: SignatureScheme) -> Option<SignatureAlgorithm> {
    let (_, rsa, _) = RSA_PSS_KEYS.into_iter().find(|(tls13, ..)| SignatureScheme::from(*tls13) == scheme)?;
    let ring = ring::default_provider().signature_verification_algorithms;
    ring.mapping.iter().find(|(scheme, _)| *scheme == rsa)?.1.first().copied()
}

/// TLS 1.3's names of RSA-PSS with a key of its own type (RFC 8446 §4.2.3, rsa_pss_pss_*), which rustls has no names for,
/// those for other RSA keys, and the algorithm identifiers, which name the hash.
const RSA_PSS_KEYS: [(u16, SignatureScheme, AlgorithmIdentifier); 3] = [
    (0x0809, SignatureScheme::RSA_PSS_SHA256, alg_id::RSA_PSS_SHA256),
    (0x080a, SignatureScheme::RSA_PSS_SHA384, alg_id::RSA_PSS_SHA384),
    (0x080b, SignatureScheme::RSA_PSS_SHA512, alg_id::RSA_PSS_SHA512),
];

/// The object identifier id-RSASSA-PSS, 1.2.840.113549.1.1.10, without parameters: a key for any hash (RFC 4055 §3.1).
const RSA_PSS_ANY: AlgorithmIdentifier =
    AlgorithmIdentifier::from_slice(b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a");

/// One line of a table: the scheme `tls13`, with keys of the type `key`, verified as ring verifies `rsa`.
fn rsa_pss(
    ring: &WebPkiSupportedAlgorithms,
    tls13: u16,
    rsa: SignatureScheme,
    key: AlgorithmIdentifier,
) -> Option<(SignatureScheme, &'static [SignatureAlgorithm])> {
    let (_, algorithms) = ring.mapping.iter().find(|(scheme, _)| *scheme == rsa)?;
    let algorithm: SignatureAlgorithm = Box::leak(Box::new(RsaPssKey { key, verify: *algorithms.first()? }));
    Some((SignatureScheme::from(tls13), vec![algorithm].leak()))
}

/// ring's algorithms and the others; made once, for the life of the process.
fn with_more(ring: WebPkiSupportedAlgorithms) -> WebPkiSupportedAlgorithms {
    let mut all = ring.all.to_vec();
    let mut mapping = ring.mapping.to_vec();
    // A CA may sign by any hash. In TLS 1.3 P-521 goes with SHA-512 only; in TLS 1.2 a scheme names no curve, and all
    // algorithms of a scheme are tried (RFC 8446 §4.2.3).
    let p521: [(SignatureScheme, SignatureAlgorithm); 3] = [
        (SignatureScheme::ECDSA_NISTP521_SHA512, &P521_SHA512),
        (SignatureScheme::ECDSA_NISTP384_SHA384, &P521_SHA384),
        (SignatureScheme::ECDSA_NISTP256_SHA256, &P521_SHA256),
    ];
    for (scheme, algorithm) in p521 {
        all.push(algorithm);
        match mapping.iter_mut().find(|(known, _)| *known == scheme) {
            Some((_, algorithms)) => *algorithms = [*algorithms, &[algorithm]].concat().leak(),
            None => mapping.push((scheme, vec![algorithm].leak())),
        }
    }
    for (tls13, rsa, hash) in RSA_PSS_KEYS {
        for (key, offered) in [(RSA_PSS_ANY, true), (hash, false)] {
            let line = rsa_pss(&ring, tls13, rsa, key);
            all.extend(line.iter().flat_map(|(_, algorithms)| *algorithms));
            mapping.extend(line.filter(|_| offered));
        }
    }
    WebPkiSupportedAlgorithms { all: all.leak(), mapping: mapping.leak() }
}

/// RSA-PSS with a key of its own type. The key itself has the form of any RSA key, so ring verifies by it.
#[derive(Debug)]
struct RsaPssKey {
    key: AlgorithmIdentifier,
    verify: SignatureAlgorithm,
}

impl SignatureVerificationAlgorithm for RsaPssKey {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        self.verify.verify_signature(key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.key
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.verify.signature_alg_id()
    }
}

/// ECDSA by a key on P-521.
#[derive(Debug)]
struct P521 {
    hash: fn(&[u8]) -> Vec<u8>,
    signature: AlgorithmIdentifier,
}

const P521_SHA256: P521 = P521 { hash: |m| Sha256::digest(m).to_vec(), signature: alg_id::ECDSA_SHA256 };
const P521_SHA384: P521 = P521 { hash: |m| Sha384::digest(m).to_vec(), signature: alg_id::ECDSA_SHA384 };
const P521_SHA512: P521 = P521 { hash: |m| Sha512::digest(m).to_vec(), signature: alg_id::ECDSA_SHA512 };

/// Bytes of a number on the curve.
const P521_BYTES: usize = 66;

impl SignatureVerificationAlgorithm for P521 {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_sec1_bytes(key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        // The hash counts as a number (FIPS 186-5 §6.4.1). With zeros before it, it is the same one, and is not taken for
        // too weak: the crate refuses hashes of less than half the curve's size, and OpenSSL signs by SHA-256 by default.
        let hash = (self.hash)(message);
        let mut number = [0; P521_BYTES];
        let from = number.len().saturating_sub(hash.len());
        number.iter_mut().skip(from).zip(&hash).for_each(|(to, byte)| *to = *byte);
        key.verify_prehash(&number, &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P521
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }
}

/// Key exchange on P-521.
#[derive(Debug)]
struct Secp521r1;

impl SupportedKxGroup for Secp521r1 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let secret = EphemeralSecret::try_generate().map_err(|_| Error::FailedToGetRandomBytes)?;
        let public = secret.public_key().to_sec1_point(false).as_bytes().to_vec();
        Ok(Box::new(Exchange { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

struct Exchange {
    secret: EphemeralSecret,
    public: Vec<u8>,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        // Only points without compression (RFC 8446 §4.2.8.2).
        let peer = Some(peer).filter(|peer| peer.first() == Some(&4));
        let peer = peer.and_then(|peer| PublicKey::from_sec1_bytes(peer).ok());
        let peer = peer.ok_or(Error::from(PeerMisbehaved::InvalidKeyShare))?;
        Ok(SharedSecret::from(self.secret.diffie_hellman(&peer).raw_secret_bytes().as_slice()))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}
