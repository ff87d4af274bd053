//! Settings that are numbers, times, switches and lists.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use trestle_model::defaults::{DURATION_MAX, WEIGHT_BOUNDS};
use trestle_model::{Choice, Metadata, Port};

use super::{Field, Path, Reader};

/// A duration in a message. All are bounded to days.
pub fn time(time: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.subsec_nanos()).unwrap_or(0),
    }
}

impl Field<Option<prost_types::Duration>> for Duration {
    fn write(&self) -> Option<prost_types::Duration> {
        Some(time(*self))
    }

    fn read(
        field: &Option<prost_types::Duration>,
        at: &Path<'_>,
        default: &Self,
        reader: &mut Reader,
    ) -> Self {
        Option::read(field, at, &None, reader).unwrap_or(*default)
    }
}

impl Field<Option<prost_types::Duration>> for Option<Duration> {
    fn write(&self) -> Option<prost_types::Duration> {
        self.map(time)
    }

    fn read(
        field: &Option<prost_types::Duration>,
        at: &Path<'_>,
        default: &Self,
        reader: &mut Reader,
    ) -> Self {
        let Some(given) = field else { return *default };
        // Not prost's conversion, which takes any nanos and carries them over.
        match (u64::try_from(given.seconds), u32::try_from(given.nanos)) {
            (Ok(seconds), Ok(nanos))
                if nanos < 1_000_000_000 && Duration::new(seconds, nanos) < DURATION_MAX =>
            {
                Some(Duration::new(seconds, nanos))
            }
            (Ok(seconds), Ok(_)) if seconds >= DURATION_MAX.as_secs() => {
                reader.found.add(at.to_string(), format!("{seconds}s"), "must be less than 10 years");
                None
            }
            _ => {
                let shown = format!("{}s {}ns", given.seconds, given.nanos);
                let rule = "must not be negative, and its nanos must be less than a second";
                reader.found.add(at.to_string(), shown, rule);
                None
            }
        }
    }
}

impl<T: Choice> Field<i32> for T {
    fn write(&self) -> i32 {
        self.number()
    }

    fn read(field: &i32, at: &Path<'_>, default: &Self, reader: &mut Reader) -> Self {
        match (*field, T::of_number(*field)) {
            (0, _) => *default,
            (_, Some(value)) => value,
            (number, None) => {
                reader.found.add(at.to_string(), number, format!("must be {}", numbers::<T>(at.name())));
                *default
            }
        }
    }
}

/// The values of a choice as the API names them: "ON_DOWN_CLOSE (1) or ON_DOWN_KEEP (2)".
fn numbers<T: Choice>(field: &str) -> String {
    let name = |text: &str| text.to_uppercase().replace('-', "_");
    let mut all: Vec<_> = T::TABLE.iter().collect();
    all.sort_by_key(|chosen| chosen.number);
    let values: Vec<String> =
        all.iter().map(|c| format!("{}_{} ({})", name(field), name(c.word), c.number)).collect();
    match values.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => values.concat(),
    }
}

impl Field<Option<u32>> for u32 {
    fn write(&self) -> Option<u32> {
        Some(*self)
    }

    fn read(field: &Option<u32>, _: &Path<'_>, default: &Self, _: &mut Reader) -> Self {
        field.unwrap_or(*default)
    }
}

impl Field<u32> for u32 {
    fn write(&self) -> u32 {
        *self
    }

    fn read(field: &u32, _: &Path<'_>, _: &Self, _: &mut Reader) -> Self {
        *field
    }
}

impl Field<bool> for bool {
    fn write(&self) -> bool {
        *self
    }

    fn read(field: &bool, _: &Path<'_>, _: &Self, _: &mut Reader) -> Self {
        *field
    }
}

/// A weight.
impl Field<Option<u32>> for u16 {
    fn write(&self) -> Option<u32> {
        Some((*self).into())
    }

    fn read(field: &Option<u32>, at: &Path<'_>, default: &Self, reader: &mut Reader) -> Self {
        let Some(given) = *field else { return *default };
        Self::try_from(given).unwrap_or_else(|_| {
            let rule = format!("must be {} to {}", WEIGHT_BOUNDS.start(), WEIGHT_BOUNDS.end());
            reader.found.add(at.to_string(), given, rule);
            *default
        })
    }
}

/// A port, where 0 means none.
impl Field<u32> for Option<Port> {
    fn write(&self) -> u32 {
        self.map_or(0, |port| port.get().into())
    }

    fn read(field: &u32, at: &Path<'_>, default: &Self, reader: &mut Reader) -> Self {
        match u16::try_from(*field) {
            Ok(port) => Port::new(port),
            Err(_) => {
                let rule = "port must be 1 to 65535, or 0 for the backend's own";
                reader.found.add(at.to_string(), *field, rule);
                *default
            }
        }
    }
}

impl Field<Vec<u8>> for Arc<[u8]> {
    fn write(&self) -> Vec<u8> {
        self.to_vec()
    }

    fn read(field: &Vec<u8>, _: &Path<'_>, _: &Self, _: &mut Reader) -> Self {
        field.as_slice().into()
    }
}

/// The fields of metadata; their bounds are the model's to check.
pub(crate) fn noted(metadata: &Metadata) -> (String, BTreeMap<String, String>) {
    let Metadata { owner, annotations } = metadata;
    let notes = annotations.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    (owner.to_string(), notes.collect())
}

/// Metadata from its fields.
pub(crate) fn metadata(owner: &str, annotations: &BTreeMap<String, String>) -> Metadata {
    let notes = annotations.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into()));
    Metadata { owner: owner.into(), annotations: notes.collect() }
}
