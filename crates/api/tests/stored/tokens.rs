use std::fmt::Write;

use proptest::prelude::*;
use prost::Message;
use trestle_api::storage;
use trestle_model::defaults::{NUMBER_MAX, TIME_MS_MAX};
use trestle_model::{
    ClusterId, Command, CrossCertificate, FoundingIdentities, HostPort, JoinAs, JoinTokenSpec, KeyPin,
    Machine, MemberId, MemberName, MemberSpec, Proposal, SecretHash, TokenId, TransportSecurity,
};

use crate::strategies::{choice, member_spec};

fn hash() -> impl Strategy<Value = [u8; 32]> {
    any::<u8>().prop_map(|byte| [byte; 32])
}

fn id() -> impl Strategy<Value = TokenId> {
    (0..4_u8).prop_map(|byte| TokenId([byte; 8]))
}

/// The next authority, mostly of the next generation.
fn authority() -> impl Strategy<Value = Command> {
    let certificate = || proptest::collection::vec(any::<u8>(), 1..4).prop_map(std::sync::Arc::from);
    let cross =
        (0..4_u32, certificate()).prop_map(|(signer, certificate)| CrossCertificate { signer, certificate });
    (0..6_u32, certificate(), proptest::option::of(cross), 0..3_u64).prop_map(
        |(generation, certificate, cross, maker)| {
            let maker = (maker > 0).then_some(MemberId(maker));
            Command::AddAuthority { generation, certificate, cross, maker }
        },
    )
}

fn time() -> impl Strategy<Value = u64> {
    0..=TIME_MS_MAX
}

pub(crate) fn token() -> impl Strategy<Value = JoinTokenSpec> {
    (id(), hash(), choice(), 1..=100_u32, time(), 0..4_u32).prop_map(
        |(id, secret_hash, joins_as, uses, not_after_ms, authority)| {
            let secret_hash = SecretHash(secret_hash);
            JoinTokenSpec { id, secret_hash, joins_as, uses, not_after_ms, authority }
        },
    )
}

/// Commands about tokens, of which some find one another.
pub(crate) fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        (token(), time()).prop_map(|(token, time_ms)| Command::PutToken { token, time_ms }),
        id().prop_map(Command::DeleteToken),
        (member_spec(), hash(), id(), hash(), time()).prop_map(|(spec, key, token, secret, time_ms)| {
            let (key, secret_hash) = (KeyPin(key), SecretHash(secret));
            Command::JoinMember { spec, key, token, secret_hash, time_ms }
        }),
        (0..3_u32, 0..=NUMBER_MAX)
            .prop_map(|(generation, id)| Command::NoteKeyHolder { generation, member: MemberId(id) }),
        authority(),
        (0..6_u32).prop_map(Command::ActivateAuthority),
        (0..6_u32).prop_map(Command::RetireAuthority),
    ]
}

/// What a cluster does whose members join by tokens.
fn log() -> Vec<Proposal> {
    let member = |name: &str| MemberSpec {
        name: MemberName::parse(name).unwrap(),
        peer_address: HostPort::parse(&format!("{name}.example:7481")).unwrap(),
        admin_address: HostPort::parse(&format!("{name}.example:7480")).unwrap(),
        feature_level_max: 2,
    };
    let token = |byte, joins_as| JoinTokenSpec {
        id: TokenId([byte; 8]),
        secret_hash: SecretHash([byte; 32]),
        joins_as,
        uses: 2,
        not_after_ms: 1_700_003_600_000,
        authority: 0,
    };
    let put = |token| Command::PutToken { token, time_ms: 1_700_000_000_000 };
    let identities = FoundingIdentities {
        authority: [0x30, 0].into(),
        external: false,
        founder_key: Some(KeyPin([1; 32])),
        transport: TransportSecurity::Require,
        token: None,
    };
    let commands = [
        Command::FoundCluster {
            cluster_id: ClusterId::parse("0123456789abcdef0123456789abcdef").unwrap(),
            member: member("m1"),
            identities: Some(identities),
        },
        put(token(7, JoinAs::Voter)),
        put(token(8, JoinAs::Learner)),
        Command::JoinMember {
            spec: member("m2"),
            key: KeyPin([2; 32]),
            token: TokenId([7; 8]),
            secret_hash: SecretHash([7; 32]),
            time_ms: 1_700_000_060_000,
        },
        Command::NoteKeyHolder { generation: 1, member: MemberId(4) },
        Command::DeleteToken(TokenId([8; 8])),
    ];
    commands.map(|command| Proposal { request: None, origin: None, command }).into()
}

fn replayed(log: &[Proposal]) -> Machine {
    let mut machine = Machine::default();
    for (index, proposal) in (1..).zip(log) {
        machine.apply(index, proposal).unwrap();
    }
    machine
}

fn line(bytes: &[u8]) -> String {
    let mut text = bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    text.push('\n');
    text
}

