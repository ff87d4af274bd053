//! How the program ends.

use std::process::ExitCode;

/// The exit codes of `trestle`, all of them. README and `trestle --help` have them as a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It was done, or nobody reads the output any more.
    Done = 0,
    /// It was not done, or it is not known whether it was.
    Failed = 1,
    /// The arguments are wrong, and nothing was sent.
    Usage = 2,
    /// What was compared differs, or what was translated is not exact. No command ends so yet.
    Differs = 3,
    /// What was to be made is there already; with `--if-absent`, with other settings.
    Exists = 4,
}

impl Exit {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [Self::Done, Self::Failed, Self::Usage, Self::Differs, Self::Exists];

    /// The number.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    /// What it means, in the words of the table.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed, or the outcome is unknown",
            Self::Usage => "wrong arguments; nothing was sent",
            Self::Differs => "differs, or is not exact (reserved: no command ends so yet)",
            Self::Exists => "exists already; with --if-absent, with other settings",
        }
    }

    /// The table, for help.
    pub(crate) fn table() -> String {
        let line = |exit: Self| format!("  {}  {}", exit.code(), exit.meaning());
        let lines = Self::ALL.map(line).join("\n");
        format!("Exit codes:\n{lines}")
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readme_has_the_table() {
        let readme = include_str!("../../../README.md");
        let rows: Vec<&str> = readme
            .lines()
            .skip_while(|line| *line != "| exit code | meaning |")
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .collect();
        let expected = Exit::ALL.map(|exit| format!("| {} | {} |", exit.code(), exit.meaning()));
        assert_eq!(rows, expected);
    }
}
