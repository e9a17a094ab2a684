//! How the nodes of a world are configured.
//!
//! Each group of settings is drawn from a generator of its own, so that one more setting leaves the
//! others, and the rest of the plan, what they were.

use std::time::Duration;

use super::plan::Plan;
use crate::flow::{Class, ClassMatch, Classes, Group, Scope, TagSet};
use crate::id::PeerIndex;
use crate::metric::Metric;
use crate::nat::NatTimers;
use crate::node::{NodeConfig, RelayConfig};
use crate::rng::Rng;
use crate::routing::{HysteresisConfig, Margin, RouterConfig};
use crate::tunnel::{PresharedKey, Suite, Suites};

/// Ports of hosts up to this one are of the first class.
const FIRST_CLASS: std::ops::RangeInclusive<u16> = 1_000..=1_003;
const FIRST_TAG: u8 = 2;
/// The first outside port of every exit.
const FIRST_PORT: u16 = 40_000;

/// What one class of flows gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassPlan {
    /// What paths are chosen by.
    pub metric: Metric,
    /// Each packet goes over two paths.
    pub twice: bool,
    /// Flows are spread over all good paths.
    pub multipath: bool,
    /// Which flows stay together.
    pub group: Group,
}

/// What an operator puts in force for a while, in place of the settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// The two classes.
    pub classes: [ClassPlan; 2],
    /// What the first class may send, in kbit/s.
    pub rate_kbit_s: Option<u32>,
    /// The site that the first class avoids altogether.
    pub avoids: Option<u8>,
    /// Neither class uses relays.
    pub direct_only: bool,
    /// Nobody's packets of the first class are relayed; with `true` those of nobody at all.
    pub refuses: Option<bool>,
}

/// Which suites the nodes allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ciphers {
    /// Both, and all prefer the same.
    #[default]
    Both,
    /// Both, but sites of the set prefer ChaCha20-Poly1305.
    Prefer(u8),
    /// ChaCha20-Poly1305 alone, but sites of the set allow both, and prefer the other.
    ChaCha(u8),
}

/// How the nodes of a world are configured, where that is not as in every other world.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The two classes, alike at every node.
    pub classes: [ClassPlan; 2],
    /// The policy that a reload puts in force for a while.
    pub reloaded: Reloaded,
    /// The sites that relay for the others, as a set.
    pub relays: u8,
    /// What each of them relays in all, in kbit/s.
    pub relay_kbit_s: Option<u32>,
    /// Sites that drop whatever they relay when the storm is over, as a set.
    pub liars: u8,
    /// The suites.
    pub ciphers: Ciphers,
    /// All have a pre-shared key.
    pub preshared: bool,
    /// Relative and absolute (in microseconds) margin of latency, and hold-down in seconds.
    pub hysteresis: Option<(f64, f64, u16)>,
    /// Outside ports of each exit.
    pub nat_ports: u16,
    /// How long an idle UDP mapping lives, and how long its port rests then, in seconds.
    pub nat_life: Option<(u16, u16)>,
}

impl Default for Settings {
    /// Those of [`crate::sim::Mesh`].
    fn default() -> Self {
        Self {
            classes: [ClassPlan::default(); 2],
            reloaded: Reloaded::default(),
            relays: 0xff,
            relay_kbit_s: None,
            liars: 0,
            ciphers: Ciphers::Both,
            preshared: false,
            hysteresis: None,
            nat_ports: 20_000,
            nat_life: None,
        }
    }
}

impl Settings {
    /// Those of a seed.
    pub(super) fn draw(seed: u64, sites: u8) -> Self {
        let mut settings = Self::default();
        let rng = &mut group(seed, b"classes!");
        if rng.chance(0.6) {
            settings.classes = [class(rng), class(rng)];
        }
        settings.reloaded = reloaded(sites, &mut group(seed, b"reloaded"));
        let rng = &mut group(seed, b"relaying");
        if rng.chance(0.3) {
            settings.relays = rng.below(256) as u8;
        }
        if rng.chance(0.3) {
            settings.relay_kbit_s = Some(1_000 << rng.below(4));
        }
        let rng = &mut group(seed, b"the liar");
        if rng.chance(0.2) {
            settings.liars = 1 << rng.below(u32::from(sites));
        }
        let rng = &mut group(seed, b"ciphers!");
        settings.ciphers = match rng.below(6) {
            0 => Ciphers::Prefer(rng.below(256) as u8),
            1 => Ciphers::ChaCha(rng.below(256) as u8),
            _ => Ciphers::Both,
        };
        settings.preshared = rng.chance(0.3);
        let rng = &mut group(seed, b"margins!");
        if rng.chance(0.3) {
            let absolute = f64::from(rng.below(20)) * 1_000.0;
            settings.hysteresis = Some((rng.unit() * 0.5, absolute, rng.below(20) as u16));
        }
        let rng = &mut group(seed, b"the NATs");
        if rng.chance(0.4) {
            settings.nat_ports = 16 << rng.below(5);
        }
        if rng.chance(0.5) {
            settings.nat_life = Some((3 + rng.below(20) as u16, 1 + rng.below(10) as u16));
        }
        settings
    }

