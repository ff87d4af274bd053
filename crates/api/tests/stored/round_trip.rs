use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use trestle_api::storage;
use trestle_api::stored::machine_digest;
use trestle_model::{Command, Machine, Outcome, PoolName, PoolSpec, Proposal, Request, RequestId};

use crate::strategies::{fitting, outcome, proposal};

/// Through the bytes, as on a disk.
fn again<M: Message + Default>(message: &M) -> M {
    M::decode(&message.encode_to_vec()[..]).unwrap()
}

proptest! {
    #[test]
    fn proposals(proposal in proposal()) {
        let message = storage::Proposal::from(&proposal);
        prop_assert_eq!(Proposal::try_from(again(&message)), Ok(proposal));
    }

    #[test]
    fn outcomes(outcome in outcome()) {
        let message = storage::Outcome::from(&outcome);
        prop_assert_eq!(Outcome::try_from(again(&message)), Ok(outcome));
    }

    #[test]
    fn machines(any in vec(proposal(), 0..10), fitting in vec((any::<bool>(), fitting()), 20..60)) {
        let mut machine = Machine::default();
        let fitting = (1..).zip(fitting).map(|(number, (named, command))| {
            let id = RequestId::parse(&format!("request-{}", number * 7 % 100)).unwrap();
            Proposal { origin: None, request: named.then_some(Request { id, fingerprint: number }), command }
        });
        let mut accepted = 0;
        for (index, proposal) in (1..).zip(any.into_iter().chain(fitting)) {
            accepted += u32::from(machine.apply(index, &proposal).is_ok());
        }
        prop_assert!(accepted > 0);
        let message = storage::Machine::from(&machine);
        let restored = Machine::try_from(again(&message)).unwrap();
        prop_assert_eq!(machine_digest(&restored), machine_digest(&machine));
        prop_assert_eq!(restored, machine);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(message) = storage::Proposal::decode(&bytes[..]) {
            let _decoded_or_refused = Proposal::try_from(message);
        }
        if let Ok(message) = storage::Machine::decode(&bytes[..]) {
            let _decoded_or_refused = Machine::try_from(message);
        }
    }

    #[test]
    fn no_changed_byte_makes_the_decoder_panic(proposal in proposal(), at in any::<usize>(), to in any::<u8>()) {
        let mut bytes = storage::Proposal::from(&proposal).encode_to_vec();
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(message) = storage::Proposal::decode(&bytes[..]) {
            let _decoded_or_refused = Proposal::try_from(message);
        }
    }
}

#[test]
fn remembered_answers_keep_their_order() {
    let mut machine = Machine::default();
    // Ids whose order of arrival is not that of their names.
    for (index, id) in (1..).zip(["zulu", "alpha", "mike"]) {
        let request = Request { id: RequestId::parse(id).unwrap(), fingerprint: index };
        let name = PoolName::parse(id).unwrap();
        let command = Command::create((name, PoolSpec::default()));
        machine.apply(index, &Proposal { origin: None, request: Some(request), command }).unwrap();
    }
    let restored = Machine::try_from(again(&storage::Machine::from(&machine))).unwrap();
    let order: Vec<_> = restored.remembered().map(|answer| answer.id.to_string()).collect();
    assert_eq!(order, ["zulu", "alpha", "mike"]);
    assert_eq!(machine_digest(&restored), machine_digest(&machine));
}
