//! An overview as panels of text: what is drawn on the screen and what is printed without one.

use std::cmp::Ordering;

use super::columns::Keep;
use super::overview::{BackendRow, ListenerRow, Overview, PoolRow, Traffic};
use crate::table;

/// What a line is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Listener(String),
    Pool(String),
    /// POOL/NAME.
    Backend(String),
}

/// How a line is to be taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Plain,
    /// A heading among lines.
    Group,
    /// Wants attention: unknown, draining, disabled.
    Faint,
    /// Something is wrong.
    Bad,
}

/// A line of a panel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// One text for each column.
    pub(crate) cells: Vec<String>,
    pub(crate) tone: Tone,
    pub(crate) item: Item,
    /// Whether it is itself what was searched for, and not only beside or above that.
    pub(crate) found: bool,
}

/// Lines under headings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) headings: Vec<(Keep, String)>,
    pub(crate) lines: Vec<Line>,
}

/// What lines are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Column {
    /// The name, from a to z.
    #[default]
    Name,
    /// Connections now, the most first; as all below.
    Connections,
    /// New connections a second.
    New,
    /// Bytes from clients a second.
    In,
    /// Bytes to clients a second.
    Out,
    /// Failures a second.
    Failures,
}

impl Column {
    const ALL: [Self; 6] = [Self::Name, Self::Connections, Self::New, Self::In, Self::Out, Self::Failures];

    /// The word under which it stands.
    pub(crate) fn heading(self) -> &'static str {
        match self {
            Self::Name => "NAME",
            Self::Connections => "CONNS",
            Self::New => "NEW/S",
            Self::In => "IN/S",
            Self::Out => "OUT/S",
            Self::Failures => "FAIL/S",
        }
    }

    /// The column to the right, or to the left, as in a ring.
    pub(crate) fn beside(self, right: bool) -> Self {
        let count = Self::ALL.len();
        let at = Self::ALL.iter().position(|column| *column == self).unwrap_or_default();
        let next = (at + if right { 1 } else { count - 1 }) % count;
        Self::ALL.get(next).copied().unwrap_or_default()
    }

    /// The order of two lines: the greatest first, and of equals by name.
    fn order(self, a: (&str, &Traffic), b: (&str, &Traffic)) -> Ordering {
        let rate = |value: Option<f64>| value.unwrap_or(-1.0);
        let by = |of: fn(&Traffic) -> Option<f64>| rate(of(b.1)).total_cmp(&rate(of(a.1)));
        let order = match self {
            Self::Name => Ordering::Equal,
            Self::Connections => b.1.connections.cmp(&a.1.connections),
            Self::New => by(|t| t.connections_per_second),
            Self::In => by(|t| t.bytes_in_per_second),
            Self::Out => by(|t| t.bytes_out_per_second),
            Self::Failures => by(|t| t.failures_per_second),
        };
        order.then_with(|| a.0.cmp(b.0))
    }
}

/// "0", "3.2", "1234".
fn rate(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(value) if value < 9.95 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

/// "812 B", "1.2 kB", "34 MB": decimal, as network interfaces are rated.
fn bytes(value: Option<f64>) -> String {
    let Some(mut value) = value else { return "-".to_owned() };
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    if unit != "B" && value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

impl Traffic {
    pub(crate) fn cells(&self) -> [String; 5] {
        [
            self.connections.to_string(),
            rate(self.connections_per_second),
            bytes(self.bytes_in_per_second),
            bytes(self.bytes_out_per_second),
            rate(self.failures_per_second),
        ]
    }
}

const RATES: [Column; 5] = [Column::Connections, Column::New, Column::In, Column::Out, Column::Failures];

/// How long rates stay: what goes to clients says more than what comes from them.
fn keep_rate(column: Column) -> Keep {
    Keep::Until(match column {
        Column::Name | Column::Connections => 1,
        Column::New => 2,
        Column::Failures => 3,
        Column::Out => 4,
        Column::In => 5,
    })
}

fn headings(first: &[&str], last: &[(Keep, &str)]) -> Vec<(Keep, String)> {
    let first = first.iter().map(|heading| (Keep::Always, *heading));
    let rates = RATES.iter().map(|column| (keep_rate(*column), column.heading()));
    let all = first.chain(rates).chain(last.iter().copied());
    all.map(|(keep, heading)| (keep, heading.to_owned())).collect()
}

/// Most of a width that columns for members may take; where they need more, one counts them.
fn members_fit(names: &[&str], width: usize) -> bool {
    let wanted: usize = names.iter().map(|name| name.chars().count().max("DOWN".len()) + 2).sum();
    wanted <= width * 2 / 5
}

/// Whether any text has another one in it, whatever the case.
fn has<'a>(filter: &str, texts: impl IntoIterator<Item = &'a str>) -> bool {
    let filter = filter.to_lowercase();
    texts.into_iter().any(|text| text.to_lowercase().contains(&filter))
}

/// "3 listeners", or "1 of 3 listeners".
fn found(shown: usize, all: usize, one: &str, more: &str) -> String {
    if shown == all { count(all, one, more) } else { format!("{shown} of {}", count(all, one, more)) }
}

/// How panels are to be shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout<'a> {
    pub(crate) sort: Column,
    /// Only what has this in it; empty for all.
    pub(crate) filter: &'a str,
    /// Columns that there are.
    pub(crate) width: usize,
}

