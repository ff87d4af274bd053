//! The settings of documents in messages: one table of fields for each, which serves the API and the disk. A setting that is not
//! set has its default.

mod check;
mod document;
mod text;
mod value;

pub(crate) use document::{admin_state, backend, health, listener, pool, vip};
pub use value::time;
pub(crate) use value::{metadata, noted};

use std::fmt;

use trestle_model::Violations;

/// Where a field is, for those who made a mistake in it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Path<'a> {
    Root(&'static str),
    Field(&'a Path<'a>, &'static str),
    Item(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// Its own name.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Root(name) | Self::Field(_, name) => name,
            Self::Item(list, _) => list.name(),
        }
    }

    /// The one that it is in.
    pub(crate) fn parent(&self) -> Self {
        match self {
            Self::Root(_) => *self,
            Self::Field(parent, _) | Self::Item(parent, _) => **parent,
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(list, number) => write!(f, "{list}[{number}]"),
        }
    }
}

/// Reads messages and collects their mistakes.
#[derive(Debug, Default)]
pub struct Reader {
    /// What is wrong.
    pub(crate) found: Violations,
    /// From a disk: takes whatever was taken once, where rules were tightened since.
    pub(crate) stored: bool,
}

impl Reader {
    fn take<T>(&mut self, at: &Path<'_>, value: &str, parsed: Result<T, String>) -> Option<T> {
        match parsed {
            Ok(parsed) => Some(parsed),
            Err(rule) => {
                self.found.add(at.to_string(), value, rule);
                None
            }
        }
    }
}

/// A setting that a field of type `M` holds.
pub(crate) trait Field<M>: Sized {
    /// The field.
    fn write(&self) -> M;
    /// The setting; `default` where the field is not set, and in place of one with a mistake, which is noted.
    fn read(field: &M, at: &Path<'_>, default: &Self, reader: &mut Reader) -> Self;
}

/// Settings that a message of type `M` holds.
pub(crate) trait Settings<M>: Sized {
    /// Sets the fields of the settings, and no other.
    fn write_to(&self, message: &mut M);
    /// The settings, as [`Field::read`] does.
    fn read_from(message: &M, at: &Path<'_>, default: &Self, reader: &mut Reader) -> Self;
}

/// Settings of which some can be changed by the paths of a field mask.
pub(crate) trait Masked {
    /// Every path.
    fn paths() -> Vec<String>;
    /// Takes over the settings whose paths are named.
    fn take_over(&mut self, from: &Self, is_named: &dyn Fn(&str) -> bool);
}

/// Ties settings to the fields of the same names in messages. `added` are settings that came after the format of the disk, with
/// their defaults, which are not written there: what is stored, and its digest, stay what they were. `nested` are settings in a
/// message of their own, with the field's name; `metadata` says that the messages have `owner` and `annotations` for a field of
/// that name.
macro_rules! settings {
    ($model:ty: [$api:ty, $disk:ty] $fields:tt) => {
        settings!(@message $model, $api, false, $fields);
        settings!(@message $model, $disk, true, $fields);
        settings!(@masked $model, $fields);
    };
    (@message $model:ty, $message:ty, $stored:literal, {
        $($field:ident),+ $(,)?
        $(; added $($added:ident = $default:expr),+)?
        $(; nested $nested:ident: $name:ident as $of:ty)?
        $(; metadata $metadata:ident)?
    }) => {
        impl crate::settings::Settings<$message> for $model {
            fn write_to(&self, message: &mut $message) {
                use crate::settings::Field as _;
                $(message.$field = self.$field.write();)+
                $($(if !$stored || self.$added != $default {
                    message.$added = self.$added.write();
                })+)?
                $(message.$name = self.$nested.write();)?
                $((message.owner, message.annotations) = crate::settings::noted(&self.$metadata);)?
            }

            fn read_from(
                message: &$message,
                at: &crate::settings::Path<'_>,
                default: &Self,
                reader: &mut crate::settings::Reader,
            ) -> Self {
                use crate::settings::{Field, Path};
                Self {
                    $($field: Field::read(
                        &message.$field,
                        &Path::Field(at, stringify!($field)),
                        &default.$field,
                        reader,
                    ),)+
                    $($($added: Field::read(
                        &message.$added,
                        &Path::Field(at, stringify!($added)),
                        &default.$added,
                        reader,
                    ),)+)?
                    $($nested: Field::read(
                        &message.$name,
                        &Path::Field(at, stringify!($name)),
                        &default.$nested,
                        reader,
                    ),)?
                    $($metadata: crate::settings::metadata(&message.owner, &message.annotations),)?
                }
            }
        }

        impl crate::settings::Field<Option<$message>> for $model {
            fn write(&self) -> Option<$message> {
                let mut message = <$message>::default();
                crate::settings::Settings::write_to(self, &mut message);
                Some(message)
            }

            fn read(
                field: &Option<$message>,
                at: &crate::settings::Path<'_>,
                default: &Self,
                reader: &mut crate::settings::Reader,
            ) -> Self {
                use crate::settings::Settings;
                match field {
                    Some(message) => Self::read_from(message, at, default, reader),
                    None => Self::read_from(&<$message>::default(), at, default, reader),
                }
            }
        }
    };
    (@masked $model:ty, {
        $($field:ident),+ $(,)?
        $(; added $($added:ident = $default:expr),+)?
        $(; nested $nested:ident: $name:ident as $of:ty)?
        $(; metadata $metadata:ident)?
    }) => {
        impl crate::settings::Masked for $model {
            fn paths() -> Vec<String> {
                let paths = [$(stringify!($field),)+ $($(stringify!($added)),+)?].map(str::to_owned).into_iter();
                $(
                    let below = <$of as crate::settings::Masked>::paths().into_iter();
                    let paths = paths.chain(below.map(|path| format!("{}.{path}", stringify!($name))));
                )?
                $(
                    let _: fn(&Self) -> &trestle_model::Metadata = |settings| &settings.$metadata;
                    let paths = paths.chain(["owner", "annotations"].map(str::to_owned));
                )?
                paths.collect()
            }

            fn take_over(&mut self, from: &Self, is_named: &dyn Fn(&str) -> bool) {
                $(if is_named(stringify!($field)) {
                    self.$field.clone_from(&from.$field);
                })+
                $($(if is_named(stringify!($added)) {
                    self.$added.clone_from(&from.$added);
                })+)?
                $(self.$nested.take_over(&from.$nested, &|path: &str| {
                    is_named(&format!("{}.{path}", stringify!($name)))
                });)?
                $(
                    if is_named("owner") {
                        self.$metadata.owner.clone_from(&from.$metadata.owner);
                    }
                    if is_named("annotations") {
                        self.$metadata.annotations.clone_from(&from.$metadata.annotations);
                    }
                )?
            }
        }
    };
}
pub(crate) use settings;
