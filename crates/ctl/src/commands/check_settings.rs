//! What a pool's health check does, as options: its kind, and the settings that go with some kinds.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};
use trestle_api::v1;
use trestle_api::v1::health_check::Kind;
use trestle_model::Method;

use super::check_flags::{AppliesTo, CheckFlags, certificates, header, members_file};
use crate::escape;
use crate::input::Input;

/// What a health check does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Check {
    /// Connect and close again
    Tcp,
    /// Connect and do a TLS handshake
    Tls,
    /// Send an HTTP request and look at the answer
    Http,
    /// The same over TLS
    Https,
    /// Ask by the gRPC health protocol
    Grpc,
    /// Send bytes and look for others in the answer
    Exchange,
    /// No check
    None,
}

impl Check {
    /// The check with nothing but defaults.
    pub(crate) fn plain(self) -> Kind {
        let over = |tls| Kind::Http(v1::HttpCheck { tls, ..v1::HttpCheck::default() });
        match self {
            Self::Tcp => Kind::Tcp(v1::TcpCheck {}),
            Self::Tls => Kind::Tls(v1::TlsCheck::default()),
            Self::Http => over(None),
            Self::Https => over(Some(v1::TlsCheck::default())),
            Self::Grpc => Kind::Grpc(v1::GrpcCheck::default()),
            Self::Exchange => Kind::Exchange(v1::ExchangeCheck::default()),
            Self::None => Kind::None(v1::NoCheck {}),
        }
    }

    /// The word for a check that a pool has.
    pub(crate) fn word(kind: &Kind) -> &'static str {
        match kind {
            Kind::Tcp(_) => "tcp",
            Kind::Tls(_) => "tls",
            Kind::Http(http) if http.tls.is_some() => "https",
            Kind::Http(_) => "http",
            Kind::Grpc(_) => "grpc",
            Kind::Exchange(_) => "exchange",
            Kind::None(_) => "none",
        }
    }
}

/// The path of a check in an update mask.
pub(crate) fn mask_path(kind: &Kind) -> &'static str {
    match kind {
        Kind::Tcp(_) => "health_check.tcp",
        Kind::Tls(_) => "health_check.tls",
        Kind::Http(_) => "health_check.http",
        Kind::Grpc(_) => "health_check.grpc",
        Kind::Exchange(_) => "health_check.exchange",
        Kind::None(_) => "health_check.none",
    }
}

/// What a check does. An update that names the kind replaces the whole check; one that does not changes the settings
/// that are given and keeps the others.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Health check")]
pub(crate) struct CheckSettings {
    /// How backends are checked [default: tcp]; in an update, the settings of the check that are not given with it go
    /// back to their defaults
    #[arg(long, value_name = "CHECK")]
    pub(crate) health: Option<Check>,
    /// grpc, exchange: whether it goes over TLS [default: only if a setting of TLS is given]
    #[arg(long, value_name = "true|false", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub(crate) health_tls: Option<bool>,
    /// With TLS: name sent as SNI, and that a verified certificate must be for [default: the name in --health-host if given,
    /// else the backend's name; for a backend known by its address none is sent, and a verified certificate must be for
    /// that]
    #[arg(long, value_name = "NAME")]
    pub(crate) health_server_name: Option<String>,
    /// With TLS: file with the PEM certificates to trust, at most 256 KiB [default: nothing is verified]
    #[arg(long, value_name = "FILE")]
    pub(crate) health_ca: Option<PathBuf>,
    /// With TLS: days that the certificate must still be valid for, 0 to 825 [default: 0]
    #[arg(long, value_name = "DAYS")]
    pub(crate) health_min_days: Option<u32>,
    /// With TLS: certificate and chain, PEM, that the check proves itself with: the path of a file that every member has,
    /// read anew when it changes [default: none is shown]
    #[arg(long, value_name = "FILE")]
    pub(crate) health_client_cert: Option<String>,
    /// With TLS: the key of that certificate, PEM: the path of a file that every member has
    #[arg(long, value_name = "FILE")]
    pub(crate) health_client_key: Option<String>,
    /// http, https: method, GET, HEAD or OPTIONS [default: GET]
    #[arg(long, value_name = "METHOD")]
    pub(crate) health_method: Option<String>,
    /// http, https: path, with its query if any [default: /]
    #[arg(long, value_name = "PATH")]
    pub(crate) health_path: Option<String>,
    /// http, https, grpc: value of the Host field, or of :authority [default: the backend's name or address, with the port
    /// unless it is a name and port 80, or 443 with TLS; grpc: --health-server-name if given]
    #[arg(long, value_name = "HOST")]
    pub(crate) health_host: Option<String>,
    /// http, https: further field of the request, as in 'Accept: */*'; may be repeated
    #[arg(long, value_name = "NAME: VALUE")]
    pub(crate) health_header: Vec<String>,
    /// http, https: file with the token sent as 'Authorization: Bearer TOKEN', or with a scheme and credentials: the path of a
    /// file that every member has below its check_directory, read anew when it changes [default: none is sent]
    #[arg(long, value_name = "FILE")]
    pub(crate) health_token_file: Option<String>,
    /// http, https: statuses that are good, as in 200-299,401 [default: 200-299]; exchange: text that the first 64 KiB of
    /// the answer must contain, with escapes as for --health-send. May be repeated: what is sent and what is expected take
    /// turns, and with one more to expect than to send the server speaks first, as in SMTP: --health-expect '220 '
    /// --health-send 'QUIT\r\n' --health-expect '221 '. MariaDB and MySQL lock out who reads their greeting and goes: let
    /// such a check log in, or use tcp
    #[arg(long, value_name = "STATUS[-STATUS]|TEXT")]
    pub(crate) health_expect: Vec<String>,
    /// http, https: text that the first 64 KiB of the body must contain [default: not looked at]
    #[arg(long, value_name = "TEXT")]
    pub(crate) health_body: Option<String>,
    /// grpc: service to ask about [default: the server as a whole]
    #[arg(long, value_name = "NAME")]
    pub(crate) health_grpc_service: Option<String>,
    /// exchange: what is sent, with \r, \n, \t, \\ and \xNN as escapes, as in 'PING\r\n'; may be repeated, in turns with
    /// --health-expect [default: nothing]
    #[arg(long, value_name = "TEXT")]
    pub(crate) health_send: Vec<String>,
}