    /// True when a site relays for the others all the time.
    pub(super) fn relays(&self, site: u8) -> bool {
        (self.relays & !self.liars) >> site & 1 == 1
    }

    /// What an exit gives away.
    pub(super) fn ports(&self) -> std::ops::RangeInclusive<u16> {
        FIRST_PORT..=FIRST_PORT + (self.nat_ports - 1)
    }

    /// How long an idle UDP mapping lives.
    pub(super) fn mapping_life(&self) -> Duration {
        let drawn = self.nat_life.map(|(life, _)| Duration::from_secs(life.into()));
        drawn.unwrap_or_else(|| NatTimers::default().udp)
    }

    /// Makes a site's configuration what was drawn.
    pub(super) fn apply(&self, site: u8, config: &mut NodeConfig) {
        config.classes = Classes::new(classes_of(self.classes).to_vec());
        config.relay = RelayConfig {
            allowed: (self.relays >> site & 1 == 0).then(Vec::new),
            rate_bps: self.relay_kbit_s.map(|kbit| u64::from(kbit) * 1_000),
            refused: TagSet::default(),
        };
        config.suites = match self.ciphers {
            Ciphers::Both => Suites::default(),
            Ciphers::Prefer(set) if set >> site & 1 == 0 => Suites::default(),
            Ciphers::Prefer(_) => Suites::preferring(Suite::ChaCha20Poly1305),
            Ciphers::ChaCha(set) if set >> site & 1 == 1 => Suites::preferring(Suite::Aes256Gcm),
            Ciphers::ChaCha(_) => Suites::only(Suite::ChaCha20Poly1305),
        };
        config.preshared_key = self.preshared.then(|| PresharedKey::new([0x5a; 32]));
        if let Some((relative, absolute, hold_down)) = self.hysteresis {
            config.routing.hysteresis = HysteresisConfig {
                latency: Margin { relative, absolute },
                hold_down: Duration::from_secs(hold_down.into()),
                ..RouterConfig::default().hysteresis
            };
        }
        if let Some(egress) = &mut config.egress {
            egress.nat.ports = self.ports();
            if let Some((life, rest)) = self.nat_life {
                egress.nat.timers.udp = Duration::from_secs(life.into());
                egress.nat.timers.quarantine = Duration::from_secs(rest.into());
            }
        }
    }

    /// Makes a site's configuration the other one for a while.
    pub(super) fn reload(&self, site: u8, sites: u8, config: &mut NodeConfig) {
        let Reloaded { classes, rate_kbit_s, avoids, direct_only, refuses } = self.reloaded;
        let [mut first, mut other] = classes_of(classes);
        first.rate_bps = rate_kbit_s.map(|kbit| u64::from(kbit) * 1_000);
        if let Some(avoided) = avoids.map(|avoided| avoided % sites).filter(|&a| a != site) {
            first.avoid.peers = Some(vec![PeerIndex((avoided - u8::from(avoided > site)).into())]);
        }
        if direct_only {
            let none = Scope { relays: Some(Vec::new()), ..Scope::default() };
            (first.only, other.only) = (none.clone(), none);
        }
        config.classes = Classes::new(vec![first, other]);
        match refuses {
            Some(true) => config.relay.allowed = Some(Vec::new()),
            Some(false) => config.relay.refused.insert(FIRST_TAG),
            None => {}
        }
    }
}

impl Plan {
    /// What a site is configured as when an operator has put the other policy in force there.
    pub(super) fn reloads(&self, site: u8, config: &NodeConfig) -> NodeConfig {
        let mut config = config.clone();
        self.settings.reload(site, self.sites, &mut config);
        config
    }
}

/// The generator of a group of settings.
pub(super) fn group(seed: u64, name: &[u8; 8]) -> Rng {
    let mut bytes = *b"swarm plan: how is it all set up";
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[24..].copy_from_slice(name);
    Rng::new(bytes)
}

fn class(rng: &mut Rng) -> ClassPlan {
    ClassPlan {
        metric: Metric::ALL[rng.below(3) as usize],
        twice: rng.chance(0.3),
        multipath: rng.chance(0.3),
        group: [Group::Flow, Group::Hosts, Group::Source][rng.below(3) as usize],
    }
}

fn reloaded(sites: u8, rng: &mut Rng) -> Reloaded {
    Reloaded {
        classes: [class(rng), class(rng)],
        rate_kbit_s: rng.chance(0.3).then(|| 8 << rng.below(8)),
        avoids: rng.chance(0.3).then(|| rng.below(u32::from(sites)) as u8),
        direct_only: rng.chance(0.2),
        refuses: rng.chance(0.4).then(|| rng.chance(0.5)),
    }
}

/// The first class is that of some ports, the other that of all the others.
fn classes_of(plans: [ClassPlan; 2]) -> [Class; 2] {
    let [mut first, other] = plans.map(|plan| Class {
        metric: plan.metric,
        redundancy: 1 + u8::from(plan.twice),
        multipath: plan.multipath,
        group: plan.group,
        ..Class::default()
    });
    first.name = "first".to_owned();
    first.tag = FIRST_TAG;
    first.matches =
        Some(ClassMatch { destination_ports: vec![FIRST_CLASS], ..ClassMatch::default() });
    [first, other]
}
