//! Which connections: filters and names.

use std::collections::BTreeMap;
use std::time::Duration;

use trestle_model::{BackendName, Cidr, Invalid, ListenerName, MemberName, PoolName, Violations, defaults};

use super::name::{
    backend_name, listener_name, parse_backend_name, parse_listener_name, parse_member_name, parse_pool_name,
    pool_name,
};
use super::{duration, field};
use crate::{peer, v1};

/// Most names of one request to close connections.
const NAMES_MAX: usize = 1000;

/// Which connections: those that meet everything that is `Some`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectionFilter {
    /// On this member.
    pub member: Option<MemberName>,
    /// Accepted by this listener.
    pub listener: Option<ListenerName>,
    /// Going to this pool.
    pub pool: Option<PoolName>,
    /// Connected to this backend.
    pub backend: Option<(PoolName, BackendName)>,
    /// From a client in this network.
    pub client: Option<Cidr>,
    /// Open for at least so long.
    pub min_age: Option<Duration>,
}

/// What to close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closing {
    /// What a filter matches; an empty one matches all.
    Matching(Box<ConnectionFilter>),
    /// These numbers on these members.
    Named(BTreeMap<MemberName, Vec<u64>>),
}

/// What to close, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseRequest {
    /// What.
    pub closing: Closing,
    /// The share of it, in percent; 100 for all.
    pub share_percent: u32,
    /// Whether it is only counted.
    pub validate_only: bool,
}

fn filter(given: Option<&v1::ConnectionFilter>, v: &mut Violations) -> ConnectionFilter {
    let Some(given) = given else { return ConnectionFilter::default() };
    let set = |text: &'_ str| !text.is_empty();
    let mut filter = ConnectionFilter::default();
    if set(&given.member) {
        filter.member = parse_member_name("filter.member", &given.member, v);
    }
    if set(&given.listener) {
        filter.listener = parse_listener_name("filter.listener", &given.listener, v);
    }
    if set(&given.pool) {
        filter.pool = parse_pool_name("filter.pool", &given.pool, v);
    }
    if set(&given.backend) {
        filter.backend = parse_backend_name("filter.backend", &given.backend, v);
    }
    if set(&given.client) {
        filter.client = v.take("filter.client", &given.client, Cidr::parse(&given.client));
    }
    filter.min_age = field::duration("filter.min_age", given.min_age.as_ref(), v);
    filter
}

/// Parses a filter; nothing set matches everything.
///
/// # Errors
/// Every mistake in it.
pub fn parse_connection_filter(given: Option<&v1::ConnectionFilter>) -> Result<ConnectionFilter, Invalid> {
    let mut v = Violations::new();
    let filter = filter(given, &mut v);
    v.into_result()?;
    Ok(filter)
}

/// A filter as members pass it on; the member that is asked is not part of it.
impl From<&ConnectionFilter> for peer::ConnectionFilter {
    fn from(filter: &ConnectionFilter) -> Self {
        let ConnectionFilter { member: _, listener, pool, backend, client, min_age } = filter;
        Self {
            listener: listener.as_ref().map(listener_name).unwrap_or_default(),
            pool: pool.as_ref().map(pool_name).unwrap_or_default(),
            backend: backend.as_ref().map(|(pool, name)| backend_name(pool, name)).unwrap_or_default(),
            client: client.map(|client| client.to_string()).unwrap_or_default(),
            min_age: min_age.map(duration),
        }
    }
}

impl TryFrom<peer::ConnectionFilter> for ConnectionFilter {
    type Error = Invalid;

    fn try_from(given: peer::ConnectionFilter) -> Result<Self, Invalid> {
        let peer::ConnectionFilter { listener, pool, backend, client, min_age } = given;
        let member = String::new();
        parse_connection_filter(Some(&v1::ConnectionFilter {
            member,
            listener,
            pool,
            backend,
            client,
            min_age,
        }))
    }
}

