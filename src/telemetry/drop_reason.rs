//! Why a packet ended here.

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// Why a packet ended here. The name is what `status` and the metrics show.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* #[error($name)] $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The stable name in snake case.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

drop_reasons! {
    // Inner packets, as read from the TUN or found inside a tunnel.
    /// Not an IPv4 or IPv6 packet, or its lengths contradict each other.
    Malformed => "malformed",
    /// The virtio header contradicts the packet.
    BadOffload => "bad_offload",
    /// The hop limit ran out.
    HopLimit => "hop_limit",
    /// Too big for the path and not to be fragmented; the sender was told.
    TooBig => "too_big",
    /// Multicast, broadcast or link-local: not for the overlay.
    NotUnicast => "not_unicast",
    /// A transport protocol that the NAT cannot carry.
    UnsupportedProtocol => "unsupported_protocol",
    /// A fragment that the NAT could not assign.
    Fragment => "fragment",
    /// An ICMP error that belongs to no flow.
    UnrelatedIcmpError => "unrelated_icmp_error",
    /// A checksum that had to be verified was wrong.
    BadChecksum => "bad_checksum",
    /// Congestion was marked on the way, and the inner packet cannot carry the mark (RFC 6040).
    EcnMismatch => "ecn_mismatch",

    // Where it may come from and go to.
    /// No peer, no exit and no network of ours has this destination.
    NoRoute => "no_route",
    /// The destination's node cannot be reached, neither directly nor through a relay.
    NoPath => "no_path",
    /// The source address is none of those behind us.
    ForeignSource => "foreign_source",
    /// The inner source is outside the networks of the peer that sent it.
    SpoofedSource => "spoofed_source",
    /// The inner destination is not ours to deliver to.
    ForeignDestination => "foreign_destination",
    /// An exit flow towards the router itself, a local network or a special-purpose range.
    ExitForbidden => "exit_forbidden",
    /// The peer may not use our exit.
    ExitRefused => "exit_refused",
    /// The flow's class may not use any peer, relay, uplink or exit by which it could go.
    PolicyClosed => "policy_closed",
    /// The flow's class sends more than it may.
    ClassRateLimited => "class_rate_limited",
    /// From the Internet, or from an exit, and part of no flow that we started.
    Unsolicited => "unsolicited",

    // Flows and NAT.
    /// The flow table is full, or the host has its share.
    FlowLimit => "flow_limit",
    /// No free outside port at the host's outside address.
    NatPortsExhausted => "nat_ports_exhausted",
    /// The host has its share of mappings or sessions.
    NatHostLimit => "nat_host_limit",
    /// The host's site has its share of mappings or of ports.
    NatSiteLimit => "nat_site_limit",
    /// The host makes mappings faster than it may.
    NatRateLimited => "nat_rate_limited",
    /// A protocol without ports that another host already speaks with this remote address.
    NatAmbiguous => "nat_ambiguous",
    /// The NAT's table is full.
    NatTableFull => "nat_table_full",
    /// A TCP segment from inside that begins no connection and belongs to none.
    NatNoSession => "nat_no_session",
    /// The NAT's filter refused an inbound packet.
    NatFiltered => "nat_filtered",

    // Tunnels.
    /// Shorter than its header says, or than any message may be.
    Truncated => "truncated",
    /// A message type that we do not know.
    UnknownType => "unknown_type",
    /// No key has this receiver index.
    UnknownReceiver => "unknown_receiver",
    /// Authentication failed.
    Forged => "forged",
    /// Seen before, or older than the replay window.
    Replay => "replay",
    /// The key is too old or too much used.
    KeyExpired => "key_expired",
    /// More paths in one tunnel than we keep windows for.
    TooManyPaths => "too_many_paths",
    /// A second copy of a packet that was sent redundantly; normal.
    DuplicateCopy => "duplicate_copy",
    /// No key yet for the tunnel; a handshake is under way.
    NoTunnel => "no_tunnel",
    /// An authentic control message that does not parse.
    BadControl => "bad_control",

    // Handshakes.
    /// The first MAC of a handshake message is wrong: not meant for us.
    HandshakeMac => "handshake_mac",
    /// Both ends initiated at once, and our initiation stands; normal.
    HandshakeSimultaneous => "handshake_simultaneous",
    /// Handshake messages above the rate limit.
    HandshakeRateLimited => "handshake_rate_limited",
    /// Under load, and the sender has not proved its address; a cookie was sent.
    HandshakeCookieRequired => "handshake_cookie_required",
    /// A handshake from a key that no peer has, or that does not decrypt.
    HandshakeUnknownPeer => "handshake_unknown_peer",
    /// A handshake message that was sent before.
    HandshakeReplay => "handshake_replay",
    /// The suite or protocol version is not allowed here.
    HandshakeSuite => "handshake_suite",
    /// A response or cookie that answers nothing we sent.
    HandshakeUnexpected => "handshake_unexpected",

    // Relaying.
    /// We do not relay for this peer.
    RelayRefused => "relay_refused",
    /// We do not relay packets of this class.
    RelayClassRefused => "relay_class_refused",
    /// The relay's destination is no peer of ours, or is the sender.
    RelayUnknownDestination => "relay_unknown_destination",
    /// The relay has no direct link to the destination.
    RelayNoLink => "relay_no_link",
    /// The source named in the relay header is not the one that sent it.
    RelaySpoofed => "relay_spoofed",
    /// The relay header's hop limit ran out: a loop.
    RelayHopLimit => "relay_hop_limit",
    /// Above the rate that we relay at.
    RelayRateLimited => "relay_rate_limited",

    // The host.
    /// The send batch was full within one turn.
    BatchFull => "batch_full",
    /// The kernel refused a datagram (an unreachable network, an interface that is gone).
    UnderlaySend => "underlay_send",
    /// The kernel had no memory for a datagram (ENOBUFS), or too many waited for room in the socket.
    UnderlayBusy => "underlay_busy",
    /// A datagram longer than the uplink's MTU (EMSGSIZE).
    UnderlayTooBig => "underlay_too_big",
    /// The kernel refused a write to the TUN.
    TunWrite => "tun_write",
}
