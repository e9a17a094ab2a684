//! What is measured, and how long.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// MTU of the inner links for every contender: what `mtu: auto` gives on an underlay of 1500.
pub(crate) const INNER_MTU: u32 = 1_392;

/// How two sites are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The kernel forwards; no tunnel.
    Plain,
    /// The kernel forwards and masquerades at the second gateway.
    Masquerade,
    /// Two rongate gateways that join two sites.
    Direct,
    /// The same, and they take over the default route of their hosts.
    Takeover,
    /// Two rongate gateways that only a third one joins.
    Relay,
    /// Two rongate gateways, and between them a yardstick that only sends datagrams on.
    BareRelay,
    /// A rongate gateway that sends its hosts' Internet traffic through another one's NAT.
    Exit,
    /// The same with a pool that is routed to the exit and holds more than 100,000 mappings.
    ExitRouted,
    /// Our yardstick that only cuts, seals, sends, opens and puts together.
    BareTunnel,
    /// The same without a cipher.
    BarePlain,
    /// Our yardstick that knows no offload.
    Naive,
    /// Our yardstick from stock crates, as one first joins them.
    Stock,
    /// The same with trains that run across reads of the TUN.
    StockTuned,
    /// Two wireguard-go.
    WireguardGo,
    /// Two boringtun.
    Boringtun,
    /// Two gotatun.
    Gotatun,
    /// Two nebula.
    Nebula,
    /// Two tinc 1.0.
    Tinc,
}

/// What the links carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Packets of at most the MTU on every link, merged on receipt, as with a network card.
    Wire,
    /// Super-packets of up to 64 KiB cross the links whole, as between virtual machines.
    Super,
}

impl Mode {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Super => "super",
        }
    }
}

impl Kind {
    /// How it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain forwarding",
            Self::Masquerade => "kernel masquerade",
            Self::Direct => "rongate",
            Self::Takeover => "rongate, default route",
            Self::Relay => "rongate, relayed",
            Self::BareRelay => "rongate, bare relay",
            Self::Exit => "rongate, NAT",
            Self::ExitRouted => "rongate, NAT, large pool",
            Self::BareTunnel => "bare tunnel",
            Self::BarePlain => "bare tunnel, no cipher",
            Self::Naive => "naive tunnel",
            Self::Stock => "stock crates",
            Self::StockTuned => "stock crates, tuned",
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun",
            Self::Gotatun => "gotatun",
            Self::Nebula => "nebula",
            Self::Tinc => "tinc",
        }
    }

    /// Whether a third node is between the two.
    pub const fn is_relayed(self) -> bool {
        matches!(self, Self::Relay | Self::BareRelay)
    }

    /// Whether somebody else's program has to be given.
    pub const fn is_peer(self) -> bool {
        use Kind::{Boringtun, Gotatun, Nebula, Tinc, WireguardGo};
        matches!(self, WireguardGo | Boringtun | Gotatun | Nebula | Tinc)
    }

    /// Whether the second gateway is an exit to the Internet, where the second host is.
    pub const fn is_exit(self) -> bool {
        matches!(self, Self::Exit | Self::ExitRouted | Self::Masquerade)
    }

    /// What is measured with it.
    pub const fn measured(self, mode: Mode) -> Measured {
        let bulk = !matches!(self, Self::Masquerade | Self::ExitRouted);
        let wire = matches!(mode, Mode::Wire);
        Measured {
            bulk,
            small: wire && (bulk || self.is_exit()) && !matches!(self, Self::Takeover),
            connects: wire
                && matches!(self, Self::Plain | Self::Masquerade | Self::Exit | Self::ExitRouted),
            table: wire && matches!(self, Self::Direct | Self::ExitRouted),
        }
    }

    /// Whether it takes part in a mode. With super-packets on the links only those that use
    /// offloads differ from what they are on a wire.
    pub const fn takes_part(self, mode: Mode) -> bool {
        match mode {
            Mode::Wire => true,
            Mode::Super => {
                self.measured(mode).bulk
                    && !matches!(self, Self::Boringtun | Self::Gotatun | Self::Nebula | Self::Tinc)
            }
        }
    }
}