/// Bytes that logs and snapshots out there hold.
#[test]
fn tokens_are_written_and_read_as_ever() {
    let path = format!("{}/tests/golden/tokens.txt", env!("CARGO_MANIFEST_DIR"));
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (log, machine) = (log(), replayed(&log()));
    let messages = log.iter().map(|proposal| storage::Proposal::from(proposal).encode_to_vec());
    let written: String = messages
        .chain([storage::Machine::from(&machine).encode_to_vec()])
        .map(|bytes| line(&bytes))
        .collect();
    assert!(written == golden, "the encoding of tokens changed; it is now:\n{written}");
    let read = |proposal: &Proposal| Proposal::try_from(storage::Proposal::from(proposal)).unwrap();
    assert_eq!(log.iter().map(read).collect::<Vec<_>>(), log);
    assert_eq!(Machine::try_from(storage::Machine::from(&machine)).unwrap(), machine);
    let state = &machine.state;
    assert_eq!((state.tokens.len(), state.joins_as.len(), state.member_keys.len()), (1, 1, 2));
}

/// A cluster whose authority is replaced, with a token of each.
fn rotation() -> Vec<Proposal> {
    let token = |byte, authority| Command::PutToken {
        token: JoinTokenSpec {
            id: TokenId([byte; 8]),
            secret_hash: SecretHash([byte; 32]),
            joins_as: JoinAs::Voter,
            uses: 1,
            not_after_ms: 1_700_003_600_000,
            authority,
        },
        time_ms: 1_700_000_000_000,
    };
    let add = |generation, byte: u8, cross: Option<u8>| Command::AddAuthority {
        generation,
        certificate: [0x30, byte].into(),
        cross: cross
            .map(|byte| CrossCertificate { signer: generation - 1, certificate: [0x31, byte].into() }),
        maker: Some(MemberId(1)),
    };
    let commands = [
        token(7, 1),
        add(2, 2, Some(2)),
        Command::NoteKeyHolder { generation: 2, member: MemberId(1) },
        Command::ActivateAuthority(2),
        token(8, 2),
        Command::RetireAuthority(1),
        add(3, 3, None),
    ];
    let commands = commands.map(|command| Proposal { request: None, origin: None, command });
    log().into_iter().take(1).chain(commands).collect()
}

#[test]
fn authorities_are_written_and_read_as_ever() {
    let path = format!("{}/tests/golden/authorities.txt", env!("CARGO_MANIFEST_DIR"));
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (log, machine) = (rotation(), replayed(&rotation()));
    let messages = log.iter().map(|proposal| storage::Proposal::from(proposal).encode_to_vec());
    let written: String = messages
        .chain([storage::Machine::from(&machine).encode_to_vec()])
        .map(|bytes| line(&bytes))
        .collect();
    assert!(written == golden, "the encoding of authorities changed; it is now:\n{written}");
    let read = |proposal: &Proposal| Proposal::try_from(storage::Proposal::from(proposal)).unwrap();
    assert_eq!(log.iter().map(read).collect::<Vec<_>>(), log);
    assert_eq!(Machine::try_from(storage::Machine::from(&machine)).unwrap(), machine);
    assert_eq!((machine.state.authorities.len(), machine.state.tokens.len()), (3, 1));
}

/// A cluster that its initial members found by themselves has the token of the others in the entry that founds it.
#[test]
fn a_founding_token_is_written_and_read_as_ever() {
    let Some(Command::FoundCluster { cluster_id, member, identities: Some(identities) }) =
        log().into_iter().next().map(|proposal| proposal.command)
    else {
        panic!("the log begins with the founding");
    };
    let put = log().into_iter().nth(1).map(|proposal| proposal.command);
    let Some(Command::PutToken { token, .. }) = put else { panic!("a token is made") };
    let before = storage::Proposal::from(&log()[0]).encode_to_vec();
    let identities = Some(FoundingIdentities { token: Some(token.clone()), ..identities });
    let command = Command::FoundCluster { cluster_id, member, identities };
    let proposal = Proposal { request: None, origin: None, command };
    let written = storage::Proposal::from(&proposal).encode_to_vec();
    // Field 6 of the founding, at its end: id, hash, uses and time.
    let added = "32370a080707070707070707122007070707070707070707070707070707070707070707070707070707070707\
                 07180220022880adf180bd31";
    assert!(line(&written).trim().ends_with(added), "{}", line(&written));
    // The length before it is of two bytes now.
    assert_eq!(written.len(), before.len() + added.len() / 2 + 1);
    assert_eq!(Proposal::try_from(storage::Proposal::decode(&written[..]).unwrap()).unwrap(), proposal);
    let machine = replayed(&[proposal]);
    assert_eq!(Machine::try_from(storage::Machine::from(&machine)).unwrap(), machine);
    assert_eq!(machine.state.tokens[&token.id].uses_left, 2);
}

#[test]
fn damaged_tokens_are_refused() {
    let with = |change: fn(&mut storage::Machine)| {
        let mut message = storage::Machine::from(&replayed(&log()));
        change(&mut message);
        Machine::try_from(message).unwrap_err().to_string()
    };
    let told = with(|machine| machine.tokens[0].id = vec![1; 7]);
    assert!(told.contains("token id \"of 7 bytes\" must be 8 bytes"), "{told}");
    let told = with(|machine| machine.tokens[0].uses_left = 3);
    assert!(told.contains("uses of a token \"3\" must be at most 2"), "{told}");
    let told = with(|machine| machine.joined_members[0].joins_as = 9);
    assert!(told.contains("none that this version knows"), "{told}");
    let told = with(|machine| machine.tokens[0].not_after_ms = u64::MAX);
    assert!(told.contains("time of a token"), "{told}");
}
