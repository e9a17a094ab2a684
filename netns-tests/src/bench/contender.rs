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
    /// Two rongate gateways.
    Direct,
    /// Two rongate gateways that only a third one joins.
    Relay,
    /// A rongate gateway that sends its hosts' Internet traffic through another one's NAT.
    Exit,
    /// Two wireguard-go.
    WireguardGo,
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
        let name = match kind {
            Kind::Plain => "plain forwarding",
            Kind::Direct => "rongate",
            Kind::Relay => "rongate through a relay",
            Kind::Exit => "rongate, NAT at the exit",
            Kind::WireguardGo => "wireguard-go 2023",
        };
        Self { name: name.into(), kind, program: None }
    }

    /// The usual ones; wireguard-go where it was found.
    pub fn all(wireguard_go: Option<PathBuf>) -> Vec<Self> {
        let mut all: Vec<_> =
            [Kind::Plain, Kind::Direct, Kind::Relay, Kind::Exit].map(Self::new).into();
        if wireguard_go.is_some() {
            all.push(Self { program: wireguard_go, ..Self::new(Kind::WireguardGo) });
        }
        all
    }
}

/// How long each measurement of a sample takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Seconds of each TCP transfer.
    pub tcp_seconds: u32,
    /// Seconds of each UDP measurement.
    pub udp_seconds: f64,
    /// Round trips of the idle measurement.
    pub pings: u32,
}

impl Plan {
    /// For a first look.
    pub const QUICK: Self = Self { tcp_seconds: 3, udp_seconds: 1.5, pings: 300 };
    /// For figures to be shown.
    pub const FULL: Self = Self { tcp_seconds: 4, udp_seconds: 2.0, pings: 500 };
}
