//! The mask of an update.

/// Collects the paths of the settings that were given.
#[derive(Debug, Default)]
pub(crate) struct FieldMaskBuilder {
    pub(crate) paths: Vec<String>,
}

impl FieldMaskBuilder {
    /// Returns the value, and adds its path if there is one.
    pub(crate) fn set<T>(&mut self, path: &str, value: Option<T>) -> Option<T> {
        if value.is_some() {
            self.paths.push(path.to_owned());
        }
        value
    }
}
