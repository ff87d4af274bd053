//! What of a resource that is there differs from the settings that a creation asks for.

use std::collections::HashMap;
use std::time::Duration;

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, ReflectMessage, Value,
};
use trestle_model::Violation;

/// What only the server sets, or what names the resource.
pub(crate) const NO_SETTINGS: &[&str] =
    &["name", "revision", "create_revision", "etag", "backend_count", "addresses", "warnings"];
/// Longest value that is told of a setting; a certificate is longer.
const SHOWN_MAX: usize = 120;

/// The settings that are set in `given` and have another value in `existing` than in `made`, which is what creating it
/// would make: each with the value that is asked for, and the one that is there in the rule.
///
/// # Errors
/// When the type is not described, which would be a fault of the build.
pub fn differences<T: Message + prost::Name>(
    given: &T,
    made: &T,
    existing: &T,
) -> Result<Vec<Violation>, String> {
    let pool = DescriptorPool::decode(crate::DESCRIPTORS).map_err(|error| error.to_string())?;
    let described = pool.get_message_by_name(&T::full_name()).ok_or("its type is not described")?;
    let read = |message: &T| {
        let bytes = message.encode_to_vec();
        DynamicMessage::decode(described.clone(), bytes.as_slice()).map_err(|error| error.to_string())
    };
    let mut found = Vec::new();
    compare(&T::NAME.to_lowercase(), &read(given)?, [&read(made)?, &read(existing)?], &mut found);
    Ok(found)
}

fn compare(path: &str, given: &DynamicMessage, both: [&DynamicMessage; 2], found: &mut Vec<Violation>) {
    let descriptor = given.descriptor();
    for field in descriptor.fields().filter(|field| given.has_field(field)) {
        if NO_SETTINGS.contains(&field.name()) {
            continue;
        }
        let path = format!("{path}.{}", field.name());
        let [made, there] = both.map(|message| message.get_field(&field).into_owned());
        if let (Some(inner), Value::Message(made), Value::Message(there)) =
            (group(given, &field), &made, &there)
        {
            compare(&path, &inner, [made, there], found);
            continue;
        }
        if let (Value::Map(made), Value::Map(there)) = (&made, &there) {
            compare_entries(&path, made, there, found);
            continue;
        }
        // The kinds of a check are one setting, of which another may be there.
        let kinds = field.containing_oneof();
        let kind = kinds.and_then(|kinds| kinds.fields().find(|other| both[1].has_field(other)));
        let rule = match kind {
            Some(other) if other != field => format!("is {} there", other.name()),
            _ if made == there => continue,
            _ => format!("is {} there", text(&there, &field)),
        };
        found.push(Violation::new(path, text(&made, &field), rule));
    }
}

/// Each entry of a map is a setting of its own: what others have noted beside it does not differ.
fn compare_entries(
    path: &str,
    made: &HashMap<MapKey, Value>,
    there: &HashMap<MapKey, Value>,
    found: &mut Vec<Violation>,
) {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).unwrap_or("none").to_owned();
    let mut differing: Vec<_> = made.iter().filter(|(key, value)| there.get(key) != Some(value)).collect();
    differing.sort_by_key(|(key, _)| key.as_str().map(str::to_owned));
    for (key, value) in differing {
        let rule = format!("is {} there", there.get(key).map_or_else(|| "none".to_owned(), text));
        found.push(Violation::new(
            format!("{path}[{}]", key.as_str().unwrap_or_default()),
            text(value),
            rule,
        ));
    }
}

/// A message whose fields are settings of their own.
fn group(given: &DynamicMessage, field: &FieldDescriptor) -> Option<DynamicMessage> {
    if field.is_list() || field.is_map() || field.containing_oneof().is_some() {
        return None;
    }
    let value = given.get_field(field).into_owned();
    let Value::Message(message) = value else { return None };
    (message.descriptor().full_name() != "google.protobuf.Duration").then_some(message)
}

