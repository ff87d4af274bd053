//! What initial members ask and answer one another before there is a cluster. Each proves by an HMAC with the founding token that it has
//! that; a listener gets nothing from it. The question's nonce is in the answer's proof, so an answer that was kept is of no use, and
//! the answer says at which address it is, so one that was led elsewhere is found out.

use tonic::Status;
use trestle_api::peer::{self, FoundingState};
use trestle_api::status;
use trestle_identity::{CertificateFacts, FoundingSide, FoundingToken};
use trestle_model::defaults::INITIAL_MEMBERS_MAX;
use trestle_model::{ClusterId, HostPort, Invalid, KeyPin, Violation};

use super::own::Founding;
use crate::config::FoundingConfig;
use crate::this_member::ThisMember;

const NONCE: usize = 32;
/// Most bytes of an address that is read: a DNS name of full length and a port.
const ADDRESS_MAX: usize = 261;

/// What an initial member has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing, or nothing that can be understood, for this reason.
    None(String),
    /// It has no founding token.
    NoToken,
    /// It has another one, or somebody else answers who has none.
    OtherToken,
    /// Another member answers at its address: the one of that address.
    Elsewhere(String),
    /// Its configuration has other initial members: these.
    OtherMembers(Vec<String>),
    /// It is empty.
    Empty,
    /// It belongs to a cluster, with this authority as far as it knows.
    InCluster(ClusterId, Option<KeyPin>),
}

fn parts<'p>(first: &[&'p [u8]], members: &'p [String]) -> Vec<&'p [u8]> {
    first.iter().copied().chain(members.iter().map(String::as_bytes)).collect()
}

fn question_parts(question: &peer::DescribeFoundingRequest) -> Vec<&[u8]> {
    parts(&[question.nonce.as_slice(), question.peer_address.as_bytes()], &question.initial_members)
}

fn answer_proof_holds(
    token: &FoundingToken,
    nonce: &[u8],
    state: &[u8],
    answer: &peer::DescribeFoundingResponse,
) -> bool {
    token.is_proof(FoundingSide::Answer, &answer_parts(nonce, state, answer), &answer.proof)
}

fn answer_parts<'p>(
    nonce: &'p [u8],
    state: &'p [u8],
    answer: &'p peer::DescribeFoundingResponse,
) -> Vec<&'p [u8]> {
    let first = [
        nonce,
        state,
        answer.peer_address.as_bytes(),
        answer.cluster_id.as_bytes(),
        answer.authority.as_slice(),
    ];
    parts(&first, &answer.initial_members)
}

fn texts(members: &[HostPort]) -> Vec<String> {
    members.iter().map(ToString::to_string).collect()
}

/// A question of the member that advertises this address.
///
/// # Errors
/// When the system has no random bytes.
pub(super) fn question(
    token: &FoundingToken,
    own: &HostPort,
    members: &[HostPort],
) -> Result<peer::DescribeFoundingRequest, String> {
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(|error| format!("no random bytes: {error}"))?;
    let mut question = peer::DescribeFoundingRequest {
        nonce: nonce.to_vec(),
        peer_address: own.to_string(),
        initial_members: texts(members),
        proof: Vec::new(),
    };
    question.proof = token.proof(FoundingSide::Question, &question_parts(&question)).to_vec();
    Ok(question)
}

/// What an answer to a question comes to, of the initial member at an address.
pub(super) fn understood(
    token: &FoundingToken,
    question: &peer::DescribeFoundingRequest,
    asked: &HostPort,
    answer: peer::DescribeFoundingResponse,
) -> Answer {
    let (state, number) = (answer.state(), answer.state.to_be_bytes());
    match state {
        FoundingState::NoToken => return Answer::NoToken,
        FoundingState::OtherToken => return Answer::OtherToken,
        _ if !answer_proof_holds(token, &question.nonce, &number, &answer) => return Answer::OtherToken,
        _ if answer.peer_address != asked.as_str() => return Answer::Elsewhere(answer.peer_address),
        _ if answer.initial_members != question.initial_members => {
            return Answer::OtherMembers(answer.initial_members);
        }
        FoundingState::Empty => return Answer::Empty,
        FoundingState::InCluster => {}
        FoundingState::Unspecified => {
            return Answer::None("its answer is of a newer version: upgrade this member".to_owned());
        }
    }
    let authority = match answer.authority.as_slice() {
        [] => Ok(None),
        bytes => KeyPin::read(bytes).map(Some),
    };
    match (ClusterId::parse(&answer.cluster_id), authority) {
        (Ok(cluster), Ok(authority)) => Answer::InCluster(cluster, authority),
        (Err(rule), _) => Answer::None(format!("the cluster id in its answer {rule}")),
        (_, Err(rule)) => Answer::None(format!("the authority's key in its answer {rule}")),
    }
}