impl CheckSettings {
    /// Parses what was given beside the kind.
    pub(crate) fn flags(&self, input: &mut Input) -> CheckFlags {
        if let Some(method) = &self.health_method {
            input.valid("--health-method", method, Method::parse(method));
        }
        let header = |text: &String| input.valid("--health-header", text, header(text));
        let headers: Vec<v1::HttpField> = self.health_header.iter().filter_map(header).collect();
        let mut parsed = |label, text: &Option<String>, parse: fn(&str) -> Result<String, String>| {
            text.as_ref().and_then(|text| input.valid(label, text, parse(text)))
        };
        let client_cert = parsed("--health-client-cert", &self.health_client_cert, members_file);
        let token_file = parsed("--health-token-file", &self.health_token_file, members_file);
        let client_key = parsed("--health-client-key", &self.health_client_key, members_file);
        let send = |text: &String| input.valid("--health-send", text, escape::parse(text));
        let send = self.health_send.iter().filter_map(send).collect();
        let ca = self.health_ca.as_ref();
        CheckFlags {
            over_tls: self.health_tls,
            server_name: self.health_server_name.clone(),
            ca: ca
                .and_then(|path| input.valid("--health-ca", &path.display().to_string(), certificates(path))),
            min_days: self.health_min_days,
            client_cert,
            client_key,
            method: self.health_method.clone(),
            path: self.health_path.clone(),
            host: self.health_host.clone(),
            headers,
            token_file,
            body: self.health_body.clone(),
            expect: self.health_expect.clone(),
            service: self.health_grpc_service.clone(),
            send,
            typed: self.typed(),
        }
    }

