//! An overview as panels of text: what is drawn on the screen and what is printed without one.

use std::cmp::Ordering;

use super::overview::{BackendRow, ListenerRow, Overview, PoolRow, Traffic};
use crate::table;

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
}

/// Lines under headings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) headings: Vec<String>,
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
    fn cells(&self) -> [String; 5] {
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

fn headings(first: &[&str], last: &[&str]) -> Vec<String> {
    let rates = RATES.iter().map(|column| column.heading());
    first.iter().copied().chain(rates).chain(last.iter().copied()).map(str::to_owned).collect()
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
        format!("leader {leader}   {quorum}   revision {}   through {}", self.revision, self.endpoint)
    }

    /// The members, in one line: "m1 leader 12 conns   m2 unreachable".
    pub(crate) fn member_line(&self) -> String {
        let member = |m: &super::overview::MemberRow| match m.state.as_str() {
            "unreachable" => format!("{} UNREACHABLE", m.name),
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
    pub(crate) fn listener_panel(&self, sort: Column) -> Panel {
        let mut rows: Vec<&ListenerRow> = self.listeners.iter().collect();
        rows.sort_by(|a, b| sort.order((&a.name, &a.traffic), (&b.name, &b.traffic)));
        let line = |row: &ListenerRow| {
            let ready = format!("{}/{}", row.ready, row.members);
            let first = [row.name.clone(), ready];
            let cells = first.into_iter().chain(row.traffic.cells()).chain([row.problem.clone()]);
            let tone = if row.ready < row.members { Tone::Bad } else { Tone::Plain };
            Line { cells: cells.collect(), tone }
        };
        Panel {
            title: count(rows.len(), "listener", "listeners"),
            headings: headings(&["NAME", "READY"], &["PROBLEM"]),
            lines: rows.into_iter().map(line).collect(),
        }
    }

    /// The pools, each with its backends below it.
    pub(crate) fn pool_panel(&self, sort: Column) -> Panel {
        let mut pools: Vec<&PoolRow> = self.pools.iter().collect();
        pools.sort_by(|a, b| sort.order((&a.name, &a.traffic), (&b.name, &b.traffic)));
        let backends: usize = pools.iter().map(|pool| pool.backends.len()).sum();
        let members: Vec<&str> = self.members.iter().map(|m| m.name.as_str()).collect();
        Panel {
            title: format!(
                "{}, {}",
                count(pools.len(), "pool", "pools"),
                count(backends, "backend", "backends")
            ),
            headings: headings(&[&["NAME"], members.as_slice()].concat(), &["STATE", "ADDRESS"]),
            lines: pools.into_iter().flat_map(|pool| self.pool_lines(pool, sort)).collect(),
        }
    }

    fn pool_lines(&self, pool: &PoolRow, sort: Column) -> Vec<Line> {
        let mut backends: Vec<&BackendRow> = pool.backends.iter().collect();
        backends.sort_by(|a, b| sort.order((&a.name, &a.traffic), (&b.name, &b.traffic)));
        let healthy = backends.iter().filter(|b| b.healthy()).count();
        let state = match backends.len() {
            0 => "no backends".to_owned(),
            all => format!("{healthy}/{all} healthy"),
        };
        let blank = self.members.iter().map(|_| String::new());
        let cells = std::iter::once(pool.name.clone()).chain(blank).chain(pool.traffic.cells());
        let cells = cells.chain([state, String::new()]).collect();
        let head = Line { cells, tone: Tone::Group };
        std::iter::once(head).chain(backends.into_iter().map(backend_line)).collect()
    }

    /// All of it as text, for where there is no screen.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n{}\n", table::plain(&self.summary()), table::plain(&self.member_line()));
        text.extend(self.vip_line().map(|line| table::plain(&line) + "\n"));
        for problem in &self.problems {
            text.push_str(&format!("problem: {}\n", table::plain(problem)));
        }
        for panel in [self.listener_panel(Column::Name), self.pool_panel(Column::Name)] {
            let rows = panel.lines.into_iter().map(|line| line.cells);
            text.push_str(&format!("\n{}", table::columns(panel.headings, rows)));
        }
        text
    }
}

/// Short words, so that a column for each member fits on a screen.
fn verdict(word: &str) -> &'static str {
    match word {
        "healthy" => "ok",
        "unhealthy" => "DOWN",
        "unknown" => "?",
        _ => "-",
    }
}

fn backend_line(row: &BackendRow) -> Line {
    let short = row.name.split_once('/').map_or(row.name.as_str(), |(_, backend)| backend);
    let said = row.verdicts.iter().map(|word| verdict(word).to_owned());
    let bad = row.verdicts.contains(&"unhealthy");
    let (state, tone) = match row.state {
        "enabled" if bad => (row.reason.clone(), Tone::Bad),
        "enabled" if row.healthy() => (String::new(), Tone::Plain),
        "enabled" => (row.reason.clone(), Tone::Faint),
        state if row.reason.is_empty() => (state.to_owned(), Tone::Faint),
        state => (format!("{state}; {}", row.reason), Tone::Faint),
    };
    let cells = std::iter::once(format!("  {short}")).chain(said).chain(row.traffic.cells());
    Line { cells: cells.chain([state, row.address.clone()]).collect(), tone }
}
