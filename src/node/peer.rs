//! A peer as the node sees it: who it is, what it may do, and the paths to it that are measured.

use std::net::{IpAddr, SocketAddr};

use super::account::Account;
use super::copies::CopyWindow;
use super::faults::Told;
use super::load::Rate;
use crate::id::{NodeId, PeerIndex, PublicKey, UplinkIndex};
use crate::link::{Arrivals, Endpoint, MtuSearch, Outstanding, Prober, ReportedLoss};
use crate::path::{LinkId, Path};
use crate::routing::Router;
use crate::telemetry::Tally;
use crate::time::Instant;
use crate::tunnel::ReceiveStats;
use crate::wire;

/// UDP payload that every underlay passes: 1280 bytes less IPv4 and UDP headers, less IPv6's
/// difference (RFC 8200 section 5).
pub(crate) const BASE_DATAGRAM_V4: u16 = 1_252;
/// The same over IPv6.
pub(crate) const BASE_DATAGRAM_V6: u16 = 1_232;
/// Most direct links to one peer: an authentic peer with more uplinks than that is not served over
/// the rest.
pub(crate) const LINKS_MAX: usize = Router::MAX_LINKS;

/// One path to a peer and all that is known of it.
#[derive(Debug)]
pub(crate) struct PathState {
    pub(crate) path: Path,
    /// Where the far end is; unused for a relayed path.
    pub(crate) endpoint: Endpoint,
    pub(crate) prober: Prober,
    pub(crate) mtu: MtuSearch,
    /// An address to send to is known.
    pub(crate) routable: bool,
    /// The router wants this relayed path measured.
    pub(crate) wanted: bool,
    /// Else it is forgotten then, unless it is used.
    pub(crate) wanted_until: Instant,
    /// Nothing wants it any more, but it would be taken for what its two links are said to be like.
    pub(crate) belied: bool,
    /// Both links of this relayed path were said to work when last looked at.
    pub(crate) relay_works: bool,
    /// What had arrived when loss was last worked out.
    pub(crate) received: ReceiveStats,
    /// What the peer reports of our traffic.
    pub(crate) reported: ReportedLoss,
    /// Traffic that no report covers yet.
    pub(crate) outstanding: Outstanding,
    /// Our own turn was late: silence is not judged before.
    pub(crate) excused_until: Option<Instant>,
    /// The relay says that it cannot reach the peer, while this path was last seen to work.
    pub(crate) contradicted: bool,
    /// Bytes of copies that the present suspicion may still cost.
    pub(crate) copy_credit: u32,
    /// Packets of hosts that took it since they were last booked.
    pub(crate) packets: u64,
    /// When data was last sent on it.
    pub(crate) used_at: Option<Instant>,
    /// What was told of its faults.
    pub(crate) told: Told,
}

/// One peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) public_key: PublicKey,
    pub(crate) id: NodeId,
    pub(crate) addresses: Vec<IpAddr>,
    /// It may carry our traffic to others.
    pub(crate) relay: bool,
    /// It may be our way to the Internet.
    pub(crate) egress: bool,
    /// It may use our exit.
    pub(crate) may_exit: bool,
    /// We relay for it.
    pub(crate) may_relay: bool,
    /// Direct links in a fixed order, then relayed paths.
    pub(crate) paths: Vec<PathState>,
    /// It was told that the peer has more links than we take.
    pub(crate) links_refused: bool,
    /// Handshake attempts since the tunnel was last established.
    pub(crate) attempts: u32,
    /// How many relays are said to have a link to it.
    pub(crate) relays: usize,
    /// Data went to it through this relay, and that path is not measured yet.
    pub(crate) unmeasured: Option<PeerIndex>,
    /// One of its paths is among those that are probed fast.
    pub(crate) favoured: bool,
    /// There are keys for it.
    pub(crate) sealable: bool,
    pub(crate) rx: Tally,
    pub(crate) tx: Tally,
    /// What we send it.
    pub(crate) sending: Rate,
    /// Names packets that are split.
    pub(crate) next_split: u16,
    /// Names packets that go twice.
    pub(crate) next_copy: u32,
    /// Which of them came from the peer.
    pub(crate) copies: CopyWindow,
    /// What came from the peer and was not reported yet.
    pub(crate) arrivals: Arrivals,
    /// What the overlay was worth to its traffic.
    pub(crate) account: Account,
}

impl Peer {
    pub(crate) fn state(&self, path: Path) -> Option<&PathState> {
        self.paths.iter().find(|state| state.path == path)
    }

    pub(crate) fn state_mut(&mut self, path: Path) -> Option<&mut PathState> {
        self.paths.iter_mut().find(|state| state.path == path)
    }

    /// The direct links with their states.
    pub(crate) fn links(&self) -> impl Iterator<Item = (LinkId, &PathState)> {
        self.paths.iter().filter_map(|state| match state.path {
            Path::Direct(link) => Some((link, state)),
            Path::Via(_) => None,
        })
    }

    /// The address at the far end of a link.
    pub(crate) fn address(&self, link: LinkId) -> Option<SocketAddr> {
        self.state(Path::Direct(link))?.endpoint.address()
    }
}

/// The largest tunnel datagram that is always safe on a path with the given far end.
pub(crate) const fn base_datagram(path: Path, ipv6: bool) -> u16 {
    let direct = if ipv6 { BASE_DATAGRAM_V6 } else { BASE_DATAGRAM_V4 };
    match path {
        Path::Direct(_) => direct,
        // The relay's other link may be IPv6.
        Path::Via(_) => BASE_DATAGRAM_V6 - wire::RELAY_OVERHEAD as u16,
    }
}

/// The largest tunnel datagram that an uplink of the given MTU can send.
pub(crate) fn max_datagram(path: Path, ipv6: bool, uplink_mtu: u16) -> u16 {
    let headers = if ipv6 { 48 } else { 28 };
    let direct = uplink_mtu.saturating_sub(headers);
    let max = match path {
        Path::Direct(_) => direct,
        Path::Via(_) => direct.saturating_sub(wire::RELAY_OVERHEAD as u16),
    };
    max.max(base_datagram(path, ipv6))
}

/// The direct link for a datagram that came in: our socket, and the uplink that the sender named.
pub(crate) const fn arrival_link(local: UplinkIndex, remote: UplinkIndex) -> LinkId {
    LinkId { local, remote }
}

/// The index of the peer with this id, from a list sorted by id.
pub(crate) fn by_id(ids: &[(NodeId, PeerIndex)], id: NodeId) -> Option<PeerIndex> {
    let at = ids.binary_search_by_key(&id, |entry| entry.0).ok()?;
    Some(ids[at].1)
}
