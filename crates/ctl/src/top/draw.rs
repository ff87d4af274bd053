//! Draws the state onto a screen of any size.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as Text, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table, Wrap};

use super::columns::{self, GAP};
use super::panel::{Item, Line, Panel, Tone};
use super::state::{Focus, Pane, Screen, State};
use crate::duration::duration_text;
use crate::table::{escaped, wrapped};

/// Lines of one problem above the panels; `!` shows all of it.
const PROBLEM_LINES_MAX: usize = 2;
/// A line for the border's title, and one for the headings.
const PANEL_HEAD: u16 = 2;

/// Keys in the order in which they are shown, each with how important it is: where there is no room for all, those with the highest
/// number go first.
const KEYS: [(&str, u8); 8] = [
    ("q quit", 1),
    ("? help", 2),
    ("! problems", 3),
    ("/ search", 4),
    ("Enter details", 5),
    ("Tab panel", 6),
    ("< > sort", 7),
    ("p pause", 8),
];
/// What stands between them.
const KEY_GAP: &str = "   ";
const BACK: &str = "Esc back   arrows, j k, page scroll   q quit";

const HELP: &str = "\
?           this help; Esc closes it
Up, Down    choose a line; also j k, Page up and down, space, Home End, g G
Enter       details: what each member sees of what is chosen, and its settings
Esc         back: out of details, help and problems; takes a search back
/           search: only lines with the text stay; Enter keeps it
Tab         the other panel
< >         sort by the column to the left or right; also the arrows
!           all problems, in full
p           pause, and go on
q           quit; also Ctrl-C

Each member has a column with its verdict on a backend: ok, DOWN, ? for not
known yet, - where it says nothing; UP counts them where there are many.
CONNS are open now; NEW/S are new each second; IN/S come from clients, OUT/S go
to them; FAIL/S reached no backend. Columns that do not fit are left out.

Problems are those of \"trestle status\".
";

/// Draws the state. `since` is the time since the command began.
pub(crate) fn draw(frame: &mut Frame<'_>, state: &mut State, since: Duration) {
    let width = usize::from(frame.area().width);
    let room = usize::from(frame.area().height);
    let head = head(state, since, width, room);
    let height = u16::try_from(head.len()).unwrap_or(u16::MAX);
    let [top, rest, foot] =
        Layout::vertical([Constraint::Length(height), Constraint::Fill(1), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(Paragraph::new(head), top);
    frame.render_widget(Paragraph::new(foot_line(state, width)), foot);
    match state.screen.clone() {
        Screen::Main => panels(frame, state, rest),
        Screen::Help => text(frame, state, rest, "help", HELP),
        Screen::Problems => {
            let problems = state.overview.as_ref().map(|overview| overview.problems.clone());
            let problems = problems.unwrap_or_default();
            let all: Vec<String> = problems.iter().map(|problem| escaped(problem)).collect();
            let all = if all.is_empty() { "no problems".to_owned() } else { all.join("\n\n") };
            text(frame, state, rest, "problems", &all);
        }
        Screen::Detail(item) => {
            let title = match &item {
                Item::Listener(name) => format!("listener {name}"),
                Item::Pool(name) => format!("pool {name}"),
                Item::Backend(name) => format!("backend {name}"),
            };
            let detail = state.detail(&item);
            text(frame, state, rest, &title, &detail);
        }
    }
}

fn faint() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn bad() -> Style {
    Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)
}

/// As many keys as fit into a width.
fn keys(width: usize) -> String {
    let fitting = |most: u8| {
        let shown = KEYS.iter().filter(|(_, rank)| *rank <= most);
        shown.map(|(key, _)| *key).collect::<Vec<_>>().join(KEY_GAP)
    };
    let most = (1..=8).rev().find(|most| fitting(*most).len() <= width);
    fitting(most.unwrap_or(1))
}

fn foot_line(state: &State, width: usize) -> Text<'static> {
    let filter = escaped(&state.filter);
    match () {
        () if state.searching => Text::raw(format!("/{filter}_   Enter keeps it, Esc takes it back")),
        () if state.screen != Screen::Main => Text::styled(BACK, faint()),
        () if !filter.is_empty() => {
            let only = format!("only what has \"{filter}\" in it: Esc shows all{KEY_GAP}");
            let keys = keys(width.saturating_sub(Span::raw(only.as_str()).width()));
            Text::styled(only + &keys, faint())
        }
        () => Text::styled(keys(width), faint()),
    }
}

/// What stands above the panels.
fn head(state: &State, since: Duration, width: usize, height: usize) -> Vec<Text<'static>> {
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
    if state.screen == Screen::Main {
        lines.extend(problem_lines(problems, width, (height / 4).max(1)));
    }
    lines
}