impl Layout<'static> {
    /// All of it, by name.
    pub(crate) const FULL: Self = Self { sort: Column::Name, filter: "", width: usize::MAX / 4 };
}

fn count(count: usize, one: &str, more: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {more}") }
}

impl Overview {
    /// Who leads, who answers, and at which revision, in one line.
    pub(crate) fn summary(&self) -> String {
        let leader = self.leader.as_deref().unwrap_or("none");
        let needed = self.voters / 2 + 1;
        let quorum = match (self.voters, self.voters_answering) {
            (0, _) => "no voters".to_owned(),
            (all, answering) if answering < needed => {
                format!("NO QUORUM: {answering} of {all} voters answer, {needed} are needed")
            }
            (all, answering) => format!("{answering} of {all} voters answer"),
        };
        format!("leader {leader}   {quorum}   revision {}   via {}", self.revision, self.endpoint)
    }

    /// The members, in one line: "m1 leader 12 conns   m2 unreachable".
    pub(crate) fn member_line(&self) -> String {
        let member = |m: &super::overview::MemberRow| match m.state.as_str() {
            "unreachable" => format!("{} UNREACHABLE", m.name),
            state if m.connections == 1 => format!("{} {state} 1 conn", m.name),
            state => format!("{} {state} {} conns", m.name, m.connections),
        };
        self.members.iter().map(member).collect::<Vec<_>>().join("   ")
    }

    /// Who holds the virtual IPs, in one line: "vip api on m1   vip web on NOBODY"; `None` when there are none.
    pub(crate) fn vip_line(&self) -> Option<String> {
        let vip = |v: &super::overview::VipRow| {
            let holders = if v.holders.is_empty() { "NOBODY".to_owned() } else { v.holders.join(" AND ") };
            format!("vip {} on {holders}", v.name)
        };
        (!self.vips.is_empty()).then(|| self.vips.iter().map(vip).collect::<Vec<_>>().join("   "))
    }

    /// The listeners.
    pub(crate) fn listener_panel(&self, layout: Layout<'_>) -> Panel {
        let matches = |row: &&ListenerRow| has(layout.filter, [row.name.as_str(), &row.problem]);
        let mut rows: Vec<&ListenerRow> = self.listeners.iter().filter(matches).collect();
        rows.sort_by(|a, b| layout.sort.order((&a.name, &a.traffic), (&b.name, &b.traffic)));
        let line = |row: &ListenerRow| {
            let ready = format!("{}/{}", row.ready, row.members);
            let first = [row.name.clone(), ready];
            let cells = first.into_iter().chain(row.traffic.cells()).chain([row.problem.clone()]);
            let tone = if row.ready < row.members { Tone::Bad } else { Tone::Plain };
            Line { cells: cells.collect(), tone, item: Item::Listener(row.name.clone()), found: true }
        };
        Panel {
            title: found(rows.len(), self.listeners.len(), "listener", "listeners"),
            headings: headings(&["NAME", "READY"], &[(Keep::Words, "PROBLEM")]),
            lines: rows.into_iter().map(line).collect(),
        }
    }

    /// The pools, each with its backends below it.
    pub(crate) fn pool_panel(&self, layout: Layout<'_>) -> Panel {
        let members: Vec<&str> = self.members.iter().map(|m| m.name.as_str()).collect();
        let each = members_fit(&members, layout.width);
        let members = if each { members } else { vec!["UP"] };
        let sort = layout.sort;
        let mut pools: Vec<(&PoolRow, Vec<&BackendRow>)> =
            self.pools.iter().filter_map(|pool| pool.matching(layout.filter)).collect();
        pools.sort_by(|(a, _), (b, _)| sort.order((&a.name, &a.traffic), (&b.name, &b.traffic)));
        let shown: usize = pools.iter().map(|(_, backends)| backends.len()).sum();
        let backends: usize = self.pools.iter().map(|pool| pool.backends.len()).sum();
        let title = format!(
            "{}, {}",
            found(pools.len(), self.pools.len(), "pool", "pools"),
            found(shown, backends, "backend", "backends")
        );
        let lines = pools.into_iter().flat_map(|(pool, mut backends)| {
            backends.sort_by(|a, b| sort.order((&a.name, &a.traffic), (&b.name, &b.traffic)));
            let head = Line { found: pool.has(layout.filter), ..pool.head(members.len()) };
            let found = |row: &BackendRow| row.has(layout.filter);
            let line = move |row: &BackendRow| Line { found: found(row), ..row.line(each) };
            std::iter::once(head).chain(backends.into_iter().map(line))
        });
        let last = [(Keep::Words, "STATE"), (Keep::Until(6), "ADDRESS")];
        Panel {
            title,
            lines: lines.collect(),
            headings: headings(&[&["NAME"], members.as_slice()].concat(), &last),
        }
    }