/// Renders `members/{member}/connections/{number}`.
pub fn connection_name(member: &MemberName, number: u64) -> String {
    format!("members/{member}/connections/{number}")
}

fn parse_connection_name(field: &str, name: &str, v: &mut Violations) -> Option<(MemberName, u64)> {
    let parts = name.strip_prefix("members/").and_then(|rest| rest.split_once("/connections/"));
    let parsed = parts.and_then(|(member, number)| Some((member, number.parse().ok()?)));
    let Some((member, number)) = parsed else {
        v.add(field, name, "must have the form members/MEMBER/connections/NUMBER");
        return None;
    };
    Some((v.take(field, name, MemberName::parse(member))?, number))
}

/// Parses what is to be closed.
///
/// # Errors
/// Every mistake; among them that nothing is named, or the same in two ways.
pub fn parse_close_connections(request: &v1::CloseConnectionsRequest) -> Result<CloseRequest, Invalid> {
    let mut v = Violations::new();
    let request = close_request(request, &mut v);
    v.into_result()?;
    Ok(request)
}

/// Parses what is to be closed, and how many connections a second.
///
/// # Errors
/// Every mistake.
pub fn parse_close_gradually(
    request: &v1::CloseConnectionsGraduallyRequest,
) -> Result<(CloseRequest, f64), Invalid> {
    let mut v = Violations::new();
    let closing = close_request(&request.closing.clone().unwrap_or_default(), &mut v);
    if closing.validate_only {
        v.add("closing.validate_only", "true", "must be false: CloseConnections answers how many there are");
    }
    let bounds = defaults::CLOSE_RATE_BOUNDS;
    if !bounds.contains(&request.rate) {
        v.add("rate", request.rate, format!("must be {} to {} a second", bounds.start(), bounds.end()));
    }
    v.into_result()?;
    Ok((closing, request.rate))
}

