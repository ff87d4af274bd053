//! What the screen shows, and what keys do to it.

use std::time::Duration;

use super::overview::Overview;
use super::panel::{Column, Panel};
use super::snapshot::Snapshot;

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Quit,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    NextPanel,
    Pause,
    SortRight,
    SortLeft,
}

/// The part of the screen that keys are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Focus {
    Listeners,
    #[default]
    Pools,
}

/// A panel with what the user did to it.
#[derive(Debug, Default)]
pub(crate) struct Pane {
    /// What it is sorted by.
    pub(crate) sort: Column,
    /// The first line that is shown.
    pub(crate) offset: usize,
    /// How many lines there are, and how many fit: told by the last drawing.
    pub(crate) lines: usize,
    pub(crate) fit: usize,
}

impl Pane {
    fn last(&self) -> usize {
        self.lines.saturating_sub(self.fit)
    }

    /// Notes what there is to show, and keeps the offset within it.
    pub(crate) fn fit(&mut self, lines: usize, fit: usize) {
        (self.lines, self.fit) = (lines, fit);
        self.offset = self.offset.min(self.last());
    }

    fn scroll(&mut self, key: Key) {
        let page = self.fit.max(1);
        let offset = match key {
            Key::Up => self.offset.saturating_sub(1),
            Key::Down => self.offset + 1,
            Key::PageUp => self.offset.saturating_sub(page),
            Key::PageDown => self.offset + page,
            Key::Home => 0,
            Key::End => self.last(),
            _ => self.offset,
        };
        self.offset = offset.min(self.last());
    }
}

/// What the screen shows.
#[derive(Debug, Default)]
pub(crate) struct State {
    before: Option<Snapshot>,
    now: Option<Snapshot>,
    /// What is shown of the two.
    pub(crate) overview: Option<Overview>,
    /// Why the last attempt to learn more failed.
    pub(crate) trouble: Option<String>,
    pub(crate) paused: bool,
    pub(crate) focus: Focus,
    pub(crate) listeners: Pane,
    pub(crate) pools: Pane,
}

impl State {
    /// Takes in what was learned, or why nothing was; what was known stays on the screen then.
    pub(crate) fn learn(&mut self, learned: Result<Snapshot, String>) {
        let snapshot = match learned {
            Ok(snapshot) => snapshot,
            Err(why) => {
                self.trouble = Some(why);
                return;
            }
        };
        self.trouble = None;
        self.before = self.now.take();
        self.overview = Some(Overview::new(self.before.as_ref(), &snapshot));
        self.now = Some(snapshot);
    }

    /// When what is shown was learned, counted from the beginning of the command.
    pub(crate) fn learned_at(&self) -> Option<Duration> {
        self.now.as_ref().map(|now| now.at)
    }

    /// Does what a key asks for; `false` when that is the end.
    pub(crate) fn press(&mut self, key: Key) -> bool {
        let pane = match self.focus {
            Focus::Listeners => &mut self.listeners,
            Focus::Pools => &mut self.pools,
        };
        match key {
            Key::Quit => return false,
            Key::Pause => self.paused = !self.paused,
            Key::NextPanel => {
                self.focus = match self.focus {
                    Focus::Listeners => Focus::Pools,
                    Focus::Pools => Focus::Listeners,
                };
            }
            Key::SortRight | Key::SortLeft => {
                pane.sort = pane.sort.beside(key == Key::SortRight);
                pane.offset = 0;
            }
            _ => pane.scroll(key),
        }
        true
    }

    /// The two panels, sorted.
    pub(crate) fn panels(&self) -> Option<(Panel, Panel)> {
        let overview = self.overview.as_ref()?;
        Some((overview.listener_panel(self.listeners.sort), overview.pool_panel(self.pools.sort)))
    }
}