    /// All of it as text, for where there is no screen.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n{}\n", table::plain(&self.summary()), table::plain(&self.member_line()));
        text.extend(self.vip_line().map(|line| table::plain(&line) + "\n"));
        for problem in &self.problems {
            text.push_str(&format!("problem: {}\n", table::plain(problem)));
        }
        for panel in [self.listener_panel(Layout::FULL), self.pool_panel(Layout::FULL)] {
            let headings = panel.headings.into_iter().map(|(_, heading)| heading).collect();
            let rows = panel.lines.into_iter().map(|line| line.cells);
            text.push_str(&format!("\n{}", table::columns(headings, rows)));
        }
        text
    }
}

/// Short words, so that a column for each member fits on a screen.
fn verdict(word: &str, checked: bool) -> &'static str {
    match word {
        "healthy" => "ok",
        "unhealthy" => "DOWN",
        "unknown" if !checked => "",
        "unknown" => "?",
        _ => "-",
    }
}

impl PoolRow {
    /// The pool with those of its backends that have this in them; all of them when its own name has.
    fn matching(&self, filter: &str) -> Option<(&Self, Vec<&BackendRow>)> {
        let whole = self.has(filter);
        let backends: Vec<&BackendRow> =
            self.backends.iter().filter(|row| whole || row.has(filter)).collect();
        (whole || !backends.is_empty()).then_some((self, backends))
    }

    fn has(&self, filter: &str) -> bool {
        has(filter, [self.name.as_str(), self.down.as_deref().unwrap_or_default()])
    }

    /// That it is down, or how many of its backends are healthy, in words.
    pub(crate) fn state(&self) -> String {
        if let Some(down) = &self.down {
            return down.clone();
        }
        let healthy = self.backends.iter().filter(|b| b.healthy()).count();
        match self.backends.len() {
            0 => "no backends".to_owned(),
            _ if !self.checked => "no check".to_owned(),
            all => format!("{healthy}/{all} healthy"),
        }
    }

    fn head(&self, members: usize) -> Line {
        let blank = std::iter::repeat_n(String::new(), members);
        let cells = std::iter::once(self.name.clone()).chain(blank).chain(self.traffic.cells());
        let cells = cells.chain([self.state(), String::new()]).collect();
        let none =
            self.checked && !self.backends.is_empty() && !self.backends.iter().any(BackendRow::healthy);
        let tone = if none || self.down.is_some() { Tone::Bad } else { Tone::Group };
        Line { cells, tone, item: Item::Pool(self.name.clone()), found: true }
    }
}

impl BackendRow {
    fn has(&self, filter: &str) -> bool {
        has(filter, [self.name.as_str(), &self.address, &self.reason, self.state])
    }

    fn line(&self, each: bool) -> Line {
        let said: Vec<String> = match each {
            true => self.verdicts.iter().map(|word| verdict(word, self.checked).to_owned()).collect(),
            false if !self.checked => vec![String::new()],
            false => {
                let up = self.verdicts.iter().filter(|word| **word == "healthy").count();
                vec![format!("{up}/{}", self.verdicts.len())]
            }
        };
        let bad = self.verdicts.contains(&"unhealthy");
        let (state, tone) = match self.state {
            "enabled" if !self.checked => ("no check".to_owned(), Tone::Plain),
            "enabled" if bad => (self.reason.clone(), Tone::Bad),
            "enabled" if self.healthy() => (String::new(), Tone::Plain),
            "enabled" => (self.reason.clone(), Tone::Faint),
            state if self.reason.is_empty() || !self.checked => (state.to_owned(), Tone::Faint),
            state => (format!("{state}; {}", self.reason), Tone::Faint),
        };
        let short = self.name.split_once('/').map_or(self.name.as_str(), |(_, backend)| backend);
        let cells = std::iter::once(format!("  {short}")).chain(said).chain(self.traffic.cells());
        let cells = cells.chain([state, self.address.clone()]).collect();
        Line { cells, tone, item: Item::Backend(self.name.clone()), found: true }
    }
}