fn close_request(request: &v1::CloseConnectionsRequest, v: &mut Violations) -> CloseRequest {
    let filter = filter(request.filter.as_ref(), v);
    let filtered = request.filter.as_ref().is_some_and(|given| *given != v1::ConnectionFilter::default());
    let named = !request.names.is_empty();
    match [filtered, named, request.all].into_iter().filter(|given| *given).count() {
        0 => v.add("filter", "", "must name what to close; `all: true` closes all"),
        1 => {}
        _ => v.add("filter", "", "must be alone: give one of filter, names and all"),
    }
    if request.names.len() > NAMES_MAX {
        v.add("names", format!("{} names", request.names.len()), format!("must be at most {NAMES_MAX}"));
    }
    let mut members: BTreeMap<MemberName, Vec<u64>> = BTreeMap::new();
    for (i, name) in request.names.iter().enumerate().take(NAMES_MAX) {
        if let Some((member, number)) = parse_connection_name(&format!("names[{i}]"), name, v) {
            members.entry(member).or_default().push(number);
        }
    }
    let share_percent = match request.share_percent {
        0 => 100,
        share => share,
    };
    let bounds = defaults::CLOSE_SHARE_BOUNDS;
    if !bounds.contains(&share_percent) {
        let rule = format!("must be {} to {}, or 0 for all", bounds.start(), bounds.end());
        v.add("share_percent", share_percent, rule);
    }
    let closing = if named { Closing::Named(members) } else { Closing::Matching(Box::new(filter)) };
    CloseRequest { closing, share_percent, validate_only: request.validate_only }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn full() -> v1::ConnectionFilter {
        v1::ConnectionFilter {
            member: "members/m1".to_owned(),
            listener: "listeners/front".to_owned(),
            pool: "pools/web".to_owned(),
            backend: "pools/web/backends/a".to_owned(),
            client: "10.0.0.0/8".to_owned(),
            min_age: Some(prost_types::Duration { seconds: 60, nanos: 5 }),
        }
    }

    #[test]
    fn filters_round_trip() {
        for given in [full(), v1::ConnectionFilter::default()] {
            let filter = parse_connection_filter(Some(&given)).unwrap();
            let passed_on = ConnectionFilter::try_from(peer::ConnectionFilter::from(&filter)).unwrap();
            assert_eq!(passed_on, ConnectionFilter { member: None, ..filter });
        }
    }

    #[test]
    fn every_mistake_in_a_filter_is_told() {
        let bad = v1::ConnectionFilter {
            member: "m1".to_owned(),
            listener: "listeners/".to_owned(),
            pool: "pools/a/b".to_owned(),
            backend: "pools/web".to_owned(),
            client: "10.0.0.1/8".to_owned(),
            min_age: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
        };
        let found = parse_connection_filter(Some(&bad)).unwrap_err().0;
        let fields: Vec<_> = found.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "filter.member",
                "filter.listener",
                "filter.pool",
                "filter.backend",
                "filter.client",
                "filter.min_age"
            ]
        );
    }

    #[test]
    fn what_to_close_is_said_in_one_way() {
        let nothing = v1::CloseConnectionsRequest::default();
        let empty =
            v1::CloseConnectionsRequest { filter: Some(v1::ConnectionFilter::default()), ..nothing.clone() };
        for request in [&nothing, &empty] {
            let found = parse_close_connections(request).unwrap_err();
            assert!(found.to_string().contains("`all: true` closes all"), "{found}");
        }
        let all = v1::CloseConnectionsRequest { all: true, ..nothing.clone() };
        let everything = Closing::Matching(Box::default());
        let expected = CloseRequest { closing: everything, share_percent: 100, validate_only: false };
        assert_eq!(parse_close_connections(&all), Ok(expected));
        let both = v1::CloseConnectionsRequest { filter: Some(full()), ..all };
        assert!(parse_close_connections(&both).is_err());
        let names = ["members/m1/connections/17", "members/m2/connections/1", "members/m1/connections/18"];
        let named =
            v1::CloseConnectionsRequest { names: names.map(str::to_owned).to_vec(), ..nothing.clone() };
        let Closing::Named(members) = parse_close_connections(&named).unwrap().closing else { panic!() };
        let members: Vec<_> =
            members.iter().map(|(member, numbers)| (member.as_str(), numbers.as_slice())).collect();
        assert_eq!(members, [("m1", &[17, 18][..]), ("m2", &[1])]);
        for name in ["m1/17", "members/m1/connections/", "members/m1/connections/x", "members//connections/1"]
        {
            let named = v1::CloseConnectionsRequest { names: vec![name.to_owned()], ..nothing.clone() };
            assert!(parse_close_connections(&named).is_err(), "{name}");
        }
        let many = v1::CloseConnectionsRequest { names: vec![names[0].to_owned(); NAMES_MAX + 1], ..nothing };
        assert!(parse_close_connections(&many).is_err());
    }

    #[test]
    fn shares_and_rates_have_bounds_and_all_mistakes_are_told() {
        let all =
            |share_percent| v1::CloseConnectionsRequest { all: true, share_percent, ..Default::default() };
        assert_eq!(parse_close_connections(&all(20)).unwrap().share_percent, 20);
        assert!(parse_close_connections(&all(101)).is_err());
        let gradually = |closing, rate| v1::CloseConnectionsGraduallyRequest { closing: Some(closing), rate };
        assert_eq!(parse_close_gradually(&gradually(all(0), 0.5)).unwrap().1, 0.5);
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e5] {
            let wrong = v1::CloseConnectionsRequest { validate_only: true, ..all(101) };
            let Invalid(found) = parse_close_gradually(&gradually(wrong, rate)).unwrap_err();
            let fields: Vec<_> = found.iter().map(|violation| violation.field.as_str()).collect();
            assert_eq!(fields, ["share_percent", "closing.validate_only", "rate"], "{rate}");
        }
        let nothing = v1::CloseConnectionsGraduallyRequest { closing: None, rate: 1.0 };
        assert!(parse_close_gradually(&nothing).is_err());
    }
}
