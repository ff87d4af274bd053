//! The live view of `trestle top`: what a member says of the cluster, again and again.
//!
//! State and drawing are pure: snapshots and keys come in as values. Only this file knows the terminal.

mod columns;
mod detail;
mod draw;
mod overview;
mod panel;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::overview::Overview;
use self::state::{Key, State};
use crate::error::Error;
use crate::session::Session;

/// Events that wait to be taken in; a reader that is further behind drops none, it waits.
const EVENTS_MAX: usize = 64;

/// Prints one overview with the rates of one interval.
///
/// # Errors
/// When no member answers, or the output cannot be written.
pub(crate) async fn once(session: &mut Session<'_>, every: Duration) -> Result<(), Error> {
    let began = Instant::now();
    let before = snapshot::take(session, began).await?;
    tokio::time::sleep(every).await;
    let now = snapshot::take(session, began).await?;
    let overview = Overview::new(Some(&before), &now);
    session.print(&overview, || overview.text())
}

/// The terminal as it was before, when this goes: at the end and on every error. A panic's hook, which ratatui sets, does
/// the same before the message is printed.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self).inspect_err(|_| {
            // It may have failed halfway; the error to tell is the first one.
            let _ = ratatui::try_restore();
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring, and there is nobody to tell.
        let _ = ratatui::try_restore();
    }
}

/// Shows the overview until the user, or a signal, ends it.
///
/// # Errors
/// When the terminal cannot be used.
pub(crate) async fn live(session: &mut Session<'_>, every: Duration) -> Result<(), Error> {
    let began = Instant::now();
    let mut ends = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()]
        .into_iter()
        .map(signal)
        .collect::<io::Result<Vec<_>>>()?;
    let mut screen = Screen::open()?;
    let mut events = events();
    let mut state = State::default();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Keys are heard while a member is asked: one that hangs must not make the screen hang.
        let mut asking = std::pin::pin!(async {
            ticks.tick().await;
            snapshot::take(session, began).await
        });
        let learned = loop {
            screen.0.draw(|frame| draw::draw(frame, &mut state, began.elapsed()))?;
            tokio::select! {
                learned = &mut asking, if !state.paused => break learned,
                event = events.recv() => match event {
                    Some(Ok(event)) => {
                        if key(&event).is_some_and(|key| !state.press(key)) {
                            return Ok(());
                        }
                    }
                    Some(Err(error)) => return Err(error.into()),
                    None => return Ok(()),
                },
                () = any(&mut ends) => return Ok(()),
            }
        };
        state.learn(learned.map_err(|error| error.brief()));
    }
}

/// Waits for one of the signals.
async fn any(signals: &mut [tokio::signal::unix::Signal]) {
    std::future::poll_fn(|cx| {
        let ready = signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
        if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// Keys and changes of size, read by a thread of their own because reading them blocks; it ends with the process.
fn events() -> mpsc::Receiver<io::Result<Event>> {
    let (send, receive) = mpsc::channel(EVENTS_MAX);
    std::thread::spawn(move || {
        loop {
            let event = event::read();
            let failed = event.is_err();
            if send.blocking_send(event).is_err() || failed {
                return;
            }
        }
    });
    receive
}

/// The key of an event; changes of size need no more than to be drawn.
fn key(event: &Event) -> Option<Key> {
    let Event::Key(KeyEvent { code, modifiers, kind, .. }) = event else { return None };
    if *kind == KeyEventKind::Release {
        return None;
    }
    match (code, modifiers.contains(KeyModifiers::CONTROL)) {
        (KeyCode::Char('c'), true) => Some(Key::Interrupt),
        (KeyCode::Char(c), false) => Some(Key::Char(*c)),
        (KeyCode::Up, _) => Some(Key::Up),
        (KeyCode::Down, _) => Some(Key::Down),
        (KeyCode::Left, _) => Some(Key::Left),
        (KeyCode::Right, _) => Some(Key::Right),
        (KeyCode::PageUp, _) => Some(Key::PageUp),
        (KeyCode::PageDown, _) => Some(Key::PageDown),
        (KeyCode::Home, _) => Some(Key::Home),
        (KeyCode::End, _) => Some(Key::End),
        (KeyCode::Tab | KeyCode::BackTab, _) => Some(Key::Tab),
        (KeyCode::Enter, _) => Some(Key::Enter),
        (KeyCode::Esc, _) => Some(Key::Escape),
        (KeyCode::Backspace, _) => Some(Key::Backspace),
        _ => None,
    }
}
