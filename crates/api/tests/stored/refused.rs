use trestle_api::storage;
use trestle_api::storage::document::Settings;
use trestle_api::storage::operation::Kind;
use trestle_api::stored::DecodeError;
use trestle_model::{Command, Document, Machine, MemberSpec, Outcome, PoolName, PoolSpec, Proposal};

fn good() -> storage::Proposal {
    let command = Command::create((PoolName::parse("web").unwrap(), PoolSpec::default()));
    storage::Proposal::from(&Proposal { origin: None, request: None, command })
}

fn with(change: impl FnOnce(&mut storage::Document)) -> Result<Proposal, DecodeError> {
    let mut message = good();
    if let Some(storage::proposal::Command::Batch(batch)) = &mut message.command
        && let Some(Kind::Put(put)) = &mut batch.operations[0].kind
    {
        change(put.document.as_mut().unwrap());
    }
    message.try_into()
}

#[test]
fn a_damaged_proposal_is_refused_with_what_is_wrong() {
    assert!(with(|_| ()).is_ok());
    let text = |result: Result<Proposal, DecodeError>| result.unwrap_err().to_string();
    let error = text(with(|document| document.name = "pools/../etc\n".to_owned()));
    assert!(error.contains("resource \"pools/../etc\\n\" must be 1 to 63"), "{error}");
    let error = text(with(|document| document.name = "vips/web".to_owned()));
    assert!(error.contains("has the settings of another kind"), "{error}");
    let spec = |change: fn(&mut storage::PoolSpec)| {
        text(with(|document| match &mut document.settings {
            Some(Settings::Pool(spec)) => change(spec),
            other => panic!("{other:?}"),
        }))
    };
    assert!(
        spec(|spec| spec.algorithm = 77)
            .contains("pool.algorithm \"77\" must be ALGORITHM_ROUND_ROBIN (1), ")
    );
    let check = |change: fn(&mut storage::HealthCheck)| {
        text(with(|document| match &mut document.settings {
            Some(Settings::Pool(spec)) => change(spec.health_check.as_mut().unwrap()),
            other => panic!("{other:?}"),
        }))
    };
    assert!(check(|check| check.port = 65_536).contains("pool.health_check.port \"65536\""));
    assert!(check(|check| check.interval.as_mut().unwrap().seconds = -1).contains("must not be negative"));
    let nanos = check(|check| check.interval.as_mut().unwrap().nanos = 1_000_000_000);
    assert!(nanos.contains("pool.health_check.interval"), "{nanos}");
    let request = storage::Proposal { origin: None, request_id: "two words".to_owned(), ..good() };
    assert!(text(request.try_into()).contains("request id \"two words\""));
}

/// What a newer version has written is no damage.
#[test]
fn what_this_version_does_not_know_asks_for_an_upgrade() {
    let text = |result: Result<Proposal, DecodeError>| result.unwrap_err().to_string();
    let newer = [
        text(storage::Proposal { command: None, ..good() }.try_into()),
        text(with(|document| document.settings = None)),
        Outcome::try_from(storage::Outcome { kind: None }).unwrap_err().to_string(),
    ];
    for error in newer {
        assert!(error.contains("upgrade this member") && !error.contains("damaged"), "{error}");
    }
    // Another kind of check would be taken for one that only connects.
    let error = text(with(|document| match &mut document.settings {
        Some(Settings::Pool(spec)) => spec.health_check.as_mut().unwrap().kind = None,
        other => panic!("{other:?}"),
    }));
    assert!(error.contains("pool.health_check \"\" is of a kind that this version does not know"), "{error}");
}

#[test]
fn a_damaged_machine_is_refused() {
    let message = storage::Machine { cluster_id: "short".to_owned(), ..Default::default() };
    let error = Machine::try_from(message).unwrap_err().to_string();
    assert!(error.contains("cluster id \"short\""), "{error}");
    let message = storage::Machine { pools: vec![storage::PoolEntry::default()], ..Default::default() };
    assert!(Machine::try_from(message).unwrap_err().to_string().contains("lacks its pool"));
}

/// A rule that is tightened later stops no member that has what was taken before.
#[test]
fn addresses_that_are_refused_when_they_are_asked_for_are_read() {
    let document = |name: &str, settings| {
        Document::try_from(storage::Document { name: name.to_owned(), settings: Some(settings) })
    };
    let backend = |address: &str| {
        let spec = storage::BackendSpec { address: address.to_owned(), ..Default::default() };
        document("pools/p/backends/b", Settings::Backend(spec))
    };
    for address in ["[fe80::5]:9000", "[::ffff:127.0.0.1]:9000"] {
        let Ok(Document::Backend(.., spec)) = backend(address) else { panic!("{address}") };
        assert_eq!(spec.address.to_string(), address);
        let (binds, pool) = (vec![address.to_owned()], "pools/p".to_owned());
        let spec = storage::ListenerSpec { binds, pool, ..Default::default() };
        let Ok(Document::Listener(_, spec)) = document("listeners/l", Settings::Listener(spec)) else {
            panic!("{address}")
        };
        assert_eq!(spec.binds[0].to_string(), address);
        let member = storage::MemberSpec {
            name: "m1".to_owned(),
            peer_address: address.to_owned(),
            admin_address: address.to_owned(),
            feature_level_max: 0,
        };
        assert_eq!(MemberSpec::try_from(member).unwrap().peer_address.as_str(), address);
    }
    for address in ["[ff02::1]:9000", "224.0.0.1:9000"] {
        assert!(backend(address).is_err(), "{address}");
    }
}
