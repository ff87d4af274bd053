//! Draws the state onto a screen of any size.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as Text, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table};

use super::panel::{Line, Panel, Tone};
use super::state::{Focus, Pane, State};
use crate::output::duration_text;
use crate::table::escaped;

/// Blanks between two columns.
const GAP: u16 = 2;
/// Problems that are shown; `trestle status` lists all.
const PROBLEMS_MAX: usize = 3;
/// A line for the border's title, and one for the headings.
const PANEL_HEAD: u16 = 2;

const KEYS: &str = "q quit   tab panel   arrows, j k, page, home, end scroll   < > sort   p pause";

/// Draws the state. `since` is the time since the command began.
pub(crate) fn draw(frame: &mut Frame<'_>, state: &mut State, since: Duration) {
    let head = head(state, since);
    let height = u16::try_from(head.len()).unwrap_or(u16::MAX);
    let [top, rest, foot] =
        Layout::vertical([Constraint::Length(height), Constraint::Fill(1), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(Paragraph::new(head), top);
    frame.render_widget(Paragraph::new(Text::styled(KEYS, faint())), foot);
    let Some((listeners, pools)) = state.panels() else { return };
    // Listeners are few as a rule: they get what they need, up to two fifths.
    let wanted = u16::try_from(listeners.lines.len()).unwrap_or(u16::MAX).saturating_add(PANEL_HEAD);
    let most = (rest.height.saturating_mul(2) / 5).max(PANEL_HEAD + 1);
    let [upper, lower] =
        Layout::vertical([Constraint::Length(wanted.min(most)), Constraint::Fill(1)]).areas(rest);
    let focus = state.focus;
    panel(frame, upper, &listeners, &mut state.listeners, focus == Focus::Listeners);
    panel(frame, lower, &pools, &mut state.pools, focus == Focus::Pools);
}

fn faint() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn bad() -> Style {
    Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)
}

/// What stands above the panels.
fn head(state: &State, since: Duration) -> Vec<Text<'static>> {
    let mut lines = Vec::new();
    if let Some(overview) = &state.overview {
        let mut summary = vec![
            Span::styled("trestle   ", Style::new().add_modifier(Modifier::BOLD)),
            Span::raw(escaped(&overview.summary())),
        ];
        if state.paused {
            summary.push(Span::styled("   PAUSED", Style::new().fg(Color::Yellow)));
        }
        lines.push(Text::from(summary));
        lines.push(Text::raw(escaped(&overview.member_line())));
        lines.extend(overview.vip_line().map(|line| Text::raw(escaped(&line))));
    }
    match (&state.trouble, state.learned_at()) {
        (Some(why), Some(at)) => {
            let age = duration_text(Duration::from_secs(since.saturating_sub(at).as_secs()));
            lines.push(Text::styled(format!("{}; what is below is {age} old", escaped(why)), bad()));
        }
        (Some(why), None) => lines.push(Text::styled(escaped(why), bad())),
        (None, None) => lines.push(Text::raw("asking the cluster ...")),
        (None, Some(_)) => {}
    }
    let problems = state.overview.as_ref().map(|overview| overview.problems.as_slice()).unwrap_or_default();
    for problem in problems.iter().take(PROBLEMS_MAX) {
        lines.push(Text::styled(format!("problem: {}", escaped(problem)), bad()));
    }
    if problems.len() > PROBLEMS_MAX {
        let more = problems.len() - PROBLEMS_MAX;
        lines.push(Text::styled(format!("and {more} more: see \"trestle status\""), bad()));
    }
    lines
}

fn panel(frame: &mut Frame<'_>, area: Rect, panel: &Panel, pane: &mut Pane, focused: bool) {
    let fit = usize::from(area.height.saturating_sub(PANEL_HEAD));
    pane.fit(panel.lines.len(), fit);
    let shown = panel.lines.iter().skip(pane.offset).take(fit);
    let place = if pane.lines > pane.fit {
        format!(", {} to {}", pane.offset + 1, (pane.offset + fit).min(pane.lines))
    } else {
        String::new()
    };
    let title = Span::styled(
        format!(" {}{place} ", panel.title),
        if focused { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() },
    );
    let sort = pane.sort.heading();
    let heading = |text: &String| {
        let style = Style::new().add_modifier(Modifier::BOLD);
        let style = if text == sort { style.add_modifier(Modifier::UNDERLINED) } else { style };
        Cell::from(text.clone()).style(style)
    };
    let widths = fitting(widths(panel), area.width).into_iter().map(Constraint::Length);
    let table = Table::new(shown.map(row), widths)
        .header(Row::new(panel.headings.iter().map(heading)))
        .column_spacing(GAP)
        .block(Block::new().borders(Borders::TOP).title(title));
    frame.render_widget(table, area);
}

fn row(line: &Line) -> Row<'static> {
    let style = match line.tone {
        Tone::Plain => Style::new(),
        Tone::Group => Style::new().add_modifier(Modifier::BOLD),
        Tone::Faint => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red),
    };
    Row::new(line.cells.iter().map(|cell| Cell::from(escaped(cell)))).style(style)
}

/// The columns that fit, the last of them cut: what is on the left matters more than that every column is there.
fn fitting(widths: Vec<u16>, mut room: u16) -> Vec<u16> {
    let mut fitting = Vec::with_capacity(widths.len());
    for width in widths {
        if room == 0 {
            break;
        }
        fitting.push(width.min(room));
        room = room.saturating_sub(width.saturating_add(GAP));
    }
    fitting
}

/// What each column needs for all lines, shown or not, so that columns stand still while the user scrolls.
fn widths(panel: &Panel) -> Vec<u16> {
    let width = |text: &String| Span::raw(escaped(text)).width();
    let column = |(at, heading): (usize, &String)| {
        let cells = panel.lines.iter().filter_map(|line| line.cells.get(at));
        let widest = cells.map(width).max().unwrap_or_default().max(width(heading));
        u16::try_from(widest).unwrap_or(u16::MAX)
    };
    panel.headings.iter().enumerate().map(column).collect()
}
