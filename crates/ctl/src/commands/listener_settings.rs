//! Settings of a listener as options, for creation and update alike.

use clap::Args;
use trestle_api::v1;
use trestle_model::{NamePattern, OnSilence, PoolName};

use super::choice::{choice, number};
use super::field_mask::FieldMaskBuilder;
use crate::input::Input;

/// Every network: an empty list of those that send a header would mean none.
pub(crate) const ANYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];

const ROUTE_RULE: &str = "must be NAME=POOL, as in api.example.com=api, '*.example.com=web' or alpn:h2=grpc; several names \
                          with commas, as in a.example.com,alpn:h2=a";

/// Settings of a listener beside its addresses and its pool.
#[derive(Debug, Default, Args)]
pub(crate) struct ListenerSettings {
    /// Pool for TLS connections by server name or protocol, without decrypting them, as in api.example.com=api,
    /// '*.example.com=web' or alpn:h2=grpc; the most specific route decides, and --pool takes the rest; may be repeated
    #[arg(long, value_name = "NAME[,NAME...]=POOL", help_heading = "Routes")]
    pub(crate) route: Vec<String>,
    /// Every connection begins with a PROXY protocol header, version 1 or 2, and is reset without
    #[arg(long, conflicts_with = "accept_proxy_from", help_heading = "Clients")]
    pub(crate) accept_proxy: bool,
    /// The same for connections from these networks, such as a balancer's in front of this one; may be repeated
    #[arg(long, value_name = "CIDR", value_delimiter = ',', help_heading = "Clients")]
    pub(crate) accept_proxy_from: Vec<String>,
    /// Networks that clients may connect from, as in 10.0.0.0/8 [default: all]; may be repeated
    #[arg(long, value_name = "CIDR", value_delimiter = ',', help_heading = "Clients")]
    pub(crate) allow: Vec<String>,
    /// Networks that clients may not connect from, even where allowed; may be repeated
    #[arg(long, value_name = "CIDR", value_delimiter = ',', help_heading = "Clients")]
    pub(crate) deny: Vec<String>,
    /// Connections on each member at a time, up to 1000000; more wait to be accepted; 0 for no bound [default: 0]
    #[arg(long, value_name = "COUNT", help_heading = "Limits")]
    pub(crate) max_connections: Option<u32>,
    /// Connections from one address on each member at a time; more are reset; 0 for no bound [default: 0]
    #[arg(long, value_name = "COUNT", help_heading = "Limits")]
    pub(crate) max_connections_per_source: Option<u32>,
    /// Connections accepted each second on each member; more wait to be accepted; 0 for no bound [default: 0]
    #[arg(long, value_name = "COUNT", help_heading = "Limits")]
    pub(crate) accept_rate: Option<u32>,
    /// Connections accepted each second from one address on each member; more are reset; 0 for no bound [default: 0]
    #[arg(long, value_name = "COUNT", help_heading = "Limits")]
    pub(crate) accept_rate_per_source: Option<u32>,
    /// How long a client may take for its PROXY header and TLS hello, where --accept-proxy or --route asks for them, 10ms to
    /// 60s [default: 5s]
    #[arg(long, value_name = "DURATION", help_heading = "First bytes")]
    pub(crate) first_bytes_timeout: Option<String>,
    /// What becomes of a client that sends nothing for that time, where there are routes [default: reset]
    #[arg(long, value_name = "WHAT", value_parser = choice::<OnSilence>(), help_heading = "First bytes")]
    pub(crate) on_silence: Option<OnSilence>,
}

/// Lists that an update empties.
#[derive(Debug, Default, Args)]
pub(crate) struct Emptied {
    /// Take all routes away
    #[arg(long, conflicts_with = "route", help_heading = "Routes")]
    pub(crate) no_route: bool,
    /// Expect no PROXY protocol header from anywhere
    #[arg(long, conflicts_with_all = ["accept_proxy", "accept_proxy_from"], help_heading = "Clients")]
    pub(crate) no_accept_proxy: bool,
    /// Let clients connect from all networks that are not denied
    #[arg(long, conflicts_with = "allow", help_heading = "Clients")]
    pub(crate) no_allow: bool,
    /// Deny no network
    #[arg(long, conflicts_with = "deny", help_heading = "Clients")]
    pub(crate) no_deny: bool,
}

/// A list as it was given, or as it is emptied.
fn list<T>(given: Vec<T>, emptied: bool) -> Option<Vec<T>> {
    (emptied || !given.is_empty()).then_some(given)
}

impl ListenerSettings {
    /// Puts what was given onto a listener.
    pub(super) fn set(
        &self,
        emptied: &Emptied,
        listener: &mut v1::Listener,
        mask: &mut FieldMaskBuilder,
        input: &mut Input,
    ) {
        let route = |text: &String| input.valid("--route", text, route(text));
        let routes = list(self.route.iter().filter_map(route).collect(), emptied.no_route);
        let proxies = if self.accept_proxy {
            ANYWHERE.map(str::to_owned).to_vec()
        } else {
            input.networks("--accept-proxy-from", &self.accept_proxy_from)
        };
        let proxies = list(proxies, emptied.no_accept_proxy);
        let allow = list(input.networks("--allow", &self.allow), emptied.no_allow);
        let deny = list(input.networks("--deny", &self.deny), emptied.no_deny);
        listener.routes = mask.set("routes", routes).unwrap_or_default();
        listener.accept_proxy_from = mask.set("accept_proxy_from", proxies).unwrap_or_default();
        listener.allow = mask.set("allow", allow).unwrap_or_default();
        listener.deny = mask.set("deny", deny).unwrap_or_default();
        let counts = [
            ("max_connections", self.max_connections, &mut listener.max_connections),
            (
                "max_connections_per_source",
                self.max_connections_per_source,
                &mut listener.max_connections_per_source,
            ),
            ("accept_rate", self.accept_rate, &mut listener.accept_rate),
            ("accept_rate_per_source", self.accept_rate_per_source, &mut listener.accept_rate_per_source),
        ];
        for (path, count, to) in counts {
            *to = mask.set(path, count).unwrap_or_default();
        }
        let timeout = self.first_bytes_timeout.as_ref();
        let timeout = timeout.map(|text| input.duration("--first-bytes-timeout", text));
        listener.first_bytes_timeout = mask.set("first_bytes_timeout", timeout);
        listener.on_silence = number(mask.set("on_silence", self.on_silence));
    }
}

