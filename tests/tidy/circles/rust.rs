//! As much of a Rust file as tells what it uses.

use std::collections::BTreeSet;

/// One name that a `use` brings in.
pub(super) struct Used {
    pub(super) path: Vec<String>,
    /// What it is called here; `*` for everything.
    pub(super) name: String,
    /// Whether it is brought in for others.
    pub(super) passed_on: bool,
}

/// What a file uses and defines, without its tests.
#[derive(Default)]
pub(super) struct Rust {
    pub(super) uses: Vec<Used>,
    /// Paths of at least two names outside of `use`.
    pub(super) paths: Vec<Vec<String>>,
    /// Names outside of `use` and `mod`.
    pub(super) names: BTreeSet<String>,
    /// Names of types, functions and constants.
    pub(super) defines: BTreeSet<String>,
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Where the literal or comment ends that begins `text`; `None` when none does.
fn skipped(text: &str) -> Option<usize> {
    let to =
        |mark: &str, from: usize| text[from..].find(mark).map_or(text.len(), |at| from + at + mark.len());
    if text.starts_with("//") {
        return Some(to("\n", 2));
    }
    if text.starts_with("/*") {
        return Some(to("*/", 2));
    }
    if let Some(raw) = text.trim_start_matches('b').strip_prefix('r') {
        let quoted = raw.trim_start_matches('#');
        if quoted.starts_with('"') {
            let hashes = "#".repeat(raw.len() - quoted.len());
            return Some(to(&format!("\"{hashes}"), text.len() - quoted.len() + 1));
        }
    }
    if let Some(rest) = text.strip_prefix('"') {
        let mut escaped = false;
        let end = rest.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        return Some(end.map_or(text.len(), |end| end + 2));
    }
    let rest = text.strip_prefix('\'')?;
    let mut chars = rest.char_indices();
    match (chars.next()?.1, chars.next()?) {
        ('\\', (at, escape)) => {
            rest[at + escape.len_utf8()..].find('\'').map(|end| 1 + at + escape.len_utf8() + end + 1)
        }
        (_, (at, '\'')) => Some(at + 2),
        // A lifetime.
        _ => Some(1),
    }
}

/// The tokens of a file: names, `::`, and single characters.
fn tokens(text: &str) -> Vec<&str> {
    let (mut tokens, mut rest) = (Vec::new(), text);
    while let Some(c) = rest.chars().next() {
        let length = match skipped(rest) {
            Some(length) => {
                rest = &rest[length..];
                continue;
            }
            None if c.is_alphanumeric() || c == '_' => {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            }
            None if rest.starts_with("::") => 2,
            None => c.len_utf8(),
        };
        if !c.is_whitespace() {
            tokens.push(&rest[..length]);
        }
        rest = &rest[length..];
    }
    tokens
}

/// The tokens without items that are only there for tests.
fn without_tests<'a>(tokens: &[&'a str]) -> Vec<&'a str> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if !tokens[at..].starts_with(&MARK) {
            kept.push(tokens[at]);
            at += 1;
            continue;
        }
        at += MARK.len();
        // Up to the semicolon or brace that ends the item, past what is in brackets.
        let mut depth = 0_usize;
        while at < tokens.len() {
            match tokens[at] {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            at += 1;
            if depth == 0 && matches!(tokens[at - 1], ";" | "}") {
                break;
            }
        }
    }
    kept
}

/// Adds what a tree of `use` brings in, and answers what follows it.
fn add_uses<'t, 'a>(
    mut tokens: &'t [&'a str],
    mut path: Vec<String>,
    passed_on: bool,
    uses: &mut Vec<Used>,
) -> &'t [&'a str] {
    while let [name, "::", ..] = tokens {
        path.push((*name).to_owned());
        tokens = &tokens[2..];
    }
    match tokens {
        ["{", ..] => {
            tokens = &tokens[1..];
            while !matches!(tokens, [] | ["}", ..]) {
                tokens = add_uses(tokens, path.clone(), passed_on, uses);
                tokens = tokens.strip_prefix(&[","]).unwrap_or(tokens);
            }
            tokens.get(1..).unwrap_or_default()
        }
        [last, rest @ ..] => {
            if *last != "self" {
                path.push((*last).to_owned());
            }
            let (name, rest) = match rest {
                ["as", name, rest @ ..] => ((*name).to_owned(), rest),
                _ => (path.last().cloned().unwrap_or_default(), rest),
            };
            uses.push(Used { path, name, passed_on });
            rest
        }
        [] => tokens,
    }
}

impl Rust {
    /// Reads a file. What is no Rust is read as well as it can be.
    pub(super) fn parse(text: &str) -> Self {
        let tokens = tokens(text);
        let tokens = without_tests(&tokens);
        let mut found = Self::default();
        let mut rest: &[&str] = &tokens;
        let mut before = "";
        while let [token, after @ ..] = rest {
            match *token {
                "use" => {
                    let passed_on = matches!(before, "pub" | ")");
                    rest = add_uses(after, Vec::new(), passed_on, &mut found.uses);
                }
                "mod" if matches!(after, [_, ";", ..]) => rest = &after[2..],
                "struct" | "enum" | "trait" | "type" | "fn" | "const" | "static" | "union" => {
                    found.defines.extend(after.first().map(|name| (*name).to_owned()));
                    rest = after;
                }
                name if is_name(name) => {
                    let mut path = vec![name.to_owned()];
                    rest = after;
                    while let ["::", next, ..] = rest
                        && is_name(next)
                    {
                        path.push((*next).to_owned());
                        rest = &rest[2..];
                    }
                    found.names.extend(path.iter().cloned());
                    if path.len() > 1 && before != "::" {
                        found.paths.push(path);
                    }
                }
                _ => rest = after,
            }
            before = token;
        }
        found
    }
}
