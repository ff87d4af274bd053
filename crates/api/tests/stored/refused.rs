use trestle_api::storage;
use trestle_api::stored::DecodeError;
use trestle_model::{Command, Machine, PoolName, PoolSpec, Proposal};

fn good() -> storage::Proposal {
    let command = Command::CreatePool { name: PoolName::parse("web").unwrap(), spec: PoolSpec::default() };
    storage::Proposal::from(&Proposal { request: None, command })
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
    let request = storage::Proposal { request_id: "two words".to_owned(), ..good() };
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
