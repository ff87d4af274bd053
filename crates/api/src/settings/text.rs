//! Settings that are written as text.

use std::sync::Arc;

use trestle_model::{
    BackendAddress, Cidr, InterfaceName, ListenAddress, MemberName, Method, NamePattern, PoolName,
    StatusRange, VipAddress,
};

use super::{Field, Path, Reader};

/// What is written as text.
pub(crate) trait Text: Sized + Clone {
    /// Whether an empty text stands for the default.
    const MAY_BE_EMPTY: bool = false;
    /// The text.
    fn text(&self) -> String;
    /// Parses the text; the error is the broken rule. What is stored may be what was taken once.
    fn parse(text: &str, stored: bool) -> Result<Self, String>;
}

macro_rules! texts {
    ($($type:ty),+ $(,)?) => {$(
        impl Text for $type {
            fn text(&self) -> String {
                self.to_string()
            }

            fn parse(text: &str, _: bool) -> Result<Self, String> {
                <$type>::parse(text)
            }
        }
    )+};
}

texts!(Cidr, InterfaceName, NamePattern, StatusRange, VipAddress);

impl Text for ListenAddress {
    fn text(&self) -> String {
        self.to_string()
    }

    fn parse(text: &str, stored: bool) -> Result<Self, String> {
        if stored { Self::decode(text) } else { Self::parse(text) }
    }
}

impl Text for BackendAddress {
    fn text(&self) -> String {
        self.to_string()
    }

    fn parse(text: &str, stored: bool) -> Result<Self, String> {
        if stored { Self::decode(text) } else { Self::parse(text) }
    }
}

impl Text for Method {
    const MAY_BE_EMPTY: bool = true;

    fn text(&self) -> String {
        self.as_str().to_owned()
    }

    fn parse(text: &str, _: bool) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl Text for Arc<str> {
    const MAY_BE_EMPTY: bool = true;

    fn text(&self) -> String {
        self.to_string()
    }

    fn parse(text: &str, _: bool) -> Result<Self, String> {
        Ok(text.into())
    }
}

/// The name in a resource's name: `web` of `pools/web`.
fn named<T>(
    text: &str,
    collection: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, String> {
    let name = text.strip_prefix(collection).ok_or_else(|| format!("must have the form {collection}NAME"))?;
    parse(name)
}

impl Text for PoolName {
    fn text(&self) -> String {
        format!("pools/{self}")
    }

    fn parse(text: &str, _: bool) -> Result<Self, String> {
        named(text, "pools/", Self::parse)
    }
}

impl Text for MemberName {
    fn text(&self) -> String {
        format!("members/{self}")
    }

    fn parse(text: &str, _: bool) -> Result<Self, String> {
        named(text, "members/", Self::parse)
    }
}

impl<T: Text> Field<String> for T {
    fn write(&self) -> String {
        self.text()
    }

    fn read(field: &String, at: &Path<'_>, default: &Self, reader: &mut Reader) -> Self {
        if field.is_empty() && T::MAY_BE_EMPTY {
            return default.clone();
        }
        reader.take(at, field, T::parse(field, reader.stored)).unwrap_or_else(|| default.clone())
    }
}

/// Where nothing is written as an empty text.
impl<T: Text> Field<String> for Option<T> {
    fn write(&self) -> String {
        self.as_ref().map(T::text).unwrap_or_default()
    }

    fn read(field: &String, at: &Path<'_>, default: &Self, reader: &mut Reader) -> Self {
        match field.as_str() {
            "" => default.clone(),
            text => reader.take(at, text, T::parse(text, reader.stored)),
        }
    }
}

/// A mistake is noted with its place where there are several; an empty list is the default.
impl<T: Text> Field<Vec<String>> for Vec<T> {
    fn write(&self) -> Vec<String> {
        self.iter().map(T::text).collect()
    }

    fn read(field: &Vec<String>, at: &Path<'_>, default: &Self, reader: &mut Reader) -> Self {
        if field.is_empty() {
            return default.clone();
        }
        let alone = field.len() == 1;
        let one = |(number, text): (usize, &String)| {
            let place = if alone { *at } else { Path::Item(at, number) };
            reader.take(&place, text, T::parse(text, reader.stored))
        };
        field.iter().enumerate().filter_map(one).collect()
    }
}
