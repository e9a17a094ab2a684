//! What a seed stands for: a world and what goes wrong in it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::settings::{self, Settings};
use crate::rng::Rng;
use crate::sim::{BoxModel, Clock, Dependence, Mesh};

/// Sites of the largest world.
pub const SITES_MAX: u8 = 7;

/// Chances of mishaps that any datagram may meet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// It vanishes.
    pub loss: f64,
    /// It arrives twice.
    pub duplicate: f64,
    /// It arrives with one bit changed.
    pub corrupt: f64,
    /// It is late by up to so many milliseconds.
    pub jitter_ms: u32,
}

/// Something that goes wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mishap {
    /// From then on.
    pub at: Duration,
    /// For so long.
    pub lasts: Duration,
    /// What it is.
    pub what: What,
}

/// What goes wrong. Sites and links are numbered; a number that is too big is taken modulo.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    /// The underlay between two sites carries nothing, in one direction or both.
    Cut(u8, u8, bool),
    /// The sites in the set and the others do not hear each other; with `true` only the others
    /// are not heard.
    Partition(u8, bool),
    /// One uplink of a site is dead.
    Uplink(u8, u8),
    /// A link that routes share is dead.
    Link(u8),
    /// A link that routes share loses in bursts.
    LossyLink(u8),
    /// Two sites lose datagrams, in per cent.
    Loss(u8, u8, u8),
    /// The way between two sites takes so many milliseconds longer.
    Detour(u8, u8, u16),
    /// The way between two sites passes no more than so many bytes of UDP payload.
    Narrow(u8, u8, u16),
    /// The way between two sites carries so many kbit/s; what would wait longer than so many
    /// milliseconds vanishes.
    Queue(u8, u8, u16, u16),
    /// The same of a link that routes share.
    QueueLink(u8, u16, u16),
    /// The gateway of a site is killed, and started again.
    Kill(u8),
    /// The gateway of a site does nothing.
    Freeze(u8),
    /// The middlebox of a site forgets everything; at once, not for a while.
    Forget(u8),
    /// A site's uplink has another address.
    Move(u8),
    /// The calendar of a site is so many seconds ahead.
    Calendar(u8, i32),
    /// An operator puts another policy in force at a site.
    Reload(u8),
    /// A site, whose links are as good as it says, drops so many per cent of what it relays, and
    /// keeps the others for so many milliseconds.
    Liar(u8, u8, u16),
}