/// Parses a route as it is typed; the error is the broken rule.
fn route(text: &str) -> Result<v1::Route, String> {
    // No pool has "=" in its name, and a protocol might.
    let (names, pool) = text.rsplit_once('=').ok_or(ROUTE_RULE)?;
    PoolName::parse(pool).map_err(|rule| format!("leads to {pool:?}, and a pool's name {rule}"))?;
    let mut route = v1::Route { pool: format!("pools/{pool}"), ..v1::Route::default() };
    for name in names.split(',') {
        match name.strip_prefix("alpn:") {
            Some("") => return Err(ROUTE_RULE.to_owned()),
            Some(protocol) => route.alpn.push(protocol.to_owned()),
            None => {
                let pattern = NamePattern::parse(name).map_err(|_| ROUTE_RULE)?;
                route.server_names.push(pattern.to_string());
            }
        }
    }
    Ok(route)
}

/// A route as it can be typed.
pub(crate) fn route_text(server_names: &[String], alpn: &[String], pool: &str) -> String {
    let protocols = alpn.iter().map(|protocol| format!("alpn:{protocol}"));
    let names: Vec<String> = server_names.iter().cloned().chain(protocols).collect();
    format!("{}={pool}", names.join(","))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|&text| text.to_owned()).collect()
    }

    fn changed(settings: &ListenerSettings, emptied: &Emptied) -> (v1::Listener, Vec<String>) {
        let (mut listener, mut mask, mut input) =
            (v1::Listener::default(), FieldMaskBuilder::default(), Input::default());
        settings.set(emptied, &mut listener, &mut mask, &mut input);
        input.finish().unwrap();
        (listener, mask.paths)
    }

    #[test]
    fn routes_round_trip() {
        for text in [
            "api.example.com=api",
            "*.example.com=web",
            "alpn:h2=grpc",
            "a.example,b.example,alpn:h2,alpn:http/1.1=both",
        ] {
            let route = route(text).unwrap();
            let pool = route.pool.strip_prefix("pools/").unwrap();
            assert_eq!(route_text(&route.server_names, &route.alpn, pool), text);
        }
        assert_eq!(route("API.example=api").unwrap().server_names, ["api.example"]);
        for text in ["", "api.example.com", "=api", "alpn:=api", "a b=api", "*=api", "a.example,=api"] {
            let rule = route(text).unwrap_err();
            assert!(rule.contains("api.example.com=api"), "{text:?}: {rule}");
        }
        assert!(route("a.example=").unwrap_err().starts_with("leads to \"\", and a pool's name "));
    }

    #[test]
    fn what_is_given_has_its_path_and_nothing_else() {
        let settings = ListenerSettings {
            route: texts(&["api.example=api", "alpn:h2=grpc"]),
            accept_proxy: false,
            accept_proxy_from: texts(&["10.0.0.0/8"]),
            allow: texts(&["192.0.2.7"]),
            deny: texts(&["192.0.2.0/24", "2001:db8::/32"]),
            max_connections: Some(10),
            max_connections_per_source: Some(2),
            accept_rate: Some(0),
            accept_rate_per_source: Some(5),
            first_bytes_timeout: Some("300ms".to_owned()),
            on_silence: Some(OnSilence::Pool),
        };
        let (listener, paths) = changed(&settings, &Emptied::default());
        assert_eq!(
            paths,
            [
                "routes",
                "accept_proxy_from",
                "allow",
                "deny",
                "max_connections",
                "max_connections_per_source",
                "accept_rate",
                "accept_rate_per_source",
                "first_bytes_timeout",
                "on_silence",
            ]
        );
        assert_eq!(listener.first_bytes_timeout.unwrap().nanos, 300_000_000);
        assert_eq!(listener.on_silence(), v1::OnSilence::Pool);
        assert_eq!((listener.routes.len(), listener.routes[1].pool.as_str()), (2, "pools/grpc"));
        assert_eq!((listener.allow, listener.deny.len()), (texts(&["192.0.2.7/32"]), 2));
        let counts = (listener.max_connections, listener.max_connections_per_source);
        assert_eq!((counts, listener.accept_rate_per_source), ((10, 2), 5));
        assert!(changed(&ListenerSettings::default(), &Emptied::default()).1.is_empty());
    }

    #[test]
    fn lists_are_emptied_when_told_so() {
        let emptied = Emptied { no_route: true, no_accept_proxy: true, no_allow: true, no_deny: true };
        let (listener, paths) = changed(&ListenerSettings::default(), &emptied);
        assert_eq!(paths, ["routes", "accept_proxy_from", "allow", "deny"]);
        assert!(listener.routes.is_empty() && listener.allow.is_empty());
        let anywhere = ListenerSettings { accept_proxy: true, ..ListenerSettings::default() };
        let (listener, paths) = changed(&anywhere, &Emptied::default());
        assert_eq!((listener.accept_proxy_from, paths), (texts(&ANYWHERE), texts(&["accept_proxy_from"])));
    }
}
