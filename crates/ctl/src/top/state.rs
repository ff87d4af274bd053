//! What the screen shows, and what keys do to it.

use std::time::Duration;

use super::detail;
use super::overview::Overview;
use super::panel::{Column, Item, Layout, Panel};
use super::snapshot::Snapshot;

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// One that stands for a letter or sign.
    Char(char),
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Tab,
    Enter,
    Escape,
    Backspace,
    /// Control and C.
    Interrupt,
}

/// The part of the screen that keys are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Focus {
    Listeners,
    #[default]
    Pools,
}

/// What is shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Screen {
    /// Listeners and pools.
    #[default]
    Main,
    Help,
    /// All problems in full.
    Problems,
    /// All that is known of a thing.
    Detail(Item),
}

/// A panel with what the user did to it.
#[derive(Debug, Default)]
pub(crate) struct Pane {
    /// What it is sorted by.
    pub(crate) sort: Column,
    /// The first line that is shown.
    pub(crate) offset: usize,
    /// The line that is chosen, and what it is about, so that it stays chosen when lines move.
    pub(crate) chosen: usize,
    item: Option<Item>,
    /// How many lines there are, and how many fit: told by the last drawing.
    pub(crate) lines: usize,
    pub(crate) fit: usize,
    /// Whether the first line that was searched for is to be chosen.
    seeks: bool,
}

impl Pane {
    /// Notes what there is to show, and keeps what is chosen on the screen.
    pub(crate) fn fit(&mut self, panel: &Panel, fit: usize) {
        (self.lines, self.fit) = (panel.lines.len(), fit);
        if std::mem::take(&mut self.seeks) {
            self.chosen = panel.lines.iter().position(|line| line.found).unwrap_or(0);
        }
        let moved =
            self.item.as_ref().and_then(|item| panel.lines.iter().position(|line| line.item == *item));
        self.chosen = moved.unwrap_or(self.chosen).min(self.lines.saturating_sub(1));
        self.item = panel.lines.get(self.chosen).map(|line| line.item.clone());
        let least = (self.chosen + 1).saturating_sub(fit);
        self.offset = self.offset.clamp(least, self.chosen.max(least)).min(self.lines.saturating_sub(fit));
    }

    fn choose(&mut self, key: Key) {
        let page = self.fit.max(1);
        self.chosen = match key {
            Key::Up => self.chosen.saturating_sub(1),
            Key::Down => self.chosen + 1,
            Key::PageUp => self.chosen.saturating_sub(page),
            Key::PageDown => self.chosen + page,
            Key::Home => 0,
            Key::End => self.lines.saturating_sub(1),
            _ => return,
        };
        self.chosen = self.chosen.min(self.lines.saturating_sub(1));
        self.item = None;
    }

    fn begin(&mut self) {
        (self.offset, self.chosen, self.item) = (0, 0, None);
    }

    /// Begins with the first line that was searched for.
    fn seek(&mut self) {
        self.begin();
        self.seeks = true;
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
    pub(crate) screen: Screen,
    /// The first line that is shown where a screen is one text; and the last that makes sense, told by the last drawing.
    pub(crate) scroll: u16,
    pub(crate) scroll_max: u16,
    /// What is searched for.
    pub(crate) filter: String,
    /// Whether letters go there.
    pub(crate) searching: bool,
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
        if key == Key::Interrupt {
            return false;
        }
        if self.searching {
            self.search(key);
            return true;
        }
        match key {
            Key::Char('q') => return false,
            Key::Char('p') => self.paused = !self.paused,
            Key::Char('?') => self.toggle(Screen::Help),
            Key::Char('!') => self.toggle(Screen::Problems),
            Key::Escape if self.screen != Screen::Main => self.show(Screen::Main),
            // The way back ends here: who wants to end presses q.
            Key::Escape => self.set_filter(String::new()),
            _ if self.screen == Screen::Main => self.press_main(moves(key)),
            _ => self.press_text(moves(key)),
        }
        true
    }

    fn press_main(&mut self, key: Key) {
        let pane = match self.focus {
            Focus::Listeners => &mut self.listeners,
            Focus::Pools => &mut self.pools,
        };
        match key {
            Key::Char('/') => self.searching = true,
            Key::Enter => {
                if let Some(item) = pane.item.clone() {
                    self.show(Screen::Detail(item));
                }
            }
            Key::Tab => {
                self.focus = match self.focus {
                    Focus::Listeners => Focus::Pools,
                    Focus::Pools => Focus::Listeners,
                };
            }
            Key::Left | Key::Right => {
                pane.sort = pane.sort.beside(key == Key::Right);
                pane.begin();
            }
            _ => pane.choose(key),
        }
    }

    fn press_text(&mut self, key: Key) {
        const PAGE: u16 = 10;
        let scroll = match key {
            Key::Up => self.scroll.saturating_sub(1),
            Key::Down => self.scroll.saturating_add(1),
            Key::PageUp => self.scroll.saturating_sub(PAGE),
            Key::PageDown => self.scroll.saturating_add(PAGE),
            Key::Home => 0,
            Key::End => u16::MAX,
            _ => self.scroll,
        };
        self.scroll = scroll.min(self.scroll_max);
    }

    fn search(&mut self, key: Key) {
        let mut filter = std::mem::take(&mut self.filter);
        match key {
            Key::Char(c) => filter.push(c),
            Key::Backspace => drop(filter.pop()),
            Key::Enter => {
                self.searching = false;
                // What was found may be in the other panel only.
                match (self.listeners.lines, self.pools.lines) {
                    (0, 1..) => self.focus = Focus::Pools,
                    (1.., 0) => self.focus = Focus::Listeners,
                    _ => {}
                }
            }
            Key::Escape => {
                self.searching = false;
                filter.clear();
            }
            _ => {}
        }
        self.set_filter(filter);
    }

    fn set_filter(&mut self, filter: String) {
        if self.filter != filter {
            self.listeners.seek();
            self.pools.seek();
        }
        self.filter = filter;
    }

    fn show(&mut self, screen: Screen) {
        (self.screen, self.scroll) = (screen, 0);
    }

    fn toggle(&mut self, screen: Screen) {
        let next = if self.screen == screen { Screen::Main } else { screen };
        self.show(next);
    }

    /// The two panels, sorted, for a width.
    pub(crate) fn panels(&self, width: usize) -> Option<(Panel, Panel)> {
        let overview = self.overview.as_ref()?;
        let layout = |sort| Layout { sort, filter: &self.filter, width };
        let listeners = overview.listener_panel(layout(self.listeners.sort));
        Some((listeners, overview.pool_panel(layout(self.pools.sort))))
    }

    /// All that is known of a thing, as text.
    pub(crate) fn detail(&self, item: &Item) -> String {
        match (&self.now, &self.overview) {
            (Some(now), Some(overview)) => detail::text(item, now, overview),
            _ => String::new(),
        }
    }
}

/// Letters that stand for other keys, as in vi and less.
fn moves(key: Key) -> Key {
    match key {
        Key::Char('k') => Key::Up,
        Key::Char('j') => Key::Down,
        Key::Char(' ') => Key::PageDown,
        Key::Char('g') => Key::Home,
        Key::Char('G') => Key::End,
        Key::Char('>') => Key::Right,
        Key::Char('<') => Key::Left,
        other => other,
    }
}
