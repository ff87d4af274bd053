//! `trestle top` in a terminal: what a person sees at 80 columns, keys, and the terminal as it was before when it ends.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use trestle_api::v1::{AdminState, Verdict};
use trestle_testkit::{Cluster, Origin, wait_for};

use crate::trestled;

const LIMIT: Duration = Duration::from_secs(60);
const COLUMNS: usize = 80;
const ROWS: usize = 24;

/// What a terminal shows after what was written to it, as far as `top` uses terminals: text, places, clearing, the alternate
/// screen, the cursor.
struct Screen {
    cells: Vec<Vec<char>>,
    row: usize,
    column: usize,
    alternate: bool,
    cursor: bool,
}

impl Screen {
    fn of(written: &str) -> Self {
        let cells = vec![vec![' '; COLUMNS]; ROWS];
        let mut screen = Self { cells, row: 0, column: 0, alternate: false, cursor: true };
        let mut rest = written.chars();
        while let Some(c) = rest.next() {
            match c {
                '\u{1b}' => screen.escape(&mut rest),
                '\r' => screen.column = 0,
                '\n' => screen.row = (screen.row + 1).min(ROWS - 1),
                c if !c.is_control() => screen.put(c),
                _ => {}
            }
        }
        screen
    }

    fn put(&mut self, c: char) {
        if let Some(cell) = self.cells[self.row].get_mut(self.column) {
            *cell = c;
        }
        self.column += 1;
    }

    /// A control sequence (ECMA-48 §5.4): parameters, and a last byte that says what to do.
    fn escape(&mut self, rest: &mut std::str::Chars<'_>) {
        if rest.next() != Some('[') {
            return;
        }
        let mut parameters = String::new();
        let order = loop {
            match rest.next() {
                Some(c @ '@'..='~') => break c,
                Some(c) => parameters.push(c),
                None => return,
            }
        };
        let number = |at: usize| parameters.split(';').nth(at).and_then(|n| n.parse::<usize>().ok());
        match (order, parameters.as_str()) {
            ('H', _) => {
                self.row = (number(0).unwrap_or(1).max(1) - 1).min(ROWS - 1);
                self.column = number(1).unwrap_or(1).max(1) - 1;
            }
            ('J', _) => self.cells.iter_mut().for_each(|line| line.fill(' ')),
            ('K', _) => self.cells[self.row].iter_mut().skip(self.column).for_each(|cell| *cell = ' '),
            ('h' | 'l', "?1049") => self.alternate = order == 'h',
            ('h' | 'l', "?25") => self.cursor = order == 'h',
            _ => {}
        }
    }

    fn lines(&self) -> Vec<String> {
        self.cells.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned()).collect()
    }
}

/// `trestle top`, in a terminal of 80 columns that script(1) makes.
struct Top {
    process: Child,
    output: PathBuf,
    _dir: tempfile::TempDir,
}

impl Top {
    fn start(endpoints: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("terminal");
        let program = env!("CARGO_BIN_EXE_trestle");
        let line = format!("stty rows {ROWS} cols {COLUMNS}; exec '{program}' top --interval 200ms");
        let process = Command::new("script")
            .args(["--quiet", "--flush", "--return", "--command", &line])
            .arg(&output)
            .env("TRESTLE_ENDPOINT", endpoints)
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("script(1), of util-linux: {error}"));
        Self { process, output, _dir: dir }
    }

    fn screen(&self) -> Screen {
        let written = std::fs::read(&self.output).unwrap_or_default();
        let written = String::from_utf8_lossy(&written).into_owned();
        // script begins the file with a line of its own, and ends it with one.
        let (_, written) = written.split_once('\n').unwrap_or_default();
        Screen::of(written.split("\nScript done on ").next().unwrap_or_default())
    }

    fn press(&mut self, keys: &str) {
        let stdin = self.process.stdin.as_mut().unwrap();
        stdin.write_all(keys.as_bytes()).and_then(|()| stdin.flush()).unwrap();
    }

    /// Waits until the screen is as it should be; answers its lines.
    fn sees(&self, what: &str, is_right: impl Fn(&[String]) -> bool) -> Vec<String> {
        wait_for(what, LIMIT, || {
            let lines = self.screen().lines();
            if is_right(&lines) { Ok(lines) } else { Err(lines.join("\n")) }
        })
    }

    fn ended(&mut self) -> ExitStatus {
        wait_for("the end of top", LIMIT, || self.process.try_wait().unwrap().ok_or("it still runs"))
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn has(lines: &[String], words: &str) -> bool {
    lines.iter().any(|line| line.contains(words))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_shows_a_pool_that_is_down_and_leaves_the_terminal_as_it_was() {
    let cluster = Cluster::start(trestled(), 3).await;
    let origin = Origin::start((cluster.subnet.ip(11), 0), "origin");
    let api = cluster.api(0);
    api.create_pool("web", Some(Duration::from_millis(100))).await.unwrap();
    for name in ["a", "b"] {
        api.create_backend("web", name, origin.address()).await.unwrap();
    }
    api.create_listener("front", "0.0.0.0:8080", "web").await.unwrap();
    api.verdict("web", |_| true, Verdict::Healthy).await;

    let mut top = Top::start(&cluster.endpoints());
    let lines = top.sees("a healthy pool", |lines| has(lines, "2/2 healthy") && has(lines, "front  3/3"));
    assert!(
        lines[0].starts_with("trestle   leader m") && lines[0].contains("3 of 3 voters answer"),
        "{lines:#?}"
    );
    assert_eq!(
        lines[ROWS - 1],
        "q quit   ? help   ! problems   / search   Enter details   Tab panel   < > sort",
        "{lines:#?}"
    );
    assert!(top.screen().alternate && !top.screen().cursor);

    // Both backends are healthy, and no client is led to either.
    for name in ["a", "b"] {
        api.set_state(&format!("pools/web/backends/{name}"), AdminState::Draining).await.unwrap();
    }
    let lines = top.sees("a pool that is down", |lines| has(lines, "down (none of 2 in use)"));
    assert!(has(&lines, "problem: pool web is down: all of its backends (2) are drained"), "{lines:#?}");

    top.press("/web/b\r");
    top.sees("what was searched for", |lines| {
        has(lines, "only what has \"web/b\" in it: Esc shows all   q quit")
    });
    // The first line that has it is chosen, and not the pool above it.
    top.press("\r");
    top.sees("its details", |lines| has(lines, " backend web/b ") && has(lines, "MEMBER   VERDICT"));
    top.press("?");
    top.sees("help", |lines| has(lines, " help ") && has(lines, "this help; Esc closes it"));
    top.press("q");
    assert_eq!(top.ended().code(), Some(0));
    let screen = top.screen();
    assert!(!screen.alternate && screen.cursor, "the terminal is as it was");

    // Ctrl-C is the same, while nobody answers too.
    let mut alone = Top::start(&format!("{}:7480", cluster.subnet.ip(99)));
    alone.sees("that nobody answers", |lines| has(lines, "no member answers"));
    alone.press("\u{3}");
    assert_eq!(alone.ended().code(), Some(0));
    let screen = alone.screen();
    assert!(!screen.alternate && screen.cursor);
}