    /// What was given beside the kind, as it was typed, with the checks that it goes with.
    fn typed(&self) -> Vec<(AppliesTo, &'static str, String)> {
        [
            (AppliesTo::OptionalTls, "--health-tls", self.health_tls.map(|tls| tls.to_string())),
            (AppliesTo::Tls, "--health-server-name", self.health_server_name.clone()),
            (AppliesTo::Tls, "--health-ca", self.health_ca.as_ref().map(|path| path.display().to_string())),
            (AppliesTo::Tls, "--health-min-days", self.health_min_days.map(|days| days.to_string())),
            (AppliesTo::Tls, "--health-client-cert", self.health_client_cert.clone()),
            (AppliesTo::Tls, "--health-client-key", self.health_client_key.clone()),
            (AppliesTo::Http, "--health-method", self.health_method.clone()),
            (AppliesTo::Http, "--health-path", self.health_path.clone()),
            (AppliesTo::Host, "--health-host", self.health_host.clone()),
            (AppliesTo::Http, "--health-header", self.health_header.first().cloned()),
            (AppliesTo::Http, "--health-token-file", self.health_token_file.clone()),
            (AppliesTo::Answer, "--health-expect", self.health_expect.first().cloned()),
            (AppliesTo::Http, "--health-body", self.health_body.clone()),
            (AppliesTo::Grpc, "--health-grpc-service", self.health_grpc_service.clone()),
            (AppliesTo::Exchange, "--health-send", self.health_send.first().cloned()),
        ]
        .into_iter()
        .filter_map(|(with, label, value)| value.map(|value| (with, label, value)))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn everything() -> CheckSettings {
        CheckSettings {
            health_server_name: text("api.example"),
            health_min_days: Some(14),
            health_client_cert: text("/etc/trestle/check.pem"),
            health_client_key: text("/etc/trestle/check.key"),
            health_method: text("HEAD"),
            health_path: text("/readyz"),
            health_host: text("api.example:6443"),
            health_header: vec!["Accept: */*".to_owned(), "X-Probe:1".to_owned()],
            health_token_file: text("/etc/trestle/checks/token"),
            health_expect: vec!["200-299,401".to_owned(), "404".to_owned()],
            health_body: text("ok"),
            ..CheckSettings::default()
        }
    }

    fn refused(settings: &CheckSettings, check: Check) -> String {
        let mut input = Input::default();
        settings.flags(&mut input).onto(check.plain(), &mut input);
        input.finish().unwrap_err().render()
    }

    #[test]
    fn everything_goes_with_https() {
        let mut input = Input::default();
        let kind = everything().flags(&mut input).onto(Check::Https.plain(), &mut input);
        input.finish().unwrap();
        let field =
            |name: &str, value: &str| v1::HttpField { name: name.to_owned(), value: value.to_owned() };
        let expected = v1::HttpCheck {
            tls: Some(v1::TlsCheck {
                server_name: "api.example".to_owned(),
                ca: String::new(),
                min_days_left: 14,
                client_certificate_file: "/etc/trestle/check.pem".to_owned(),
                client_key_file: "/etc/trestle/check.key".to_owned(),
            }),
            method: "HEAD".to_owned(),
            path: "/readyz".to_owned(),
            host: "api.example:6443".to_owned(),
            headers: vec![field("Accept", "*/*"), field("X-Probe", "1")],
            token_file: "/etc/trestle/checks/token".to_owned(),
            expect: vec!["200-299".to_owned(), "401".to_owned(), "404".to_owned()],
            body_contains: "ok".to_owned(),
        };
        assert_eq!(kind, Kind::Http(expected));
    }

    #[test]
    fn what_does_not_go_with_the_kind_is_refused() {
        let labels = |text: String| -> Vec<String> {
            text.lines().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect()
        };
        let tls =
            ["--health-server-name", "--health-min-days", "--health-client-cert", "--health-client-key"];
        let http = [
            "--health-method",
            "--health-path",
            "--health-host",
            "--health-header",
            "--health-token-file",
            "--health-expect",
            "--health-body",
        ];
        for check in [Check::Tcp, Check::None] {
            assert_eq!(labels(refused(&everything(), check)), [&tls[..], &http[..]].concat());
        }
        assert_eq!(labels(refused(&everything(), Check::Tls)), http);
        assert_eq!(labels(refused(&everything(), Check::Http)), tls);
        let path = CheckSettings { health_path: text("/x"), ..CheckSettings::default() };
        assert_eq!(
            refused(&path, Check::Tls),
            "error: --health-path \"/x\": goes with --health http or https, and this check is tls"
        );
    }

    #[test]
    fn only_what_is_given_changes() {
        let mut input = Input::default();
        let before = everything().flags(&mut input).onto(Check::Https.plain(), &mut input);
        let path = CheckSettings { health_path: text("/livez"), ..CheckSettings::default() };
        let after = path.flags(&mut input).onto(before.clone(), &mut input);
        input.finish().unwrap();
        let Kind::Http(mut expected) = before else { panic!("{before:?}") };
        expected.path = "/livez".to_owned();
        assert_eq!(after, Kind::Http(expected));
    }

    #[test]
    fn values_that_do_not_parse_are_told_together() {
        let settings = CheckSettings {
            health_method: text("POST"),
            health_expect: vec!["200".to_owned(), "2xx".to_owned()],
            health_header: vec!["nothing".to_owned()],
            ..CheckSettings::default()
        };
        assert_eq!(
            refused(&settings, Check::Http),
            "error: --health-method \"POST\": must be GET, HEAD or OPTIONS\n\
             error: --health-header \"nothing\": must be NAME: VALUE, as in 'Accept: */*'\n\
             error: --health-expect \"2xx\": must be a status of 100 to 599, or a range as in 200-399"
        );
    }

    fn put(settings: &CheckSettings, kind: Kind) -> Kind {
        let mut input = Input::default();
        let kind = settings.flags(&mut input).onto(kind, &mut input);
        input.finish().unwrap();
        kind
    }

    #[test]
    fn grpc_goes_over_tls_when_told_so_in_any_way() {
        let service = CheckSettings { health_grpc_service: text("shop.Cart"), ..CheckSettings::default() };
        let Kind::Grpc(plain) = put(&service, Check::Grpc.plain()) else { panic!() };
        assert_eq!((plain.service.as_str(), plain.tls), ("shop.Cart", None));

        let tls = CheckSettings { health_tls: Some(true), ..CheckSettings::default() };
        let named = CheckSettings { health_server_name: text("cart"), ..CheckSettings::default() };
        let over = put(&tls, Check::Grpc.plain());
        assert!(matches!(&over, Kind::Grpc(grpc) if grpc.tls == Some(v1::TlsCheck::default())));
        let over = put(&named, over);
        assert!(matches!(&over, Kind::Grpc(grpc) if grpc.tls.as_ref().unwrap().server_name == "cart"));
        let off = CheckSettings { health_tls: Some(false), ..CheckSettings::default() };
        assert_eq!(put(&off, over), Check::Grpc.plain());

        let both = CheckSettings { health_tls: Some(false), ..named };
        assert!(refused(&both, Check::Grpc).contains("--health-tls false does without"));
        assert!(refused(&tls, Check::Https).contains("goes with --health grpc or exchange"));
    }

    #[test]
    fn an_exchange_takes_bytes_and_needs_something_to_expect() {
        let settings = CheckSettings {
            health_send: vec![r"PING\r\n".to_owned()],
            health_expect: vec![r"+PONG, or\x00".to_owned()],
            ..CheckSettings::default()
        };
        let expected = v1::ExchangeCheck {
            send: b"PING\r\n".to_vec(),
            expect: b"+PONG, or\0".to_vec(),
            ..v1::ExchangeCheck::default()
        };
        let kind = put(&settings, Check::Exchange.plain());
        assert_eq!(kind, Kind::Exchange(expected.clone()));
        let send = CheckSettings { health_send: vec!["HELP".to_owned()], ..CheckSettings::default() };
        let changed = v1::ExchangeCheck { send: b"HELP".to_vec(), ..expected };
        assert_eq!(put(&send, kind), Kind::Exchange(changed));
        assert!(refused(&send, Check::Exchange).contains("--health-expect \"\": is needed"));
        let wrong = CheckSettings { health_send: vec![r"\q".to_owned()], ..settings };
        assert!(refused(&wrong, Check::Exchange).contains("the only escapes"));
    }

    #[test]
    fn an_exchange_has_steps_that_take_turns() {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let steps = |send: &[&str], expect: &[&str]| CheckSettings {
            health_send: texts(send),
            health_expect: texts(expect),
            ..CheckSettings::default()
        };
        let step =
            |send: &[u8], expect: &[u8]| v1::ExchangeStep { send: send.to_vec(), expect: expect.to_vec() };
        let smtp = put(&steps(&[r"QUIT\r\n"], &["220 ", "221 "]), Check::Exchange.plain());
        let Kind::Exchange(smtp) = smtp else { panic!("{smtp:?}") };
        assert_eq!((smtp.send.as_slice(), smtp.expect.as_slice()), (&b""[..], &b"220 "[..]));
        assert_eq!(smtp.then, [step(b"QUIT\r\n", b"221 ")]);
        let redis = put(&steps(&["AUTH x", "PING"], &["+OK", "+PONG"]), Check::Exchange.plain());
        let Kind::Exchange(redis) = redis else { panic!("{redis:?}") };
        assert_eq!((redis.send.as_slice(), redis.then), (&b"AUTH x"[..], vec![step(b"PING", b"+PONG")]));
        let uneven = refused(&steps(&["a", "b"], &["c"]), Check::Exchange);
        assert!(uneven.contains("\"2 --health-send, 1 --health-expect\": steps take turns"), "{uneven}");
    }
}
