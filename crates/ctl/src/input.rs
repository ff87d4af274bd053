//! What users type, checked before anything is sent, so that all mistakes are told at once.

use std::io::Read;
use std::time::{Duration, SystemTime};

use trestle_model::{
    BackendAddress, BackendName, Bind, Cidr, HostPort, InterfaceName, ListenAddress, ListenerName,
    MemberName, PoolName, RequestId, Violations, VipName, defaults,
};

use crate::duration::DURATION_RULE;
use crate::error::Error;

/// The rule for moments in the past.
const SINCE_RULE: &str =
    "must be a duration with a unit, as in 90s or 1h30m, or a time, as in 2026-01-31T12:00:00Z";

/// A moment: so long ago, or a time of RFC 3339 in UTC.
///
/// # Errors
/// When it is neither, or before 1970.
pub(crate) fn since(text: &str) -> Result<SystemTime, String> {
    let ago = humantime::parse_duration(text).ok().map(|ago| SystemTime::now().checked_sub(ago));
    let at = ago.unwrap_or_else(|| humantime::parse_rfc3339(text).ok());
    at.filter(|at| *at >= SystemTime::UNIX_EPOCH).ok_or_else(|| SINCE_RULE.to_owned())
}

/// What a file has, or standard input, which is called `-`.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn text_of(file: &str) -> Result<String, Error> {
    let mut text = String::new();
    let read = match file {
        "-" => std::io::stdin().read_to_string(&mut text).map(drop),
        path => std::fs::read_to_string(path).map(|content| text = content),
    };
    read.map_err(|cause| Error::File { action: "read", file: file.to_owned(), cause })?;
    Ok(text)
}

/// Collects mistakes. Each method notes what breaks a rule and returns something to go on with; what it returned may
/// be used only after [`Input::finish`] said that there were no mistakes.
#[derive(Debug, Default)]
pub(crate) struct Input {
    found: Violations,
}

impl Input {
    /// Notes a mistake that no rule below covers.
    pub(crate) fn refuse(&mut self, label: &str, value: &str, rule: &str) {
        self.found.add(label, value, rule);
    }

    /// A value that is parsed by one of the model's rules.
    pub(crate) fn valid<T>(&mut self, label: &str, text: &str, parsed: Result<T, String>) -> Option<T> {
        self.found.take(label, text, parsed)
    }

    /// A pool's name, as "pools/NAME".
    pub(crate) fn pool(&mut self, label: &str, name: &str) -> String {
        self.found.take(label, name, PoolName::parse(name));
        format!("pools/{name}")
    }

    /// A listener's name, as "listeners/NAME".
    pub(crate) fn listener(&mut self, label: &str, name: &str) -> String {
        self.found.take(label, name, ListenerName::parse(name));
        format!("listeners/{name}")
    }

    /// A member's name, as "members/NAME".
    pub(crate) fn member(&mut self, label: &str, name: &str) -> String {
        self.found.take(label, name, MemberName::parse(name));
        format!("members/{name}")
    }

    /// A virtual IP's name, as "vips/NAME".
    pub(crate) fn vip(&mut self, label: &str, name: &str) -> String {
        self.found.take(label, name, VipName::parse(name));
        format!("vips/{name}")
    }

    /// The name of a network interface.
    pub(crate) fn interface(&mut self, label: &str, name: &str) -> String {
        self.found.take(label, name, InterfaceName::parse(name));
        name.to_owned()
    }

    /// A backend's POOL/NAME.
    pub(crate) fn backend(&mut self, path: &str) -> BackendPath {
        let Some((pool, backend)) = path.split_once('/') else {
            self.refuse("POOL/NAME", path, "must name the pool and the backend, as in web/a");
            return BackendPath::default();
        };
        self.found.take("POOL", pool, PoolName::parse(pool));
        self.found.take("NAME", backend, BackendName::parse(backend));
        BackendPath { pool: pool.to_owned(), backend: backend.to_owned() }
    }

    /// Where a backend is dialled, as the API writes it.
    pub(crate) fn address(&mut self, label: &str, text: &str) -> String {
        let parsed = self.found.take(label, text, BackendAddress::parse(text));
        parsed.map(|address| address.to_string()).unwrap_or_default()
    }

