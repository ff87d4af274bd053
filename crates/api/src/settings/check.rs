//! What a health check does.

use std::sync::Arc;

use trestle_model::{
    CheckKind, ClientIdentity, ExchangeCheck, ExchangeStep, GrpcCheck, HealthCheck, HttpCheck, TlsCheck,
};

use super::{Field, Path, Reader, Settings, settings};
use crate::{storage, v1};

settings! {
    HealthCheck: [v1::HealthCheck, storage::HealthCheck] {
        kind, interval, fast_interval, timeout, rise, fall, jitter_percent, port, initial_state,
    }
}

settings! {
    HttpCheck: [v1::HttpCheck, storage::HttpCheck] {
        tls, method, path, host, headers, expect, body_contains, token_file,
    }
}

settings! { GrpcCheck: [v1::GrpcCheck, storage::GrpcCheck] { tls, service, authority } }
settings! { ExchangeCheck: [v1::ExchangeCheck, storage::ExchangeCheck] { tls, send, expect, then } }
settings! { ExchangeStep: [v1::ExchangeStep, storage::ExchangeStep] { send, expect } }

/// What differs in type only between the API's messages and those on disk.
macro_rules! both {
    ($($side:ident: $blank_tcp:ident, $blank_none:ident;)+) => {$(
        impl Field<Option<$side::health_check::Kind>> for CheckKind {
            fn write(&self) -> Option<$side::health_check::Kind> {
                use $side::health_check::Kind;
                fn made<T: Settings<M>, M: Default>(check: &T) -> M {
                    let mut message = M::default();
                    check.write_to(&mut message);
                    message
                }
                Some(match self {
                    CheckKind::Tcp => Kind::Tcp($side::$blank_tcp {}),
                    CheckKind::None => Kind::None($side::$blank_none {}),
                    CheckKind::Tls(check) => Kind::Tls(made(check)),
                    CheckKind::Http(check) => Kind::Http(made(check)),
                    CheckKind::Grpc(check) => Kind::Grpc(made(check)),
                    CheckKind::Exchange(check) => Kind::Exchange(made(check)),
                })
            }

            fn read(
                field: &Option<$side::health_check::Kind>,
                at: &Path<'_>,
                default: &Self,
                reader: &mut Reader,
            ) -> Self {
                use $side::health_check::Kind;
                fn read<T: Settings<M> + Default, M>(message: &M, at: &Path<'_>, reader: &mut Reader) -> T {
                    T::read_from(message, at, &T::default(), reader)
                }
                // The oneof's own name is no field: its members are fields of the check.
                let parent = at.parent();
                let at = |name| Path::Field(&parent, name);
                match field {
                    // What was accepted always has a kind: this one has it in a field that is not known here.
                    None if reader.stored => {
                        reader.found.add(parent.to_string(), "", "is of a kind that this version does not know");
                        default.clone()
                    }
                    None => default.clone(),
                    Some(Kind::Tcp(_)) => CheckKind::Tcp,
                    Some(Kind::None(_)) => CheckKind::None,
                    Some(Kind::Tls(check)) => CheckKind::Tls(read(check, &at("tls"), reader)),
                    Some(Kind::Http(check)) => CheckKind::Http(read(check, &at("http"), reader)),
                    Some(Kind::Grpc(check)) => CheckKind::Grpc(read(check, &at("grpc"), reader)),
                    Some(Kind::Exchange(check)) => CheckKind::Exchange(read(check, &at("exchange"), reader)),
                }
            }
        }

        impl Settings<$side::TlsCheck> for TlsCheck {
            fn write_to(&self, message: &mut $side::TlsCheck) {
                let Self { server_name, ca, min_days_left, identity } = self;
                let files = identity.as_ref().map(|i| (i.certificate_file.clone(), i.key_file.clone())).unzip();
                *message = $side::TlsCheck {
                    server_name: server_name.write(),
                    ca: ca.write(),
                    min_days_left: *min_days_left,
                    client_certificate_file: files.0.write(),
                    client_key_file: files.1.write(),
                };
            }

            fn read_from(message: &$side::TlsCheck, _: &Path<'_>, _: &Self, _: &mut Reader) -> Self {
                fn optional(text: &str) -> Option<Arc<str>> {
                    (!text.is_empty()).then(|| text.into())
                }
                let (certificate_file, key_file) = (&message.client_certificate_file, &message.client_key_file);
                // One without the other is refused by the model's check, for it is no path.
                let identity = (!certificate_file.is_empty() || !key_file.is_empty()).then(|| ClientIdentity {
                    certificate_file: certificate_file.as_str().into(),
                    key_file: key_file.as_str().into(),
                });
                let (server_name, ca) = (optional(&message.server_name), optional(&message.ca));
                Self { server_name, ca, min_days_left: message.min_days_left, identity }
            }
        }

        impl Field<Option<$side::TlsCheck>> for Option<TlsCheck> {
            fn write(&self) -> Option<$side::TlsCheck> {
                self.as_ref().map(|check| {
                    let mut message = $side::TlsCheck::default();
                    check.write_to(&mut message);
                    message
                })
            }

            fn read(
                field: &Option<$side::TlsCheck>,
                at: &Path<'_>,
                _: &Self,
                reader: &mut Reader,
            ) -> Self {
                field.as_ref().map(|message| TlsCheck::read_from(message, at, &TlsCheck::default(), reader))
            }
        }

        impl Field<Vec<$side::HttpField>> for Vec<(Arc<str>, Arc<str>)> {
            fn write(&self) -> Vec<$side::HttpField> {
                let field = |(name, value): &(Arc<str>, Arc<str>)| $side::HttpField {
                    name: name.to_string(),
                    value: value.to_string(),
                };
                self.iter().map(field).collect()
            }

            fn read(field: &Vec<$side::HttpField>, _: &Path<'_>, _: &Self, _: &mut Reader) -> Self {
                field.iter().map(|f| (f.name.as_str().into(), f.value.as_str().into())).collect()
            }
        }

        impl Field<Vec<$side::ExchangeStep>> for Vec<ExchangeStep> {
            fn write(&self) -> Vec<$side::ExchangeStep> {
                self.iter().filter_map(Field::<Option<$side::ExchangeStep>>::write).collect()
            }

            fn read(
                field: &Vec<$side::ExchangeStep>,
                at: &Path<'_>,
                _: &Self,
                reader: &mut Reader,
            ) -> Self {
                let none = ExchangeStep::default();
                field.iter().map(|step| ExchangeStep::read_from(step, at, &none, reader)).collect()
            }
        }
    )+};
}

both! {
    v1: TcpCheck, NoCheck;
    storage: Blank, Blank;
}
