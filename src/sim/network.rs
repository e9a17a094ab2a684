//! The underlay of a simulation: what happens to a datagram between two addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::rng::Rng;

/// One directed pair of underlay addresses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkModel {
    /// One-way delay.
    pub delay: Duration,
    /// Added to the delay, uniform from zero to this.
    pub jitter: Duration,
    /// Fraction of datagrams that vanish.
    pub loss: f64,
    /// False in an outage: everything vanishes without a word.
    pub up: bool,
    /// Largest UDP payload that passes.
    pub max_payload: usize,
}

impl Default for LinkModel {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(10),
            jitter: Duration::ZERO,
            loss: 0.0,
            up: true,
            max_payload: 1472,
        }
    }
}

/// All directed pairs; one that was never set behaves like the default.
#[derive(Debug)]
pub struct Network {
    default: LinkModel,
    links: BTreeMap<(IpAddr, IpAddr), LinkModel>,
    rng: Rng,
}

impl Network {
    /// A network in which every pair is like `default`.
    pub const fn new(default: LinkModel, rng: Rng) -> Self {
        Self { default, links: BTreeMap::new(), rng }
    }

    /// How the pair behaves.
    pub fn link(&self, from: IpAddr, to: IpAddr) -> LinkModel {
        self.links.get(&(from, to)).copied().unwrap_or(self.default)
    }

    /// Changes one direction of a pair.
    pub fn set(&mut self, from: IpAddr, to: IpAddr, change: impl FnOnce(&mut LinkModel)) {
        change(self.links.entry((from, to)).or_insert(self.default));
    }

    /// Changes both directions of a pair.
    pub fn set_both(&mut self, a: IpAddr, b: IpAddr, mut change: impl FnMut(&mut LinkModel)) {
        self.set(a, b, &mut change);
        self.set(b, a, &mut change);
    }

    /// How long a datagram of `len` bytes takes, or `None` when it vanishes.
    pub fn transit(&mut self, from: IpAddr, to: IpAddr, len: usize) -> Option<Duration> {
        let link = self.link(from, to);
        if !link.up || len > link.max_payload || self.rng.chance(link.loss) {
            return None;
        }
        Some(link.delay + link.jitter.mul_f64(self.rng.unit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_loss_and_size_limits_apply_to_one_direction() {
        let mut network = Network::new(LinkModel::default(), Rng::new([3; 32]));
        let [a, b]: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        network.set(a, b, |link| link.up = false);
        assert_eq!(network.transit(a, b, 100), None);
        assert_eq!(network.transit(b, a, 100), Some(Duration::from_millis(10)));
        assert_eq!(network.transit(b, a, 1473), None);
        network.set(b, a, |link| link.loss = 0.25);
        let lost = (0..4000).filter(|_| network.transit(b, a, 100).is_none()).count();
        assert!((800..1200).contains(&lost), "{lost}");
    }
}
