//! One directed link: what becomes of a packet, and when it arrives.

use super::params::LinkParams;
use super::random::Random;
use super::report::LinkCounters;
use super::units::Queue;

/// Why a link did not pass a packet on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    Loss,
    BurstLoss,
    QueueFull,
}

/// A packet that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passage {
    /// When it arrives, in nanoseconds.
    pub(crate) due: u64,
    /// It arrives twice.
    pub(crate) twice: bool,
    /// It arrives with a flipped bit.
    pub(crate) corrupt: bool,
    /// It was held back to be overtaken.
    pub(crate) held_back: bool,
}

/// A directed link: parameters, state of the models, counters.
pub(crate) struct Link {
    pub(crate) params: LinkParams,
    pub(crate) counters: LinkCounters,
    /// Packets of this link in the wheel.
    pub(crate) waiting: usize,
    /// Where a corrupted bit is.
    pub(crate) bits: Random,
    loss: Random,
    burst: Random,
    jitter: Random,
    reorder: Random,
    copies: Random,
    corruption: Random,
    bad: bool,
    /// When the last bit of what the queue holds has left.
    busy_until: u64,
    /// When the latest packet arrives that later ones must not overtake.
    last_due: u64,
}

impl Link {
    /// An idle link. Its random streams depend on the seed and the two names alone.
    pub(crate) fn new(params: LinkParams, seed: u64, from: &str, to: &str) -> Self {
        let stream = |effect| Random::new(seed, &[from, to, effect]);
        Self {
            params,
            counters: LinkCounters::default(),
            waiting: 0,
            bits: stream("bits"),
            loss: stream("loss"),
            burst: stream("burst"),
            jitter: stream("jitter"),
            reorder: stream("reorder"),
            copies: stream("duplicate"),
            corruption: stream("corrupt"),
            bad: false,
            busy_until: 0,
            last_due: 0,
        }
    }

    /// The fate of one packet of `size` IP bytes that enters at `now`. Outages and the MTU were
    /// looked at before.
    pub(crate) fn admit(&mut self, now: u64, size: usize) -> Result<Passage, Lost> {
        if self.loss.chance(self.params.loss) {
            return Err(Lost::Loss);
        }
        if self.burst_loses() {
            return Err(Lost::BurstLoss);
        }
        let left = self.transmit(now, size)?;
        let due = self.arrival(left);
        let held_back = self.reorder.chance(self.params.reorder);
        let due = match held_back {
            true => due + self.params.reorder_delay.0,
            false => {
                self.last_due = self.last_due.max(due);
                due
            }
        };
        let twice = self.copies.chance(self.params.duplicate);
        let corrupt = self.corruption.chance(self.params.corrupt);
        Ok(Passage { due, twice, corrupt, held_back })
    }

    /// One step of the Gilbert-Elliott chain, and the loss of the state it is then in.
    fn burst_loses(&mut self) -> bool {
        let ge = self.params.ge;
        if ge.to_bad == 0.0 && ge.loss_good == 0.0 {
            self.bad = false;
            return false;
        }
        let flip = if self.bad { ge.to_good } else { ge.to_bad };
        self.bad ^= self.burst.chance(flip);
        self.burst.chance(if self.bad { ge.loss_bad } else { ge.loss_good })
    }

    /// When the packet's last bit has left the queue.
    fn transmit(&mut self, now: u64, size: usize) -> Result<u64, Lost> {
        let rate = self.params.rate.0;
        if rate == 0 {
            return Ok(now);
        }
        let backlog = self.busy_until.saturating_sub(now);
        let full = match self.params.queue {
            Queue::Time(limit) => backlog > limit.0,
            Queue::Bytes(limit) => {
                u128::from(backlog) * u128::from(rate) > u128::from(limit) * 8_000_000_000
            }
        };
        if full {
            return Err(Lost::QueueFull);
        }
        let takes = (size as u128 * 8_000_000_000).div_ceil(u128::from(rate)) as u64;
        self.busy_until = now + backlog + takes;
        Ok(self.busy_until)
    }

