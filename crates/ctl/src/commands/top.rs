//! `trestle top`.

use std::time::Duration;

use clap::Args;

use crate::args::Format;
use crate::duration::DURATION_RULE;
use crate::error::Error;
use crate::session::Session;
use crate::top;

/// Shorter would spend more on looking than there is to see.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Longer is what metrics are for.
const INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// Options of `top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Time between two looks, and that rates are taken over; 100ms to 1h
    #[arg(long, short, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Print what one look shows and end, as is done anyway when there is no terminal, or with --output json or yaml
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(interval) if (INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) => Ok(interval),
        Ok(_) => Err("must be 100ms to 1h".to_owned()),
        Err(_) => Err(DURATION_RULE.to_owned()),
    }
}

impl TopArgs {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        let screen = session.terminal.interactive && session.format() == Format::Table;
        if self.once || !screen {
            return top::once(session, self.interval).await;
        }
        top::live(session, self.interval).await
    }
}