    /// Where a listener accepts connections, as the API writes it. The member knows which virtual IPs there are.
    pub(crate) fn binds(&mut self, label: &str, texts: &[String]) -> Vec<String> {
        let mut parse = |text: &String| {
            let parsed = ListenAddress::parse(text).map(|address| address.to_string());
            // A port alone is what other programs take.
            let port_alone = text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
            let parsed = match Bind::parse(&format!(":{text}")) {
                Ok(_) if port_alone => Err(format!(
                    "must name an address and a port; \":{text}\" is this port on every IPv4 address"
                )),
                _ => parsed,
            };
            self.found.take(label, text, parsed)
        };
        texts.iter().filter_map(&mut parse).collect()
    }

    /// Networks, as the API writes them.
    pub(crate) fn networks(&mut self, label: &str, texts: &[String]) -> Vec<String> {
        let mut parse = |text: &String| self.found.take(label, text, Cidr::parse(text));
        texts.iter().filter_map(&mut parse).map(|network| network.to_string()).collect()
    }

    /// A member's address, HOST:PORT.
    pub(crate) fn host_port(&mut self, label: &str, text: &str) -> String {
        self.found.take(label, text, HostPort::parse(text));
        text.to_owned()
    }

    /// A duration that may be "off", which the API writes as 0.
    pub(crate) fn duration_or_off(&mut self, label: &str, text: &str) -> prost_types::Duration {
        if text == "off" {
            return prost_types::Duration::default();
        }
        self.duration_by(label, text, "must be off, or a duration with a unit, as in 500ms, 2s or 1m30s")
    }

    /// A duration, as the API writes it.
    pub(crate) fn duration(&mut self, label: &str, text: &str) -> prost_types::Duration {
        self.duration_by(label, text, DURATION_RULE)
    }

    fn duration_by(&mut self, label: &str, text: &str, rule: &str) -> prost_types::Duration {
        let parsed = humantime::parse_duration(text).map_err(|_| rule.to_owned());
        let parsed: Option<Duration> = self.found.take(label, text, parsed);
        // 292 billion years fit; humantime parses twice that.
        parsed.unwrap_or_default().try_into().unwrap_or_else(|_| {
            self.refuse(label, text, "is longer than any bound");
            prost_types::Duration::default()
        })
    }

    /// A share, as in 20%, in percent.
    pub(crate) fn share(&mut self, label: &str, text: &str) -> u32 {
        let bounds = defaults::CLOSE_SHARE_BOUNDS;
        let parsed = text.strip_suffix('%').and_then(|number| number.parse().ok());
        let parsed = parsed.filter(|percent| bounds.contains(percent)).ok_or_else(|| {
            format!("must be whole percent from {}% to {}%, as in 20%", bounds.start(), bounds.end())
        });
        self.found.take(label, text, parsed).unwrap_or_default()
    }

    /// A rate, as in 50/s or 30/m, in a second.
    pub(crate) fn rate(&mut self, label: &str, text: &str) -> f64 {
        let bounds = defaults::CLOSE_RATE_BOUNDS;
        let parsed = text.split_once('/').and_then(|(number, unit)| {
            let number: u32 = number.parse().ok()?;
            let seconds = match unit {
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
            Some(f64::from(number) / seconds)
        });
        let parsed = parsed.filter(|rate| bounds.contains(rate)).ok_or_else(|| {
            "must be a number each second, minute or hour, as in 50/s, 30/m or 100/h, from 36/h to 10000/s".to_owned()
        });
        self.found.take(label, text, parsed).unwrap_or_default()
    }

    /// The request id that was given, or a random one, so that a write can be repeated when its answer is lost.
    pub(crate) fn request_id(&mut self, given: Option<&str>) -> Result<String, Error> {
        if let Some(id) = given {
            self.found.take("--request-id", id, RequestId::parse(id));
            return Ok(id.to_owned());
        }
        let (high, low) =
            (getrandom::u64().map_err(Error::Random)?, getrandom::u64().map_err(Error::Random)?);
        Ok(format!("{high:016x}{low:016x}"))
    }

    /// Says what was found.
    ///
    /// # Errors
    /// Every mistake.
    pub(crate) fn finish(self) -> Result<(), Error> {
        Ok(self.found.into_result()?)
    }
}

/// A backend as users name it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BackendPath {
    /// Its pool.
    pub(crate) pool: String,
    /// Its own name.
    pub(crate) backend: String,
}

impl BackendPath {
    /// "pools/POOL".
    pub(crate) fn parent(&self) -> String {
        format!("pools/{}", self.pool)
    }

