//! What relaying leaves of its rate, for whoever looks for a relay; and what we need of others'.

use std::time::Duration;

use super::Node;
use crate::id::PeerIndex;
use crate::time::Instant;

/// How often rates are measured.
const LOOK: Duration = Duration::from_secs(1);
/// What is left is told again no sooner than this.
const PAUSE: Duration = Duration::from_secs(2);
/// A rate that falls is believed slowly, by this much of the difference in a second: whoever left
/// may be back.
const DECAY: f64 = 0.2;

/// A rate that rises at once and falls slowly, in kbit/s.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    bytes: u64,
    kbit: f64,
}

impl Rate {
    /// `bytes` have been counted in all, the last of them in this span.
    fn observe(&mut self, bytes: u64, span: Duration) {
        let grown = bytes.saturating_sub(std::mem::replace(&mut self.bytes, bytes));
        let kbit = grown as f64 * 8.0 / 1e3 / span.as_secs_f64();
        let seconds = span.as_secs_f64().min(1.0 / DECAY);
        self.kbit = kbit.max(self.kbit + (kbit - self.kbit) * DECAY * seconds);
    }
}

/// What we relay.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RelayLoad {
    looked_at: Option<Instant>,
    relayed: Rate,
    /// What was told to be left, and when.
    told: Option<(u32, Instant)>,
    /// The limit at that time.
    rate_told: Option<u64>,
}

impl RelayLoad {
    /// What is left of `rate_bps`, when that is worth telling anew.
    fn left(&mut self, now: Instant, rate_bps: Option<u64>) -> Option<u32> {
        let rate = rate_bps.map(|rate| rate as f64 / 1e3);
        let left = rate.map_or(u32::MAX, |rate| {
            let left = (rate - self.relayed.kbit).max(0.0);
            // A little is nothing: what comes would find no room.
            if left < rate / 20.0 { 0 } else { left as u32 }
        });
        let news = match self.told {
            None => left != u32::MAX,
            Some((told, at)) => {
                let much = u64::from(left) * 2 <= told.into() || u64::from(told) * 2 <= left.into();
                let limited_anew = self.rate_told != rate_bps;
                left != told && (much || limited_anew) && now - at >= PAUSE
            }
        };
        if news {
            self.told = Some((left, now));
            self.rate_told = rate_bps;
        }
        news.then_some(left)
    }
}

impl Node {
    /// Measures what we relay and send, and tells others what is left.
    pub(super) fn observe_load(&mut self, now: Instant) {
        let before = *self.relay_load.looked_at.get_or_insert(now);
        let span = now - before;
        if span < LOOK {
            return;
        }
        self.relay_load.looked_at = Some(now);
        self.relay_load.relayed.observe(self.counters.relayed.bytes, span);
        if let Some(left) = self.relay_load.left(now, self.relay_bucket.rate_bps()) {
            self.advertiser.set_spare_relay(now, left);
            self.touch();
        }
        for index in 0..self.peers.len() {
            let peer = self.peers.aside(index);
            peer.sending.observe(peer.tx.bytes, span);
            self.router.set_need(PeerIndex(index as u16), peer.sending.kbit as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_when_it_changes_much() {
        let at = |s: u64| Instant::from_micros(s * 1_000_000);
        let mut load = RelayLoad::default();
        assert_eq!(load.left(at(0), None), None, "without a limit there is nothing to tell");
        assert_eq!(load.left(at(0), Some(8_000_000)), Some(8_000));
        let mut bytes = 0;
        let mut told = Vec::new();
        for (second, kbit) in
            (1..).zip([0, 2_000, 2_000, 5_000, 8_000, 8_000, 8_000, 0, 0, 0, 0, 0, 0, 0])
        {
            bytes += kbit * 125;
            load.relayed.observe(bytes, LOOK);
            told.extend(load.left(at(second), Some(8_000_000)).map(|left| (second, left)));
        }
        assert_eq!(told[..2], [(4, 3_000), (6, 0)], "{told:?}");
        assert!(told[2].0 > 7 && told.last().unwrap().1 > 3_500, "{told:?}");
        assert_eq!(load.left(at(99), None), Some(u32::MAX), "a limit that is no more");
        let mut load = RelayLoad::default();
        let told = [8_000_000, 6_000_000, 6_000_000, 7_000_000].map(Some);
        let told = (0..).map(|second| at(second * 3)).zip(told);
        let told: Vec<_> = told.map(|(now, rate)| load.left(now, rate)).collect();
        assert_eq!(told, [Some(8_000), Some(6_000), None, Some(7_000)], "another limit");
    }
}