fn check(question: &peer::DescribeFoundingRequest) -> Result<(), Status> {
    let mut found = Vec::new();
    let mut wrong = |field: &str, value: usize, rule: String| found.push(Violation::new(field, value, rule));
    if question.nonce.len() != NONCE {
        wrong("nonce", question.nonce.len(), format!("must be {NONCE} bytes"));
    }
    if question.initial_members.len() > INITIAL_MEMBERS_MAX {
        let rule = format!("must be at most {INITIAL_MEMBERS_MAX}");
        wrong("initial_members", question.initial_members.len(), rule);
    }
    let addresses = question.initial_members.iter().chain([&question.peer_address]);
    if let Some(long) = addresses.map(String::len).find(|length| *length > ADDRESS_MAX) {
        wrong("initial_members", long, format!("must be of at most {ADDRESS_MAX} bytes each"));
    }
    if found.is_empty() { Ok(()) } else { Err(status::invalid(&Invalid(found))) }
}

fn answer(
    token: &FoundingToken,
    config: &FoundingConfig,
    local: &ThisMember,
    nonce: &[u8],
) -> peer::DescribeFoundingResponse {
    let identity = local.consensus.identity();
    let state = local.consensus.view().borrow().state.clone();
    let active = state.active_authority().filter(|_| !local.consensus.was_removed());
    let pin = active.and_then(|active| CertificateFacts::read(&active.certificate).ok());
    let state = if identity.is_some() { FoundingState::InCluster } else { FoundingState::Empty };
    let mut answer = peer::DescribeFoundingResponse {
        state: state.into(),
        peer_address: local.config.advertise_peer_address.to_string(),
        initial_members: texts(&config.members),
        cluster_id: identity.map(|identity| identity.cluster_id.to_string()).unwrap_or_default(),
        authority: pin.map(|facts| facts.pin.0.to_vec()).unwrap_or_default(),
        proof: Vec::new(),
    };
    let number = answer.state.to_be_bytes();
    answer.proof = token.proof(FoundingSide::Answer, &answer_parts(nonce, &number, &answer)).to_vec();
    answer
}

