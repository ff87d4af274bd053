use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use trestle_api::storage;
use trestle_model::{Machine, Outcome, PoolName, PoolSpec, Proposal};

use crate::strategies::{command, outcome, proposal};

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
    fn machines(proposals in vec(proposal(), 0..40), more in vec(command(), 0..10)) {
        let mut machine = Machine::default();
        let more = more.into_iter().map(|command| Proposal { request: None, command });
        for (index, proposal) in (1..).zip(proposals.into_iter().chain(more)) {
            let _refused_or_not = machine.apply(index, &proposal);
        }
        let message = storage::Machine::from(&machine);
        let restored = Machine::try_from(again(&message)).unwrap();
        prop_assert_eq!(restored.digest(), machine.digest());
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
        let request = trestle_model::Request { id: trestle_model::RequestId::parse(id).unwrap(), fingerprint: index };
        let name = PoolName::parse(id).unwrap();
        let command = trestle_model::Command::CreatePool { name, spec: PoolSpec::default() };
        machine.apply(index, &Proposal { request: Some(request), command }).unwrap();
    }
    let restored = Machine::try_from(again(&storage::Machine::from(&machine))).unwrap();
    let order: Vec<_> = restored.remembered().map(|answer| answer.id.to_string()).collect();
    assert_eq!(order, ["zulu", "alpha", "mike"]);
    assert_eq!(restored.digest(), machine.digest());
}
