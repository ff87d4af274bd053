use trestle_api::storage;
use trestle_api::stored::DecodeError;
use trestle_model::{
    BackendPatch, Command, ListenerPatch, Machine, MemberSpec, PoolName, PoolSpec, Proposal,
};

fn good() -> storage::Proposal {
    let command = Command::CreatePool { name: PoolName::parse("web").unwrap(), spec: PoolSpec::default() };
    storage::Proposal::from(&Proposal { origin: None, request: None, command })
}

fn with(change: impl FnOnce(&mut storage::CreatePool)) -> Result<Proposal, DecodeError> {
    let mut message = good();
    if let Some(storage::proposal::Command::CreatePool(create)) = &mut message.command {
        change(create);
    }
    message.try_into()
}

#[test]
fn a_damaged_proposal_is_refused_with_what_is_wrong() {
    assert!(with(|_| ()).is_ok());
    let text = |result: Result<Proposal, DecodeError>| result.unwrap_err().to_string();
    let error = text(with(|create| create.name = "../etc\n".to_owned()));
    assert!(error.contains("pool name \"../etc\\n\" must be 1 to 63"), "{error}");
    let error = text(with(|create| create.spec = None));
    assert!(error.contains("lacks its settings"), "{error}");
    let spec =
        |change: fn(&mut storage::PoolSpec)| text(with(|create| change(create.spec.as_mut().unwrap())));
    assert!(spec(|spec| spec.algorithm = Some(77)).contains("balance algorithm \"77\""));
    assert!(spec(|spec| spec.algorithm = Some(0)).contains("balance algorithm \"0\""));
    assert!(spec(|spec| spec.rise = None).contains("health check rise"));
    assert!(spec(|spec| spec.port = Some(65_536)).contains("health check port \"65536\""));
    assert!(spec(|spec| spec.interval.as_mut().unwrap().seconds = -1).contains("must be 0 s to "));
    assert!(
        spec(|spec| spec.interval.as_mut().unwrap().nanos = 1_000_000_000).contains("health check interval")
    );
    let empty = storage::Proposal { command: None, ..good() };
    assert!(text(empty.try_into()).contains("lacks its command"));
    let request = storage::Proposal { origin: None, request_id: "two words".to_owned(), ..good() };
    assert!(text(request.try_into()).contains("request id \"two words\""));
}

#[test]
fn a_damaged_machine_is_refused() {
    let message = storage::Machine { cluster_id: "short".to_owned(), ..Default::default() };
    let error = Machine::try_from(message).unwrap_err().to_string();
    assert!(error.contains("cluster id \"short\""), "{error}");
    let message = storage::Machine { pools: vec![storage::PoolEntry::default()], ..Default::default() };
    assert!(Machine::try_from(message).unwrap_err().to_string().contains("lacks its pool"));
}

/// Older versions took addresses that can never work, and their logs and snapshots must still be read.
#[test]
fn addresses_that_are_refused_today_are_read() {
    for address in ["[fe80::5]:9000", "[::ffff:127.0.0.1]:9000"] {
        let backend = storage::BackendSpec { address: Some(address.to_owned()), ..Default::default() };
        let backend = BackendPatch::try_from(backend).unwrap();
        assert_eq!(backend.address.unwrap().to_string(), address);
        let listener = storage::ListenerSpec { binds: vec![address.to_owned()], ..Default::default() };
        let listener = ListenerPatch::try_from(listener).unwrap();
        assert_eq!(listener.binds.unwrap()[0].to_string(), address);
        let member = storage::MemberSpec {
            name: "m1".to_owned(),
            peer_address: address.to_owned(),
            admin_address: address.to_owned(),
        };
        assert_eq!(MemberSpec::try_from(member).unwrap().peer_address.as_str(), address);
    }
    for address in ["[ff02::1]:9000", "224.0.0.1:9000"] {
        let backend = storage::BackendSpec { address: Some(address.to_owned()), ..Default::default() };
        assert!(BackendPatch::try_from(backend).is_err(), "{address}");
    }
}