/// Problems in so many lines: the first two lines of each, and how many there are beside.
fn problem_lines(problems: &[String], width: usize, room: usize) -> Vec<Text<'static>> {
    let mut lines = Vec::new();
    for (at, problem) in problems.iter().enumerate() {
        let mut words = wrapped(&format!("problem: {}", escaped(problem)), width, 2);
        if words.len() > PROBLEM_LINES_MAX {
            words.truncate(PROBLEM_LINES_MAX);
            if let Some(last) = words.last_mut() {
                let kept: String = last.chars().take(width.saturating_sub(4)).collect();
                *last = format!("{} ...", kept.trim_end());
            }
        }
        let is_last = at + 1 == problems.len();
        if lines.len() + words.len() + usize::from(!is_last) > room && !lines.is_empty() {
            let more = problems.len() - at;
            lines.push(Text::styled(format!("and {more} more: ! shows all problems in full"), bad()));
            break;
        }
        lines.extend(words.into_iter().map(|line| Text::styled(line, bad())));
    }
    lines
}

fn text(frame: &mut Frame<'_>, state: &mut State, area: Rect, title: &str, text: &str) {
    let block = Block::new().borders(Borders::TOP).title(format!(" {} ", escaped(title)));
    let lines: Vec<String> =
        text.lines().flat_map(|line| wrapped(line, usize::from(area.width), 2)).collect();
    let height = usize::from(area.height.saturating_sub(1));
    state.scroll_max = u16::try_from(lines.len().saturating_sub(height)).unwrap_or(u16::MAX);
    state.scroll = state.scroll.min(state.scroll_max);
    let shown: Vec<Text<'static>> =
        lines.into_iter().skip(usize::from(state.scroll)).map(Text::raw).collect();
    frame.render_widget(Paragraph::new(shown).wrap(Wrap { trim: false }).block(block), area);
}

fn panels(frame: &mut Frame<'_>, state: &mut State, area: Rect) {
    let Some((listeners, pools)) = state.panels(usize::from(area.width)) else { return };
    // Listeners are few as a rule: they get what they need, up to two fifths.
    let wanted = u16::try_from(listeners.lines.len()).unwrap_or(u16::MAX).saturating_add(PANEL_HEAD);
    let most = (area.height.saturating_mul(2) / 5).max(PANEL_HEAD + 1);
    let [upper, lower] =
        Layout::vertical([Constraint::Length(wanted.min(most)), Constraint::Fill(1)]).areas(area);
    let focus = state.focus;
    panel(frame, upper, &listeners, &mut state.listeners, focus == Focus::Listeners);
    panel(frame, lower, &pools, &mut state.pools, focus == Focus::Pools);
}

fn panel(frame: &mut Frame<'_>, area: Rect, panel: &Panel, pane: &mut Pane, focused: bool) {
    let fit = usize::from(area.height.saturating_sub(PANEL_HEAD));
    pane.fit(panel, fit);
    let place = if pane.lines > pane.fit {
        format!(", {} to {}", pane.offset + 1, (pane.offset + fit).min(pane.lines))
    } else {
        String::new()
    };
    let title = Span::styled(
        format!(" {}{place} ", panel.title),
        if focused { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() },
    );
    let wanted: Vec<_> = panel.headings.iter().map(|(keep, _)| *keep).zip(widths(panel)).collect();
    let fitting = columns::fit(&wanted, area.width);
    let shown = |cells: Vec<Cell<'static>>| {
        Row::new(cells.into_iter().zip(&fitting).filter_map(|(cell, width)| width.map(|_| cell)))
    };
    let sort = pane.sort.heading();
    let heading = |(_, text): &(columns::Keep, String)| {
        let style = Style::new().add_modifier(Modifier::BOLD);
        let style = if text == sort { style.add_modifier(Modifier::UNDERLINED) } else { style };
        Cell::from(text.clone()).style(style)
    };
    let rows = panel.lines.iter().enumerate().skip(pane.offset).take(fit).map(|(at, line)| {
        let cells = line.cells.iter().map(|cell| Cell::from(escaped(cell))).collect();
        let style = style(line);
        let chosen = focused && at == pane.chosen;
        shown(cells).style(if chosen { style.add_modifier(Modifier::REVERSED) } else { style })
    });
    let rows: Vec<Row<'_>> = rows.collect();
    let table = Table::new(rows, fitting.iter().flatten().map(|width| Constraint::Length(*width)))
        .header(shown(panel.headings.iter().map(heading).collect()))
        .column_spacing(GAP)
        .block(Block::new().borders(Borders::TOP).title(title));
    frame.render_widget(table, area);
}

fn style(line: &Line) -> Style {
    match line.tone {
        Tone::Plain => Style::new(),
        Tone::Group => Style::new().add_modifier(Modifier::BOLD),
        Tone::Faint => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red),
    }
}

/// What each column needs for all lines, shown or not, so that columns stand still while the user scrolls.
fn widths(panel: &Panel) -> Vec<u16> {
    let width = |text: &String| Span::raw(escaped(text)).width();
    let column = |(at, (_, heading)): (usize, &(columns::Keep, String))| {
        let cells = panel.lines.iter().filter_map(|line| line.cells.get(at));
        let widest = cells.map(width).max().unwrap_or_default().max(width(heading));
        u16::try_from(widest).unwrap_or(u16::MAX)
    };
    panel.headings.iter().enumerate().map(column).collect()
}
