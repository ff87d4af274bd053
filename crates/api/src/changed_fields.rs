//! Which settings of a resource an update changed.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};

use crate::differences::NO_SETTINGS;

/// Decoding the descriptors takes much longer than comparing two messages.
static DESCRIPTORS: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(crate::DESCRIPTORS).ok());

/// The settings that have another value in `now` than in `before`, as paths of an update mask, in the order of the fields.
pub(crate) fn changed_fields<T: Message + prost::Name>(before: &T, now: &T) -> Vec<String> {
    let mut paths = Vec::new();
    let described = DESCRIPTORS.as_ref().and_then(|all| all.get_message_by_name(&T::full_name()));
    if let Some(described) = described {
        compare("", &described, [&before.encode_to_vec(), &now.encode_to_vec()], &mut paths);
    }
    paths
}

/// Compares two encoded messages of one type. Equal ones are encoded alike: their fields come in the order of the type, and there
/// are no maps among them.
fn compare(prefix: &str, described: &MessageDescriptor, both: [&[u8]; 2], paths: &mut Vec<String>) {
    let [before, now] = both.map(split);
    for field in described.fields().filter(|field| !NO_SETTINGS.contains(&field.name())) {
        let [was, is] =
            [&before, &now].map(|fields| fields.get(&field.number()).map_or(&[][..], Vec::as_slice));
        // The kinds of a check are one setting: the one that is there now names it.
        let kinds = field.containing_oneof();
        let replaced = is.is_empty()
            && kinds.is_some_and(|kinds| kinds.fields().any(|other| now.contains_key(&other.number())));
        if was == is || replaced {
            continue;
        }
        let path = format!("{prefix}{}", field.name());
        match (group(&field), was, is) {
            (Some(inner), [was], [is]) => compare(&format!("{path}."), &inner, [was, is], paths),
            _ => paths.push(path),
        }
    }
}

/// The type of a message whose fields are settings of their own.
fn group(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    let Kind::Message(inner) = field.kind() else { return None };
    let is_group = !field.is_list() && field.containing_oneof().is_none();
    (is_group && inner.full_name() != "google.protobuf.Duration").then_some(inner)
}

/// The values of each field of an encoded message, by the field's number.
fn split(mut bytes: &[u8]) -> BTreeMap<u32, Vec<&[u8]>> {
    let mut fields = BTreeMap::<u32, Vec<&[u8]>>::new();
    while let Some((number, value, rest)) = next(bytes) {
        fields.entry(number).or_default().push(value);
        bytes = rest;
    }
    fields
}

/// The number of the first field, its value, and what follows it; `None` at the end, and for what this program did not encode.
fn next(bytes: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let (key, bytes) = varint(bytes)?;
    let (length, bytes) = match key & 7 {
        0 => (bytes.len() - varint(bytes)?.1.len(), bytes),
        1 => (8, bytes),
        2 => {
            let (length, bytes) = varint(bytes)?;
            (usize::try_from(length).ok()?, bytes)
        }
        5 => (4, bytes),
        _ => return None,
    };
    let (value, rest) = bytes.split_at_checked(length)?;
    Some((u32::try_from(key >> 3).ok()?, value, rest))
}

/// A number in base 128, the lowest group first (the encoding guide of protobuf, "Base 128 Varints"), and what follows it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let last = bytes.iter().take(10).position(|byte| byte & 0x80 == 0)?;
    let (number, rest) = bytes.split_at(last + 1);
    let value = number.iter().rev().fold(0, |value: u64, byte| value << 7 | u64::from(byte & 0x7f));
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;
    use crate::v1::health_check::Kind as Check;

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    fn pool(kind: Check) -> v1::Pool {
        let check = v1::HealthCheck { kind: Some(kind), interval: seconds(2), ..Default::default() };
        v1::Pool {
            name: "pools/web".to_owned(),
            health_check: Some(check),
            minimum_healthy: Some(1),
            connect_timeout: seconds(2),
            revision: 7,
            etag: "7".to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn each_setting_that_changed_has_its_path() {
        let before = pool(Check::Tcp(v1::TcpCheck {}));
        let mut now = v1::Pool { revision: 8, etag: "8".to_owned(), backend_count: 4, ..before.clone() };
        assert_eq!(changed_fields(&before, &now), [""; 0]);
        now.minimum_healthy = Some(300);
        now.connect_timeout = seconds(3);
        now.health_check.get_or_insert_default().interval = seconds(5);
        now.set_on_down(v1::OnDown::Keep);
        let mut paths = changed_fields(&before, &now);
        paths.sort();
        assert_eq!(paths, ["connect_timeout", "health_check.interval", "minimum_healthy", "on_down"]);
    }

    #[test]
    fn another_kind_of_check_is_one_change() {
        let [tcp, http] = [Check::Tcp(v1::TcpCheck {}), Check::Http(v1::HttpCheck::default())].map(pool);
        assert_eq!(changed_fields(&tcp, &http), ["health_check.http"]);
        let other = v1::HttpCheck { path: "/livez".to_owned(), ..Default::default() };
        assert_eq!(changed_fields(&http, &pool(Check::Http(other))), ["health_check.http"]);
    }

    #[test]
    fn lists_and_what_goes_back_to_nothing_are_changes() {
        let before = v1::Listener {
            binds: vec!["0.0.0.0:80".to_owned()],
            max_connections: 300,
            deny: vec!["10.0.0.0/8".to_owned()],
            ..Default::default()
        };
        let now = v1::Listener {
            binds: vec!["0.0.0.0:80".to_owned(), "0.0.0.0:81".to_owned()],
            deny: before.deny.clone(),
            ..Default::default()
        };
        let mut paths = changed_fields(&before, &now);
        paths.sort();
        assert_eq!(paths, ["binds", "max_connections"]);
    }
}
