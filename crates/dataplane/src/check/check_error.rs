//! Why a check did not succeed.

use crate::machine::shortage::Shortage;
use crate::observe::check_result::CheckResult;

/// Why a check failed after it had connected to the backend.
#[derive(Debug, Clone)]
pub(super) enum CheckError {
    /// What is wrong with the backend, or with the check's settings, in words.
    Backend(String),
    /// What this member itself lacks. It says nothing about the backend.
    Own(Shortage),
}

impl From<String> for CheckError {
    fn from(words: String) -> Self {
        Self::Backend(words)
    }
}

impl From<CheckError> for CheckResult {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Backend(words) => Self::Wrong(words.into()),
            CheckError::Own(shortage) => Self::NotMade(shortage),
        }
    }
}
