//! Pages of documentation whose commands tests run, so that pages and program stay one.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// A part of a page, from its heading to the next one of that level or above.
#[derive(Debug, Clone)]
pub struct Section {
    heading: String,
    text: String,
}

/// The level of a heading, and its words.
fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.bytes().take_while(|byte| *byte == b'#').count();
    Some((level, line.get(level..)?.strip_prefix(' ')?)).filter(|(level, _)| *level > 0)
}

impl Section {
    /// Reads the section with this heading from a page in Markdown.
    ///
    /// # Panics
    /// When there is no such page, or no such heading in it.
    pub fn read(page: &Path, wanted: &str) -> Self {
        let page_text =
            std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        let (mut found, mut is_code, mut text) = (None, false, String::new());
        for line in page_text.lines() {
            is_code ^= line.trim_start().starts_with("```");
            match (heading(line).filter(|_| !is_code), found) {
                (Some((level, words)), None) if words == wanted => found = Some(level),
                (Some((level, _)), Some(own)) if level <= own => break,
                (_, None) => {}
                (_, Some(_)) => {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        assert!(found.is_some(), "{} has no heading {wanted:?}", page.display());
        Self { heading: wanted.to_owned(), text }
    }

    /// The same with other addresses, ports or paths than those of the example.
    ///
    /// # Panics
    /// When one of those that are replaced is not there.
    #[must_use]
    pub fn with(mut self, replaced: &[(&str, &str)]) -> Self {
        for (from, to) in replaced {
            assert!(self.text.contains(from), "{from:?} is not in the section {:?}", self.heading);
            self.text = self.text.replace(from, to);
        }
        self
    }

    /// What its blocks of code in this language come to, one after another.
    ///
    /// # Panics
    /// When there is none.
    pub fn code(&self, language: &str) -> String {
        let (mut inside, mut code) = (false, String::new());
        for line in self.text.lines() {
            match line.trim_start().strip_prefix("```") {
                Some(opened) => inside = !inside && opened == language,
                None if inside => {
                    code.push_str(line);
                    code.push('\n');
                }
                None => {}
            }
        }
        assert!(!code.is_empty(), "the section {:?} has no code in {language}", self.heading);
        code
    }
}

/// A shell that runs `script`, and stops at the first command that fails. `program` is found by its name, and manages the
/// cluster at these endpoints.
///
/// # Panics
/// When the program is in no directory.
pub fn shell(program: &Path, endpoints: &str, script: &str) -> Command {
    let mut path = OsString::from(program.parent().unwrap());
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut command = Command::new("sh");
    command.args(["-euc", script]).env("PATH", path).env("TRESTLE_ENDPOINT", endpoints);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_ends_at_the_next_heading_and_its_code_is_found() {
        let page = tempfile::NamedTempFile::new().unwrap();
        let text = "# Page\n## One\nwords\n```sh\n# no heading\ntrestle a 10.0.0.1\n```\n### Part\n```toml\nb = 1\n```\n\
                    ```sh\ntrestle c\n```\n## Two\n```sh\ntrestle d\n```\n";
        std::fs::write(page.path(), text).unwrap();
        let one = Section::read(page.path(), "One").with(&[("10.0.0.1", "10.0.0.2")]);
        assert_eq!(one.code("sh"), "# no heading\ntrestle a 10.0.0.2\ntrestle c\n");
        assert_eq!(one.code("toml"), "b = 1\n");
        assert_eq!(Section::read(page.path(), "Two").code("sh"), "trestle d\n");
    }
}
