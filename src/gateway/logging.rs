//! The log: a filter that a reload can change, and a brake for what the network can cause.

use std::sync::{OnceLock, RwLock};
use std::time::Duration;

use log::{Log, Metadata, Record};

use crate::time::Instant;

static LOGGER: OnceLock<Reloadable> = OnceLock::new();

struct Reloadable(RwLock<env_logger::Logger>);

impl Log for Reloadable {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.read().is_ok_and(|logger| logger.enabled(metadata))
    }

    fn log(&self, record: &Record<'_>) {
        if let Ok(logger) = self.0.read() {
            logger.log(record);
        }
    }

    fn flush(&self) {}
}

/// Starts the log, or changes its filter. `RUST_LOG` overrides the configured one.
pub(super) fn set_filter(filter: &str) {
    let overriding = std::env::var("RUST_LOG").ok().filter(|value| !value.is_empty());
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(overriding.as_deref().unwrap_or(filter));
    // The journal puts the time in front itself.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.format_timestamp(None);
    } else {
        builder.format_timestamp_millis();
    }
    let logger = builder.build();
    let level = logger.filter();
    if let Some(present) = LOGGER.get() {
        if let Ok(mut inner) = present.0.write() {
            *inner = logger;
        }
    } else {
        let present = LOGGER.get_or_init(|| Reloadable(RwLock::new(logger)));
        // Someone else's logger stays; ours is then never called.
        let _ = log::set_logger(present);
    }
    log::set_max_level(level);
}

/// Lines in a burst.
const BURST: u32 = 50;
/// One line more for each of these.
const REFILL: Duration = Duration::from_millis(200);

/// Lets a bounded number of lines through. How many it held back is told when it opens again.
pub(super) struct Throttle {
    left: u32,
    refilled: Instant,
    held_back: u64,
}

impl Throttle {
    /// Full.
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, refilled: now, held_back: 0 }
    }

    /// True when a line may be written.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        let lines = (now - self.refilled).as_micros() / REFILL.as_micros();
        if lines > 0 {
            self.left = self.left.saturating_add(lines.min(u128::from(BURST)) as u32).min(BURST);
            self.refilled = now;
        }
        if self.left == 0 {
            self.held_back += 1;
            return false;
        }
        self.left -= 1;
        if self.held_back > 0 {
            log::info!("({} lines held back)", self.held_back);
            self.held_back = 0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_held_back_and_a_trickle_is_not() {
        let start = Instant::from_micros(1);
        let mut throttle = Throttle::new(start);
        let flood = (0..1_000).filter(|_| throttle.admits(start)).count();
        assert_eq!(flood, BURST as usize);
        let trickle = (1..100).filter(|&i| throttle.admits(start + REFILL * i)).count();
        assert_eq!(trickle, 99);
    }
}