impl Founding {
    /// Answers whoever asks. Who has not the token learns whether this member has one.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a question that no member asks.
    pub(crate) fn answer(
        &self,
        local: &ThisMember,
        question: &peer::DescribeFoundingRequest,
    ) -> Result<peer::DescribeFoundingResponse, Status> {
        check(question)?;
        let alone = |state: FoundingState| {
            Ok(peer::DescribeFoundingResponse { state: state.into(), ..Default::default() })
        };
        let (Some(config), Some(token)) = (&self.config, self.token()) else {
            return alone(FoundingState::NoToken);
        };
        if !token.is_proof(FoundingSide::Question, &question_parts(question), &question.proof) {
            return alone(FoundingState::OtherToken);
        }
        Ok(answer(&token, config, local, &question.nonce))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(text: &str) -> HostPort {
        HostPort::parse(text).unwrap()
    }

    fn members() -> Vec<HostPort> {
        ["m1:7481", "m2:7481"].map(address).into()
    }

    fn token(byte: u8) -> FoundingToken {
        FoundingToken::new([byte; 16])
    }

    /// As a member makes one that has this token.
    fn answered(
        token: &FoundingToken,
        nonce: &[u8],
        change: impl Fn(&mut peer::DescribeFoundingResponse),
    ) -> peer::DescribeFoundingResponse {
        let mut answer = peer::DescribeFoundingResponse {
            state: FoundingState::Empty.into(),
            peer_address: "m2:7481".to_owned(),
            initial_members: texts(&members()),
            ..Default::default()
        };
        change(&mut answer);
        let number = answer.state.to_be_bytes();
        answer.proof = token.proof(FoundingSide::Answer, &answer_parts(nonce, &number, &answer)).to_vec();
        answer
    }

    #[test]
    fn an_answer_counts_only_to_its_question_by_its_token_and_at_its_address() {
        let (own, asked) = (address("m1:7481"), address("m2:7481"));
        let question = question(&token(1), &own, &members()).unwrap();
        let read = |answer| understood(&token(1), &question, &asked, answer);
        let good = answered(&token(1), &question.nonce, |_| {});
        assert_eq!(read(good.clone()), Answer::Empty);
        assert_eq!(read(answered(&token(2), &question.nonce, |_| {})), Answer::OtherToken);
        let earlier = super::question(&token(1), &own, &members()).unwrap();
        assert_ne!(earlier.nonce, question.nonce);
        assert_eq!(read(answered(&token(1), &earlier.nonce, |_| {})), Answer::OtherToken);
        // Changed on its way.
        let forged = peer::DescribeFoundingResponse {
            state: FoundingState::InCluster.into(),
            cluster_id: "0a".repeat(16),
            ..good.clone()
        };
        assert_eq!(read(forged), Answer::OtherToken);
        let unproved = peer::DescribeFoundingResponse { proof: Vec::new(), ..good };
        assert_eq!(read(unproved), Answer::OtherToken);
        // The question itself, sent back.
        let reflected = peer::DescribeFoundingResponse {
            proof: question.proof.clone(),
            ..answered(&token(1), &question.nonce, |_| {})
        };
        assert_eq!(read(reflected), Answer::OtherToken);
        // Led to another member.
        let elsewhere =
            answered(&token(1), &question.nonce, |answer| answer.peer_address = "m3:7481".to_owned());
        assert_eq!(read(elsewhere), Answer::Elsewhere("m3:7481".to_owned()));
        let other = answered(&token(1), &question.nonce, |answer| drop(answer.initial_members.pop()));
        assert_eq!(read(other), Answer::OtherMembers(vec!["m1:7481".to_owned()]));
        let joined = answered(&token(1), &question.nonce, |answer| {
            answer.state = FoundingState::InCluster.into();
            answer.cluster_id = "0a".repeat(16);
            answer.authority = vec![7; 32];
        });
        let cluster = ClusterId::parse(&"0a".repeat(16)).unwrap();
        assert_eq!(read(joined), Answer::InCluster(cluster, Some(KeyPin([7; 32]))));
        for state in [FoundingState::NoToken, FoundingState::OtherToken] {
            let alone = peer::DescribeFoundingResponse { state: state.into(), ..Default::default() };
            assert!(matches!(read(alone), Answer::NoToken | Answer::OtherToken));
        }
    }

    #[test]
    fn a_question_proves_its_token_and_has_bounds() {
        let asked = question(&token(1), &address("m1:7481"), &members()).unwrap();
        let proves = |token: &FoundingToken, question: &peer::DescribeFoundingRequest| {
            token.is_proof(FoundingSide::Question, &question_parts(question), &question.proof)
        };
        assert!(proves(&token(1), &asked) && !proves(&token(2), &asked));
        assert!(check(&asked).is_ok());
        let mut other = asked.clone();
        other.peer_address = "m9:7481".to_owned();
        assert!(!proves(&token(1), &other));
        let large = peer::DescribeFoundingRequest {
            nonce: vec![0; 31],
            peer_address: "a".repeat(262),
            initial_members: vec![String::new(); 8],
            proof: Vec::new(),
        };
        let told = check(&large).unwrap_err();
        for part in ["nonce", "at most 7", "at most 261 bytes"] {
            assert!(told.message().contains(part), "{}", told.message());
        }
    }
}
