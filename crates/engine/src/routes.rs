//! Which route of a listener a TLS connection takes.

use std::sync::Arc;

use trestle_model::{NamePattern, Route};

use crate::client_hello::Hello;

/// How well a route fits. A name counts for more than a protocol: a route for `api.example.com` is not passed over for
/// one that takes `h2` for all names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Fit {
    name: Named,
    protocol: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    Any,
    Below,
    Exact,
}

/// The position of the route that fits a client's hello best, or `None` when none does and the listener's own pool takes
/// the connection. None fits a server name that is no host name.
///
/// A route fits when one of its names is that of the client (any, and none, if it has no names) and the client offers one
/// of its protocols (the same if it has none). An exact name is better than a wildcard, that is better than no name; of
/// equals in this, a route with protocols is better than one without; of equals in both, the first. In which order the
/// client offers its protocols makes no difference.
pub fn choose<'a>(routes: impl IntoIterator<Item = &'a Route>, hello: &Hello) -> Option<usize> {
    if hello.odd_name.is_some() {
        return None;
    }
    let mut best: Option<(Fit, usize)> = None;
    for (position, route) in routes.into_iter().enumerate() {
        if let Some(fit) = fit(route, hello)
            && best.is_none_or(|(before, _)| fit > before)
        {
            best = Some((fit, position));
        }
    }
    best.map(|(_, position)| position)
}

fn fit(route: &Route, hello: &Hello) -> Option<Fit> {
    let name = if route.server_names.is_empty() {
        Named::Any
    } else {
        let name = hello.server_name.as_deref()?;
        route.server_names.iter().filter_map(|pattern| named(pattern, name)).max()?
    };
    let offered = |protocol: &Arc<str>| hello.alpn.iter().any(|o| o == protocol.as_bytes());
    let protocol = !route.alpn.is_empty();
    (!protocol || route.alpn.iter().any(offered)).then_some(Fit { name, protocol })
}

/// Whether and how a name in lower case fits a pattern, which is in lower case, too.
fn named(pattern: &NamePattern, name: &str) -> Option<Named> {
    match pattern {
        NamePattern::Exact(exact) => (**exact == *name).then_some(Named::Exact),
        NamePattern::Below(parent) => {
            let (label, rest) = name.split_once('.')?;
            (!label.is_empty() && *rest == **parent).then_some(Named::Below)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;
    use trestle_model::PoolName;

    fn route(names: &[&str], alpn: &[&str]) -> Route {
        Route {
            server_names: names.iter().map(|name| NamePattern::parse(name).unwrap()).collect(),
            alpn: alpn.iter().map(|name| Arc::from(*name)).collect(),
            pool: PoolName::parse("p").unwrap(),
        }
    }

    fn hello(name: &str, alpn: &[&str]) -> Hello {
        let server_name = (!name.is_empty()).then(|| name.to_owned());
        let alpn = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Hello { server_name, odd_name: None, alpn }
    }

    #[test]
    fn no_route_is_for_an_odd_name() {
        let routes = [route(&[], &["h2"]), route(&[], &[])];
        let odd = Hello { odd_name: Some("[::1]".to_owned()), ..hello("", &["h2"]) };
        assert_eq!(choose(&routes, &odd), None);
    }

    #[test]
    fn exact_before_wildcard_before_any() {
        let routes = [
            route(&[], &["h2"]),
            route(&["*.example.com"], &[]),
            route(&["api.example.com", "*.example.org"], &[]),
        ];
        let chosen = |name, alpn| choose(&routes, &hello(name, alpn));
        assert_eq!(chosen("api.example.com", &["h2"]), Some(2));
        assert_eq!(chosen("web.example.com", &["h2"]), Some(1));
        assert_eq!(chosen("api.example.org", &[]), Some(2));
        assert_eq!(chosen("example.net", &["http/1.1", "h2"]), Some(0));
        assert_eq!(chosen("", &["h2"]), Some(0));
        assert_eq!(chosen("example.net", &["http/1.1"]), None);
        assert_eq!(chosen("", &[]), None);
    }

    #[test]
    fn a_wildcard_is_one_label() {
        let routes = [route(&["*.example.com"], &[])];
        let chosen = |name| choose(&routes, &hello(name, &[]));
        assert_eq!(chosen("a.example.com"), Some(0));
        for name in ["example.com", "a.b.example.com", "aexample.com", ".example.com", "a.example.org", ""] {
            assert_eq!(chosen(name), None, "{name}");
        }
    }

    #[test]
    fn patterns_are_lower_case_like_the_names() {
        let routes = [route(&["*.Example.COM"], &[]), route(&["API.example.com"], &[])];
        assert_eq!(choose(&routes, &hello("api.example.com", &[])), Some(1));
        assert_eq!(choose(&routes, &hello("web.example.com", &[])), Some(0));
    }

    #[test]
    fn protocols_decide_among_equal_names_and_are_needed() {
        let routes = [
            route(&["a.example"], &[]),
            route(&["a.example"], &["acme-tls/1", "h2"]),
            route(&["a.example"], &["h2"]),
        ];
        let chosen = |alpn| choose(&routes, &hello("a.example", alpn));
        assert_eq!(chosen(&["http/1.1", "h2"]), Some(1));
        assert_eq!(chosen(&["http/1.1"]), Some(0));
        assert_eq!(chosen(&[]), Some(0));
        let strict = [route(&["a.example"], &["h2"])];
        assert_eq!(choose(&strict, &hello("a.example", &["http/1.1"])), None);
        assert_eq!(choose(&strict, &hello("a.example", &["h2c"])), None);
    }

    fn any_route() -> impl Strategy<Value = Route> {
        let names = prop::sample::subsequence(vec!["a.x", "b.x", "*.x", "a.b.x", "*.b.x"], 0..=3);
        let alpn = prop::sample::subsequence(vec!["h2", "http/1.1", "acme-tls/1"], 0..=2);
        (names, alpn).prop_map(|(names, alpn)| route(&names, &alpn))
    }

    proptest! {
        #[test]
        fn what_is_chosen_fits_and_nothing_fits_better(
            routes in prop::collection::vec(any_route(), 0..8),
            name in prop::sample::select(vec!["", "a.x", "b.x", "c.x", "a.b.x", "c.b.x", "x", "c.a.b.x"]),
            alpn in prop::sample::subsequence(vec!["h2", "http/1.1", "acme-tls/1"], 0..=3),
        ) {
            let hello = hello(name, &alpn);
            let chosen = choose(&routes, &hello);
            prop_assert_eq!(chosen.is_none(), routes.iter().all(|route| fit(route, &hello).is_none()));
            if let Some(chosen) = chosen {
                let best = fit(&routes[chosen], &hello).unwrap();
                for (position, route) in routes.iter().enumerate() {
                    let this = fit(route, &hello);
                    prop_assert!(this.is_none_or(|this| this < best || (this == best && position >= chosen)));
                }
            }
        }
    }
}