/// Which measurements a sample consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// TCP streams, and round trips idle and beside them.
    pub bulk: bool,
    /// Small datagrams.
    pub small: bool,
    /// New TCP connections.
    pub connects: bool,
    /// Memory with many flows.
    pub table: bool,
}

impl Measured {
    /// Whether there is anything to measure.
    pub const fn any(self) -> bool {
        self.bulk || self.small || self.connects || self.table
    }
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contender {
    /// How it is called.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The program, where it is not the workspace's own.
    pub program: Option<PathBuf>,
}

impl Contender {
    /// A contender under its usual name.
    pub fn new(kind: Kind) -> Self {
        Self { name: kind.name().into(), kind, program: None }
    }

    /// The usual ones: all of our own, and the peers whose programs were found.
    pub fn all(peers: &[(Kind, PathBuf)]) -> Vec<Self> {
        let own = Kind::value_variants().iter().copied().filter(|kind| !kind.is_peer());
        let peers = peers
            .iter()
            .map(|(kind, program)| Self { program: Some(program.clone()), ..Self::new(*kind) });
        own.map(Self::new).chain(peers).collect()
    }
}

/// How long each measurement of a sample takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Bulk transfers and round trips, and nothing else.
    pub bulk_only: bool,
    /// Seconds of each TCP transfer.
    pub tcp_seconds: u32,
    /// Seconds of each UDP measurement.
    pub udp_seconds: f64,
    /// Round trips of the idle measurement.
    pub pings: u32,
    /// New TCP connections at most.
    pub connects: u32,
}

impl Plan {
    /// For a first look.
    pub const QUICK: Self =
        Self { bulk_only: false, tcp_seconds: 2, udp_seconds: 1.0, pings: 200, connects: 20_000 };
    /// For figures to be shown.
    pub const FULL: Self =
        Self { bulk_only: false, tcp_seconds: 4, udp_seconds: 2.0, pings: 500, connects: 50_000 };

    /// What is measured with a contender.
    pub fn measured(&self, kind: Kind, mode: Mode) -> Measured {
        let Measured { bulk, small, connects, table } = kind.measured(mode);
        let all = !self.bulk_only;
        Measured { bulk, small: small && all, connects: connects && all, table: table && all }
    }

    /// About how many seconds a sample takes, its laboratory included.
    pub fn seconds(&self, measured: Measured) -> f64 {
        let idle = f64::from(self.pings) * 0.002_5;
        let part = |taken: bool, seconds: f64| if taken { seconds } else { 0.0 };
        2.5 + part(measured.bulk, idle + 2.0 * f64::from(self.tcp_seconds) + 1.0)
            + part(measured.small, 2.0 * (self.udp_seconds + 1.0))
            + part(measured.connects, 2.0)
            + part(measured.table, 4.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_take_part_only_with_a_program() {
        let own = Contender::all(&[]);
        assert!(own.iter().all(|contender| !contender.kind.is_peer()));
        let all = Contender::all(&[(Kind::Tinc, "tincd".into())]);
        assert_eq!(all.len(), own.len() + 1);
        assert_eq!(all.last().unwrap().name, "tinc");
    }

    #[test]
    fn whoever_takes_part_is_measured() {
        for kind in Kind::value_variants() {
            for mode in [Mode::Wire, Mode::Super] {
                let any = kind.measured(mode).any();
                assert!(any || !kind.takes_part(mode), "{kind:?} {mode:?}");
            }
        }
    }

    #[test]
    fn with_bulk_only_nothing_else_is_measured() {
        let plan = Plan { bulk_only: true, ..Plan::QUICK };
        let direct = plan.measured(Kind::Direct, Mode::Wire);
        assert!(direct.bulk && !direct.small && !direct.table);
        assert!(!plan.measured(Kind::Masquerade, Mode::Wire).any());
        assert!(Plan::QUICK.measured(Kind::Direct, Mode::Wire).table);
    }
}
