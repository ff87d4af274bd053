//! What was probably meant, where clap only says that it does not know a word.

use std::ffi::OsString;

/// Nouns as they may be typed, and as commands have them.
const NOUNS: [(&str, &str); 16] = [
    ("backend", "backend"),
    ("backends", "backend"),
    ("connection", "connection"),
    ("connections", "connection"),
    ("listener", "listener"),
    ("listeners", "listener"),
    ("member", "member"),
    ("members", "member"),
    ("node", "member"),
    ("nodes", "member"),
    ("pool", "pool"),
    ("pools", "pool"),
    ("server", "backend"),
    ("servers", "backend"),
    ("vip", "vip"),
    ("vips", "vip"),
];

/// Verbs that other programs put before the noun.
const VERBS: [&str; 17] = [
    "add", "close", "create", "delete", "describe", "disable", "drain", "enable", "get", "list", "ls",
    "move", "remove", "rm", "set", "show", "update",
];

/// Global options that take a value of their own.
const WITH_VALUE: [&str; 5] = ["--context", "--endpoint", "--output", "-o", "--timeout"];

/// The words of a command line that are no options.
fn words(args: &[OsString]) -> Vec<&str> {
    let mut words = Vec::new();
    let mut args = args.iter().skip(1).filter_map(|arg| arg.to_str());
    while let Some(arg) = args.next() {
        if WITH_VALUE.contains(&arg) {
            args.next();
        } else if !arg.starts_with('-') {
            words.push(arg);
        }
    }
    words
}

/// What a command line that was refused probably meant.
pub(crate) fn hint(args: &[OsString]) -> Option<String> {
    let noun = |word: &str| NOUNS.iter().find(|(typed, _)| *typed == word).map(|(_, noun)| *noun);
    match words(args).as_slice() {
        ["help", rest @ ..] => {
            let rest: String = rest.iter().map(|word| format!(" {}", noun(word).unwrap_or(word))).collect();
            Some(format!("help is an option: \"trestle{rest} --help\""))
        }
        ["version"] => Some("the version is an option: \"trestle --version\"".to_owned()),
        [verb, typed, rest @ ..] if VERBS.contains(verb) => Some(noun_first(verb, noun(typed)?, rest)),
        // A verb of another program for a backend with its name apart.
        [typed, verb, pool, name, rest @ ..]
            if noun(typed) == Some("backend") && VERBS.contains(verb) && !pool.contains('/') =>
        {
            let rest: String = rest.iter().map(|word| format!(" {word}")).collect();
            Some(format!("a backend is named POOL/NAME: \"trestle backend {verb} {pool}/{name}{rest}\""))
        }
        _ => None,
    }
}

fn noun_first(verb: &str, noun: &str, rest: &[&str]) -> String {
    let verb = match (verb, rest) {
        // A backend's list may name its pool, which is no backend.
        ("get" | "show" | "describe", [pool]) if noun == "backend" && !pool.contains('/') => "list",
        ("get" | "show" | "describe", []) => "list",
        ("describe" | "show", _) => "get",
        ("ls", _) => "list",
        ("rm", _) => "delete",
        ("set", _) => "update",
        (verb, _) => verb,
    };
    let rest: String = rest.iter().map(|word| format!(" {word}")).collect();
    format!("the noun comes first: \"trestle {noun} {verb}{rest}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hinted(line: &str) -> Option<String> {
        hint(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn other_programs_orders_are_turned_round() {
        for (line, meant) in [
            ("trestle get pools", "trestle pool list"),
            ("trestle -o json get pools", "trestle pool list"),
            ("trestle get pool web", "trestle pool get web"),
            ("trestle describe vip api", "trestle vip get api"),
            ("trestle --endpoint=a:1 get backends web", "trestle backend list web"),
            ("trestle rm listener front", "trestle listener delete front"),
            ("trestle drain node m1", "trestle member drain m1"),
        ] {
            assert_eq!(hinted(line), Some(format!("the noun comes first: \"{meant}\"")), "{line}");
        }
    }

    #[test]
    fn a_backend_with_its_name_apart_is_put_together() {
        assert_eq!(
            hinted("trestle backend add kube-api c3 10.0.0.3:6443 --weight 2").as_deref(),
            Some("a backend is named POOL/NAME: \"trestle backend add kube-api/c3 10.0.0.3:6443 2\"")
        );
        assert_eq!(hinted("trestle frobnicate"), None);
        assert_eq!(
            hinted("trestle help pools").as_deref(),
            Some("help is an option: \"trestle pool --help\"")
        );
        assert_eq!(hinted("trestle backend add web/a 10.0.0.1:80 --nothing"), None);
    }
}