    fn arrival(&mut self, left: u64) -> u64 {
        let LinkParams { delay, jitter, keep_order, .. } = self.params;
        let mut due = left + delay.0;
        if jitter.0 > 0 {
            due = (due + self.jitter.below(2 * jitter.0 + 1)).saturating_sub(jitter.0).max(left);
        }
        if keep_order { due.max(self.last_due) } else { due }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wan::params::LinkSettings;

    const MS: u64 = 1_000_000;

    fn link(yaml: &str) -> Link {
        let mut params = LinkParams::default();
        let settings: LinkSettings = serde_yaml::from_str(yaml).unwrap();
        settings.apply(&mut params);
        Link::new(params, 7, "a", "b")
    }

    fn lost(yaml: &str, packets: u64) -> Vec<bool> {
        let mut link = link(yaml);
        (0..packets).map(|n| link.admit(n * MS, 100).is_err()).collect()
    }

    fn share(hits: &[bool]) -> f64 {
        hits.iter().filter(|hit| **hit).count() as f64 / hits.len() as f64
    }

    #[test]
    fn independent_loss_has_the_asked_rate_and_no_memory() {
        let losses = lost("{loss: 0.05}", 200_000);
        assert!((share(&losses) - 0.05).abs() < 0.002, "{}", share(&losses));
        let after_loss: Vec<bool> =
            losses.windows(2).filter(|pair| pair[0]).map(|pair| pair[1]).collect();
        assert!((share(&after_loss) - 0.05).abs() < 0.01, "{}", share(&after_loss));
    }

    #[test]
    fn burst_loss_has_the_asked_mean_and_burst_length() {
        let losses = lost("{ge: [0.01, 0.2, 1.0]}", 400_000);
        let mean = 0.01 / 0.21;
        assert!((share(&losses) - mean).abs() < 0.003, "{}", share(&losses));
        let bursts = losses.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        let length = losses.iter().filter(|hit| **hit).count() as f64 / bursts as f64;
        assert!((length - 5.0).abs() < 0.3, "{length}");
        let partial = lost("{ge: [0.01, 0.2, 0.5, 0.01]}", 400_000);
        let mean = 0.5 * 0.01 / 0.21 + 0.01 * 0.20 / 0.21;
        assert!((share(&partial) - mean).abs() < 0.003, "{}", share(&partial));
    }

    #[test]
    fn the_rate_spaces_packets_and_the_queue_is_bounded() {
        // 1250 bytes at 10 Mbit/s take 1 ms.
        let mut link = link("{rate: 10mbit, queue: 5ms, delay: 20ms}");
        let dues: Vec<u64> =
            (0..10).filter_map(|_| link.admit(0, 1250).ok()).map(|p| p.due).collect();
        assert_eq!(dues, (1..=6).map(|n| (20 + n) * MS).collect::<Vec<_>>());
        assert_eq!(link.admit(0, 1250), Err(Lost::QueueFull));
        assert_eq!(link.admit(3 * MS, 1250).map(|p| p.due), Ok(27 * MS));
        assert_eq!(link.admit(100 * MS, 1250).map(|p| p.due), Ok(121 * MS));
    }

    #[test]
    fn a_queue_in_bytes_holds_that_many() {
        let mut link = link("{rate: 10mbit, queue: 10kB}");
        let passed = (0..100).filter(|_| link.admit(0, 1000).is_ok()).count();
        assert_eq!(passed, 11);
    }

    #[test]
    fn jitter_keeps_order_unless_told_otherwise() {
        let inversions = |yaml: &str| {
            let mut link = link(yaml);
            let dues: Vec<u64> =
                (0..2000).map(|n| link.admit(n * MS / 10, 100).unwrap().due).collect();
            for (n, due) in dues.iter().enumerate() {
                let delay = due - n as u64 * MS / 10;
                assert!((15 * MS..=25 * MS).contains(&delay), "{delay}");
            }
            dues.windows(2).filter(|pair| pair[1] < pair[0]).count()
        };
        assert_eq!(inversions("{delay: 20ms, jitter: 5ms}"), 0);
        assert!(inversions("{delay: 20ms, jitter: 5ms, keep_order: false}") > 500);
    }

    #[test]
    fn a_held_back_packet_is_overtaken_but_holds_up_nobody() {
        let mut link = link("{delay: 20ms, reorder: 0.1, reorder_delay: 5ms}");
        let passages: Vec<Passage> = (0..2000).map(|n| link.admit(n * MS, 100).unwrap()).collect();
        for (n, passage) in passages.iter().enumerate() {
            let delay = if passage.held_back { 25 } else { 20 };
            assert_eq!(passage.due, (n as u64 + delay) * MS);
        }
        let share = passages.iter().filter(|p| p.held_back).count() as f64 / 2000.0;
        assert!((share - 0.1).abs() < 0.02, "{share}");
    }

    #[test]
    fn copies_and_corruption_have_the_asked_share() {
        let mut link = link("{duplicate: 0.02, corrupt: 0.03}");
        let passages: Vec<Passage> = (0..100_000).map(|n| link.admit(n, 100).unwrap()).collect();
        let twice = passages.iter().filter(|p| p.twice).count();
        let corrupt = passages.iter().filter(|p| p.corrupt).count();
        assert!((1_800..2_200).contains(&twice), "{twice}");
        assert!((2_750..3_250).contains(&corrupt), "{corrupt}");
    }

    #[test]
    fn a_shorter_delay_lets_nothing_overtake() {
        let mut link = link("{delay: 80ms}");
        assert_eq!(link.admit(0, 100).unwrap().due, 80 * MS);
        link.params.delay.0 = 10 * MS;
        assert_eq!(link.admit(MS, 100).unwrap().due, 80 * MS);
        assert_eq!(link.admit(75 * MS, 100).unwrap().due, 85 * MS);
    }
}
