//! What a member knows of the founding that it takes part in.

use std::sync::{Mutex, PoisonError};

use trestle_identity::{FoundingToken, read_private};

use crate::config::FoundingConfig;

/// What a member knows of the founding that it takes part in.
#[derive(Debug)]
pub(crate) struct Founding {
    pub(super) config: Option<FoundingConfig>,
    /// As the file had it when it was last looked at.
    token: Mutex<Option<FoundingToken>>,
    /// What is waited for.
    waits: Mutex<Option<String>>,
}

impl Founding {
    /// Reads the token. What is wrong with it is told once it is needed.
    pub(crate) fn new(config: Option<FoundingConfig>) -> Self {
        let founding = Self { config, token: Mutex::default(), waits: Mutex::default() };
        // Told by who needs it.
        let _ = founding.reload();
        founding
    }

    /// The token as it is now: a better one may have been put there.
    pub(super) fn reload(&self) -> Result<Option<FoundingToken>, String> {
        let Some(config) = &self.config else { return Ok(None) };
        let shown = config.token_file.display();
        let read = match read_private(&config.token_file) {
            Ok(Some(text)) => FoundingToken::parse(&text).map_err(|error| format!("{shown}: {error}")),
            Ok(None) => Err(format!("there is no file {shown}")),
            Err(error) => Err(format!("{shown} cannot be read: {error}")),
        };
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = read.as_ref().ok().cloned();
        read.map(Some).map_err(|why| format!("waits until founding_token_file can be used: {why}"))
    }

    pub(super) fn token(&self) -> Option<FoundingToken> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What this member waits for before it founds a cluster or joins one, in words; `None` once it belongs to one.
    pub(crate) fn waits(&self) -> Option<String> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what is waited for, and answers whether that is news.
    pub(super) fn set_waits(&self, why: Option<String>) -> bool {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *waits != why;
        *waits = why;
        is_news
    }

    /// Why nobody founds a cluster here by hand, if so.
    pub(crate) fn refuses_another_way(&self, is_founded: bool) -> Option<String> {
        (self.config.is_some() && !is_founded).then(|| {
            "this member founds a cluster together with the others that initial_members in its configuration names, by itself; to \
             found one by hand take initial_members and founding_token_file out of it, and restart it"
                .to_owned()
        })
    }
}