    /// "pools/POOL/backends/NAME".
    pub(crate) fn resource(&self) -> String {
        format!("pools/{}/backends/{}", self.pool, self.backend)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn all_mistakes_are_told_together() {
        let mut input = Input::default();
        input.backend("we b/-a");
        input.address("ADDRESS", "10.0.0.1:0");
        input.duration("--deadline", "5");
        let text = input.finish().unwrap_err().render();
        let labels: Vec<_> = text.lines().map(|l| l.split(' ').nth(1).unwrap()).collect();
        assert_eq!(labels, ["POOL", "NAME", "ADDRESS", "--deadline"], "{text}");
        assert!(text.lines().all(|l| l.starts_with("error: ")), "{text}");
    }

    #[test]
    fn a_backend_needs_its_pool() {
        let mut input = Input::default();
        input.backend("a");
        let text = input.finish().unwrap_err().render();
        assert_eq!(text, "error: POOL/NAME \"a\": must name the pool and the backend, as in web/a");
    }

    #[test]
    fn addresses_are_sent_as_the_api_writes_them() {
        let mut input = Input::default();
        assert_eq!(
            input.binds("--bind", &["*:6443".to_owned(), "[::]:80".to_owned()]),
            ["0.0.0.0:6443", "[::]:80"]
        );
        assert_eq!(input.binds("--bind", &[":30000-30100".to_owned()]), ["0.0.0.0:30000-30100"]);
        let on_vips = ["api:443".to_owned(), "2001-db8--100:80-90".to_owned()];
        assert_eq!(input.binds("--bind", &on_vips), ["vip:api:443", "vip:2001-db8--100:80-90"]);
        assert_eq!(input.address("ADDRESS", "10.0.0.1"), "10.0.0.1");
        assert_eq!(input.address("ADDRESS", "Web.example:80"), "web.example:80");
        assert_eq!(input.networks("--allow", &["10.0.0.0/8".to_owned()]), ["10.0.0.0/8"]);
        assert!(input.finish().is_ok());
    }

    #[test]
    fn a_mistyped_bind_is_no_vip() {
        for text in
            ["10.0.3.300:80", "api", "api:", "api:0", "api:90-80", "a_:80", "a/b:80", "2001:db8::1:443"]
        {
            let mut input = Input::default();
            assert!(input.binds("--bind", &[text.to_owned()]).is_empty(), "{text}");
            assert_eq!(input.finish().unwrap_err().exit().code(), 2, "{text}");
        }
    }

    #[test]
    fn durations_in_all_lengths() {
        let mut input = Input::default();
        let parsed = input.duration("--deadline", "1m30s");
        assert_eq!((parsed.seconds, parsed.nanos), (90, 0));
        assert_eq!(input.duration("--deadline", "50ms").nanos, 50_000_000);

        for text in ["off", "0", "0s"] {
            assert_eq!(input.duration_or_off("--idle-timeout", text), prost_types::Duration::default());
        }
        assert_eq!(input.duration_or_off("--idle-timeout", "5m").seconds, 300);
        assert!(input.finish().is_ok());

        let mut input = Input::default();
        input.duration("--deadline", "18446744073709551615s");
        input.duration_or_off("--idle-timeout", "none");
        let text = input.finish().unwrap_err().render();
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn shares_and_rates_have_units_and_bounds() {
        let mut input = Input::default();
        assert_eq!(["1%", "20%", "100%"].map(|text| input.share("--share", text)), [1, 20, 100]);
        assert_eq!(["50/s", "30/m", "36/h"].map(|text| input.rate("--rate", text)), [50.0, 0.5, 0.01]);
        assert!(input.finish().is_ok());
        let mut input = Input::default();
        let wrong = ["0%", "101%", "20", "-1%", "1.5%", "%"];
        for text in wrong {
            input.share("--share", text);
        }
        let slow = ["0/s", "35/h", "10001/s", "50", "50/d", "/s", "-1/s", "0.5/s"];
        for text in slow {
            input.rate("--rate", text);
        }
        assert_eq!(input.finish().unwrap_err().render().lines().count(), wrong.len() + slow.len());
    }

    #[test]
    fn request_ids_differ_unless_given() {
        let mut input = Input::default();
        let (first, second) = (input.request_id(None).unwrap(), input.request_id(None).unwrap());
        assert_ne!(first, second);
        assert!(RequestId::parse(&first).is_ok());
        assert_eq!(input.request_id(Some("mine")).unwrap(), "mine");
        input.request_id(Some("with space")).unwrap();
        assert_eq!(input.finish().unwrap_err().exit().code(), 2);
    }
}