/// A value in the words of the options.
fn text(value: &Value, field: &FieldDescriptor) -> String {
    let mut text = words(value, field);
    if let Some((end, _)) = text.char_indices().nth(SHOWN_MAX) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

fn words(value: &Value, field: &FieldDescriptor) -> String {
    match (value, field.kind()) {
        (Value::List(values), _) if values.is_empty() => "none".to_owned(),
        (Value::List(values), _) => {
            values.iter().map(|value| words(value, field)).collect::<Vec<_>>().join(",")
        }
        (Value::EnumNumber(number), Kind::Enum(words)) => word(&words, *number),
        (Value::String(text), _) if text.is_empty() => "none".to_owned(),
        (Value::String(text), _) => text.clone(),
        (Value::Bytes(bytes), _) => bytes.escape_ascii().to_string(),
        (Value::Bool(value), _) => value.to_string(),
        (Value::U32(number), _) => number.to_string(),
        (Value::Message(message), _) => message_words(message, field),
        (other, _) => format!("{other:?}"),
    }
}

/// "round-robin" for ALGORITHM_ROUND_ROBIN.
fn word(words: &EnumDescriptor, number: i32) -> String {
    let Some(value) = words.get_value(number) else { return number.to_string() };
    let first = words.get_value(0);
    let prefix = first.as_ref().and_then(|zero| zero.name().strip_suffix("UNSPECIFIED")).unwrap_or_default();
    value.name().strip_prefix(prefix).unwrap_or(value.name()).to_lowercase().replace('_', "-")
}

fn message_words(message: &DynamicMessage, field: &FieldDescriptor) -> String {
    if let Ok(duration) = message.transcode_to::<prost_types::Duration>()
        && message.descriptor().full_name() == "google.protobuf.Duration"
    {
        let text = |d: Duration| if d.is_zero() { "0s".to_owned() } else { format!("{d:?}") };
        return Duration::try_from(duration).map(text).unwrap_or_default();
    }
    let each = message.fields().map(|(inner, value)| format!("{} {}", inner.name(), words(value, &inner)));
    let inside = each.collect::<Vec<_>>().join(" ");
    match (field.containing_oneof(), inside.as_str()) {
        (Some(_), "") => field.name().to_owned(),
        (Some(_), inside) => format!("{} {inside}", field.name()),
        (None, inside) => format!("{{{inside}}}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::v1;
    use crate::v1::health_check::Kind;

    fn told(given: &v1::Pool, made: &v1::Pool, there: &v1::Pool) -> Vec<String> {
        differences(given, made, there).unwrap().iter().map(ToString::to_string).collect()
    }

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    fn checked(kind: Kind, interval: i64) -> v1::Pool {
        let check =
            v1::HealthCheck { kind: Some(kind), interval: seconds(interval), ..v1::HealthCheck::default() };
        v1::Pool {
            name: "pools/web".to_owned(),
            algorithm: v1::Algorithm::RoundRobin.into(),
            health_check: Some(check),
            connect_timeout: seconds(2),
            connect_retries: Some(3),
            revision: 7,
            ..v1::Pool::default()
        }
    }

    #[test]
    fn only_what_is_set_is_compared_and_each_difference_is_told() {
        let (tcp, tls) = (Kind::Tcp(v1::TcpCheck {}), Kind::Tls(v1::TlsCheck::default()));
        let there = checked(tcp.clone(), 2);
        let nothing = v1::Pool::default();
        assert_eq!(told(&nothing, &checked(tls.clone(), 5), &there), [""; 0]);
        let given = v1::Pool { name: "pools/other".to_owned(), connect_retries: Some(3), ..nothing.clone() };
        assert_eq!(told(&given, &there, &there), [""; 0]);

        let mut wanted = checked(tls, 5);
        wanted.set_algorithm(v1::Algorithm::LeastConnections);
        wanted.connect_retries = Some(0);
        assert_eq!(
            told(&wanted, &wanted, &there),
            [
                "pool.algorithm \"least-connections\": is round-robin there",
                "pool.health_check.interval \"5s\": is 2s there",
                "pool.health_check.tls \"tls\": is tcp there",
                "pool.connect_retries \"0\": is 3 there",
            ]
        );
    }

    #[test]
    fn a_check_of_the_same_kind_is_compared_as_a_whole() {
        let http = |path: &str, method: &str| {
            let check = v1::HttpCheck {
                path: path.to_owned(),
                method: method.to_owned(),
                ..v1::HttpCheck::default()
            };
            checked(Kind::Http(check), 2)
        };
        let there = http("/readyz", "GET");
        assert_eq!(told(&http("/readyz", ""), &http("/readyz", "GET"), &there), [""; 0]);
        assert_eq!(
            told(&http("/livez", ""), &http("/livez", "GET"), &there),
            ["pool.health_check.http \"http method GET path /livez\": is http method GET path /readyz there"]
        );
    }

    #[test]
    fn lists_are_told_whole_and_long_values_cut() {
        let there = v1::Listener { binds: vec!["0.0.0.0:80".to_owned()], ..v1::Listener::default() };
        let route =
            v1::Route { server_names: vec!["*.a".to_owned()], pool: "pools/a".to_owned(), alpn: vec![] };
        let wanted = v1::Listener {
            binds: vec!["0.0.0.0:80".to_owned(), "0.0.0.0:81".to_owned()],
            routes: vec![route],
            deny: vec!["2001:db8::/32".to_owned(); 20],
            ..v1::Listener::default()
        };
        let found = differences(&wanted, &wanted, &there).unwrap();
        let told: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(told[0], "listener.binds \"0.0.0.0:80,0.0.0.0:81\": is 0.0.0.0:80 there");
        assert_eq!(told[1], "listener.routes \"{server_names *.a pool pools/a}\": is none there");
        assert!(told[2].ends_with("…\": is none there") && told[2].len() < 200, "{}", told[2]);
    }
}