/// A world and what goes wrong in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Everything else comes from it, and all chance of the run.
    pub seed: u64,
    /// Sites, each with a gateway; all are peers of all.
    pub sites: u8,
    /// Uplinks of each site.
    pub uplinks: u8,
    /// Every site is an exit, and uses the others'.
    pub exits: bool,
    /// The underlay is one of IPv6, and hosts speak both.
    pub ipv6: bool,
    /// The underlay is one of autonomous systems with shared links, not a mesh.
    pub shared: bool,
    /// That underlay has thousands of routers, not a hundred.
    pub large: bool,
    /// Routing of that underlay finds ways round dead links after this time.
    pub reroutes_after: Option<Duration>,
    /// The clock of each site.
    pub clocks: Vec<Clock>,
    /// What stands before the site, if anything.
    pub boxes: Vec<Option<BoxModel>>,
    /// What may happen to every datagram during the storm.
    pub rates: Rates,
    /// Entries of the flow table.
    pub flows_max: u32,
    /// Mappings of each exit.
    pub mappings_max: u32,
    /// Chance of traffic in each slice of time.
    pub traffic: f64,
    /// Chance that hosts then send several packets at once.
    pub bursts: f64,
    /// TCP connections between sites.
    pub tcp: u8,
    /// Chance that the attacker acts in each slice of time.
    pub attacker: f64,
    /// How long the storm lasts.
    pub storm: Duration,
    /// What goes wrong in it.
    pub mishaps: Vec<Mishap>,
    /// Sites that are alive after the storm, as a set; at least two.
    pub core: u8,
    /// Pairs that stay cut after the storm, where that leaves each pair of the core a way.
    pub stay_cut: Vec<(u8, u8)>,
    /// How the nodes are configured.
    pub settings: Settings,
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut bytes = *b"swarm plan: which world is this?";
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = Rng::new(bytes);
        let rng = &mut rng;
        let sites = 2 + rng.below(u32::from(SITES_MAX) - 1) as u8;
        let uplinks = 1 + u8::from(rng.chance(0.25));
        let shared = rng.chance(0.4);
        let storm = Duration::from_secs(20 + u64::from(rng.below(100)));
        let boxed = if uplinks == 1 && rng.chance(0.4) { 0.4 } else { 0.0 };
        let boxes = (0..sites).map(|_| rng.chance(boxed).then(|| box_model(rng))).collect();
        let skewed = rng.chance(0.5);
        let clocks = (0..sites).map(|_| clock(skewed, rng)).collect();
        let count = rng.below(24);
        let calm = rng.chance(0.3);
        let mut plan = Self {
            seed,
            sites,
            uplinks,
            exits: rng.chance(0.4),
            shared,
            large: false,
            reroutes_after: (shared && rng.chance(0.5))
                .then(|| Duration::from_secs(10 + u64::from(rng.below(50)))),
            clocks,
            boxes,
            rates: if calm { Rates::default() } else { rates(rng) },
            flows_max: if rng.chance(0.2) { 16 } else { 4096 },
            traffic: 0.2 + rng.unit() * 0.8,
            attacker: if rng.chance(0.5) { rng.unit() } else { 0.0 },
            storm,
            mishaps: (0..count).map(|_| mishap(storm, sites, uplinks, rng)).collect(),
            core: if rng.chance(0.5) { 0xff } else { rng.below(256) as u8 },
            stay_cut: (0..rng.below(6)).map(|_| two(sites, rng)).collect(),
            ipv6: rng.chance(0.3),
            mappings_max: if rng.chance(0.3) { 64 } else { 1_024 },
            bursts: rng.unit() * 0.4,
            tcp: if rng.chance(0.3) { 1 + rng.below(3) as u8 } else { 0 },
            settings: Settings::draw(seed, sites),
        };
        // Drawn last, so that the worlds of pinned seeds stay what they were in all else.
        plan.large = shared && rng.chance(0.1);
        let queues = if rng.chance(0.4) { 1 + rng.below(6) } else { 0 };
        plan.mishaps.extend((0..queues).map(|_| queue(storm, sites, rng)));
        // What was added since has generators of its own.
        let rng = &mut settings::group(seed, b"policies");
        let policies = if rng.chance(0.4) { 1 + rng.below(4) } else { 0 };
        plan.mishaps.extend((0..policies).map(|_| policy(storm, sites, rng)));
        plan
    }

    /// The underlay address of an uplink of a site.
    pub(super) fn underlay(&self, site: u8, uplink: u8) -> IpAddr {
        if self.ipv6 {
            let [site, uplink] = [site, uplink].map(|n| u16::from(n) + 1);
            return Ipv6Addr::new(0x2001, 0xdb8, uplink, 0, 0, 0, 0, site).into();
        }
        Mesh::underlay(site, uplink)
    }

    /// True when no table of the world is made so small that it may refuse a host's packet.
    pub(super) fn roomy(&self) -> bool {
        self.flows_max >= 4_096 && self.mappings_max >= 1_024 && self.settings.nat_ports >= 1_024
    }
}

fn two(sites: u8, rng: &mut Rng) -> (u8, u8) {
    let a = rng.below(u32::from(sites)) as u8;
    (a, (a + 1 + rng.below(u32::from(sites) - 1) as u8) % sites)
}

fn clock(skewed: bool, rng: &mut Rng) -> Clock {
    if !skewed {
        return Clock::default();
    }
    Clock {
        offset_us: u64::from(rng.next_u32()) * 1_000,
        drift_ppm: rng.below(401) as i32 - 200,
        wall_ahead_ns: (i64::from(rng.below(7_201)) - 3_600) * 1_000_000_000,
    }
}

fn box_model(rng: &mut Rng) -> BoxModel {
    let mut dependence = || match rng.below(3) {
        0 => Dependence::Independent,
        1 => Dependence::Address,
        _ => Dependence::AddressAndPort,
    };
    let (mapping, filtering) = (dependence(), dependence());
    let lifetime = Duration::from_secs(30 + u64::from(rng.below(270)));
    BoxModel { mapping, filtering, firewall: rng.chance(0.2), lifetime }
}

