//! The document of a backup: `trestle.v1.Configuration` in protobuf's own JSON mapping, with the fields' names as in the
//! protos.

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use trestle_api::v1;

use crate::error::Error;

fn failed(why: impl ToString) -> Error {
    Error::Encode(why.to_string())
}

fn descriptor() -> Result<MessageDescriptor, Error> {
    let pool = DescriptorPool::decode(trestle_api::DESCRIPTORS).map_err(failed)?;
    pool.get_message_by_name("trestle.v1.Configuration").ok_or_else(|| failed("its type is not described"))
}

/// Renders a document as JSON, with a line break at the end.
///
/// # Errors
/// When the encoder refuses it.
pub(crate) fn to_json(document: &v1::Configuration) -> Result<String, Error> {
    let mut message = DynamicMessage::new(descriptor()?);
    message.transcode_from(document).map_err(failed)?;
    let mut json = Vec::new();
    let mut serializer = serde_json::Serializer::pretty(&mut json);
    let options = SerializeOptions::new().use_proto_field_name(true);
    message.serialize_with_options(&mut serializer, &options).map_err(failed)?;
    json.push(b'\n');
    String::from_utf8(json).map_err(failed)
}

/// Reads a document; the inner error is what is wrong with it, and where.
///
/// # Errors
/// When its type is not known, which no document can bring about.
pub(crate) fn from_json(text: &str) -> Result<Result<v1::Configuration, String>, Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let message = DynamicMessage::deserialize(descriptor()?, &mut deserializer);
    let whole = message.and_then(|message| deserializer.end().map(|()| message));
    Ok(match whole {
        Ok(message) => message.transcode_to().map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::sample::{sample_backend, sample_listener, sample_pool};

    #[test]
    fn a_document_is_read_as_it_was_written_and_what_it_does_not_know_is_refused() {
        let document = v1::Configuration {
            format_version: 1,
            pools: vec![sample_pool("web")],
            backends: vec![sample_backend("a", 1)],
            listeners: vec![sample_listener("web")],
            ..Default::default()
        };
        let text = to_json(&document).unwrap();
        assert!(text.contains("\"format_version\": 1"), "{text}");
        assert_eq!(from_json(&text).unwrap().unwrap(), document);
        for (wrong, part) in [
            (text.replacen("format_version", "format_versoin", 1), "format_versoin"),
            (text.replacen('1', "\"one\"", 1), "line 2"),
            (format!("{text}{text}"), "trailing"),
            (String::new(), "EOF"),
        ] {
            let refused = from_json(&wrong).unwrap().unwrap_err();
            assert!(refused.contains(part), "{part}: {refused}");
        }
    }
}
