//! Bytes as they are typed and shown: text with escapes for what is no printable character.

const RULE: &str = r"must be text in which \r, \n, \t, \\ and \xNN are the only escapes, as in 'PING\r\n'";

/// Parses text with escapes; what has none stands for its UTF-8 bytes.
///
/// # Errors
/// When a backslash begins no escape.
pub(crate) fn parse(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (byte, used) = match escape.as_bytes() {
            [b'r', ..] => (b'\r', 1),
            [b'n', ..] => (b'\n', 1),
            [b't', ..] => (b'\t', 1),
            [b'\\', ..] => (b'\\', 1),
            [b'x', high, low, ..] => (hex(*high, *low).ok_or(RULE)?, 3),
            _ => return Err(RULE.to_owned()),
        };
        bytes.push(byte);
        rest = escape.get(used..).ok_or(RULE)?;
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Writes bytes as [`parse`] takes them: in ASCII, with escapes for all else.
pub(crate) fn show(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_round_trip() {
        let every: Vec<u8> = (0..=255).collect();
        assert_eq!(parse(&show(&every)), Ok(every));
        assert_eq!(parse(r"PING\r\n\t\\\x00\xFf"), Ok(b"PING\r\n\t\\\x00\xff".to_vec()));
        assert_eq!(parse("ü"), Ok("ü".as_bytes().to_vec()));
        assert_eq!(show(b"+OK \"x\"\r\n\x80"), r#"+OK "x"\r\n\x80"#);
    }

    #[test]
    fn a_backslash_that_begins_nothing_is_refused() {
        for text in [r"\", r"a\", r"\q", r"\x", r"\x1", r"\xg0", r"\x+1", "\\x1ü", "\\ü"] {
            assert_eq!(parse(text), Err(RULE.to_owned()), "{text:?}");
        }
    }
}