fn rates(rng: &mut Rng) -> Rates {
    let mut some = |most: f64| if rng.chance(0.5) { rng.unit() * most } else { 0.0 };
    let (loss, duplicate, corrupt) = (some(0.1), some(0.05), some(0.02));
    Rates { loss, duplicate, corrupt, jitter_ms: some(40.0) as u32 }
}

fn mishap(storm: Duration, sites: u8, uplinks: u8, rng: &mut Rng) -> Mishap {
    let at = storm.mul_f64(rng.unit());
    let lasts = Duration::from_millis(100) + Duration::from_secs(40).mul_f64(rng.unit().powi(2));
    let (a, b) = two(sites, rng);
    let what = match rng.below(16) {
        0..3 => What::Cut(a, b, rng.chance(0.4)),
        3 => What::Partition(rng.below(1 << sites) as u8, rng.chance(0.4)),
        4 if uplinks > 1 => What::Uplink(a, rng.below(u32::from(uplinks)) as u8),
        4 | 5 => What::Link(rng.below(256) as u8),
        6 => What::LossyLink(rng.below(256) as u8),
        7 | 8 => What::Loss(a, b, 1 + rng.below(60) as u8),
        9 => What::Detour(a, b, 10 + rng.below(400) as u16),
        10 => What::Narrow(a, b, 1_252 + rng.below(220) as u16),
        11 | 12 => What::Kill(a),
        13 => What::Freeze(a),
        14 if rng.chance(0.5) => What::Forget(a),
        14 => What::Move(a),
        _ => What::Calendar(a, rng.below(14_400) as i32 - 7_200),
    };
    Mishap { at, lasts, what }
}

/// Someone else fills the way, or a link that routes share.
fn queue(storm: Duration, sites: u8, rng: &mut Rng) -> Mishap {
    let at = storm.mul_f64(rng.unit());
    let lasts = Duration::from_secs(1) + Duration::from_secs(40).mul_f64(rng.unit());
    let (a, b) = two(sites, rng);
    let (kbit_s, wait_ms) = (8 << rng.below(8), 5 + rng.below(800) as u16);
    let what = match rng.chance(0.5) {
        true => What::Queue(a, b, kbit_s, wait_ms),
        false => What::QueueLink(rng.below(256) as u8, kbit_s, wait_ms),
    };
    Mishap { at, lasts, what }
}

/// An operator or a relay changes its mind.
fn policy(storm: Duration, sites: u8, rng: &mut Rng) -> Mishap {
    let at = storm.mul_f64(rng.unit());
    let lasts = Duration::from_secs(1) + Duration::from_secs(60).mul_f64(rng.unit());
    let site = rng.below(u32::from(sites)) as u8;
    let what = match rng.chance(0.6) {
        true => What::Reload(site),
        false => {
            let percent = if rng.chance(0.5) { 100 } else { rng.below(100) as u8 };
            What::Liar(site, percent, rng.below(300) as u16)
        }
    };
    Mishap { at, lasts, what }
}

impl fmt::Display for Mishap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, lasts) = (self.at.as_secs_f64(), self.lasts.as_secs_f64());
        write!(f, "{at:8.3}s {lasts:7.3}s  {:?}", self.what)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, sites, uplinks, exits, ipv6, shared, large, rates, storm, .. } = self;
        writeln!(f, "seed {seed}: {sites} sites, {uplinks} uplinks, exits {exits}, IPv6 {ipv6}")?;
        writeln!(
            f,
            "shared links {shared}, many {large}, rerouted after {:?}",
            self.reroutes_after
        )?;
        writeln!(f, "{rates:?}, flows {}, attacker {:.2}", self.flows_max, self.attacker)?;
        writeln!(f, "mappings {}, bursts {:.2}, TCP {}", self.mappings_max, self.bursts, self.tcp)?;
        writeln!(f, "{:?}", self.settings)?;
        for site in 0..usize::from(*sites) {
            let (clock, middlebox) = (self.clocks[site], self.boxes[site]);
            if clock != Clock::default() || middlebox.is_some() {
                writeln!(f, "site {site}: {clock:?} {middlebox:?}")?;
            }
        }
        for mishap in &self.mishaps {
            writeln!(f, "{mishap}")?;
        }
        write!(f, "{storm:?}: alive {:#b}, cut {:?}", self.core, self.stay_cut)
    }
}
