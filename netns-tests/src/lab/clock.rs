//! Reading the clock and waiting for something to become true.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};

/// The monotonic clock. A laboratory runs real processes, so its time is real too.
#[expect(clippy::disallowed_methods, reason = "the laboratory measures real processes")]
pub fn now() -> Instant {
    Instant::now()
}

/// The monotonic clock in nanoseconds, the same for every process of this machine.
pub fn monotonic_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

/// Repeats `check` until it returns `Ok`, at most for `limit`.
///
/// An `Err` means "not yet"; the last one becomes the cause of the failure, so a check written with
/// `ensure!` says what was still wrong when the time was over.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = now();
    let mut pause = Duration::from_millis(10);
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() >= limit => {
                return Err(error).with_context(|| {
                    format!("waited {:.1} s in vain for: {what}", start.elapsed().as_secs_f64())
                });
            }
            Err(_) => {}
        }
        sleep(pause.min(limit.saturating_sub(start.elapsed())));
        pause = (pause * 3 / 2).min(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::ensure;

    #[test]
    fn waits_for_the_first_success() {
        let mut tries = 0;
        let got = wait_until("three tries", Duration::from_secs(5), || {
            tries += 1;
            ensure!(tries == 3, "only {tries}");
            Ok(tries)
        });
        assert_eq!(got.unwrap(), 3);
    }

    #[test]
    fn tells_what_was_missing_at_the_end() {
        let error =
            wait_until::<()>("rain", Duration::from_millis(20), || anyhow::bail!("sun is shining"))
                .unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("rain") && text.contains("sun is shining"), "{text}");
    }
}
