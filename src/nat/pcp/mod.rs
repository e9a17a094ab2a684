//! The server of the Port Control Protocol (RFC 6887), with which inside hosts ask for mappings, and
//! of its forerunner NAT-PMP (RFC 6886), at the same port. Datagrams in, datagrams out.
//!
//! MAP and ANNOUNCE are served. PEER is not: a host that sends to its peer has what PEER would give.
//! Nobody may ask for others (THIRD_PARTY), and a mapping is open to all (no FILTER).

mod pmp;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::end::{narrow, wide};
use super::lease::{LeaseError, LeaseRequest};
use super::{Nat, Realm, Transport};
use crate::packet::protocol;
use crate::time::Instant;

/// The UDP port of the server.
pub const PORT: u16 = 5351;
/// Longest request and longest response.
pub const MAX_LEN: usize = 1_100;

const VERSION: u8 = 2;
const RESPONSE: u8 = 0x80;
const HEADER_LEN: usize = 24;
const MAP_LEN: usize = 36;
const ANNOUNCE: u8 = 0;
const MAP: u8 = 1;
const PREFER_FAILURE: u8 = 2;
/// Options from here on may be ignored.
const OPTIONAL: u8 = 128;

/// How long a lease may be, and must be at least (RFC 6887 section 15).
const LIFETIME_MIN: u32 = 120;
const LIFETIME_MAX: u32 = 86_400;
/// For how long an error holds that may pass, and one that will not.
const SHORT_ERROR: u32 = 30;
const LONG_ERROR: u32 = 1_800;

/// RFC 6887 section 7.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Outcome {
    Success = 0,
    UnsupportedVersion = 1,
    NotAuthorized = 2,
    MalformedRequest = 3,
    UnsupportedOpcode = 4,
    UnsupportedOption = 5,
    MalformedOption = 6,
    NoResources = 8,
    UnsupportedProtocol = 9,
    UserExceedsQuota = 10,
    CannotProvideExternal = 11,
    AddressMismatch = 12,
}

impl From<LeaseError> for Outcome {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::NotAuthorized => Self::NotAuthorized,
            LeaseError::NoResources => Self::NoResources,
            LeaseError::HostLimit => Self::UserExceedsQuota,
            LeaseError::CannotProvide => Self::CannotProvideExternal,
        }
    }
}

impl Outcome {
    const fn lifetime(self) -> u32 {
        let passes = matches!(
            self,
            Self::NoResources | Self::UserExceedsQuota | Self::CannotProvideExternal
        );
        if passes { SHORT_ERROR } else { LONG_ERROR }
    }
}

/// The server. Its epoch is the age of the NAT whose leases it gives.
#[derive(Clone, Copy, Debug)]
pub struct PcpServer {
    started: Instant,
}

impl PcpServer {
    /// The server of a NAT that was made at `started`.
    pub const fn new(started: Instant) -> Self {
        Self { started }
    }

    /// Serves one datagram of `client` in `realm`. Writes the response to the beginning of `out`,
    /// which must have room for [`MAX_LEN`] bytes, and returns its length; zero for none.
    pub fn handle(
        &self,
        now: Instant,
        nat: &mut Nat,
        realm: Realm,
        client: SocketAddr,
        request: &[u8],
        out: &mut [u8],
    ) -> usize {
        let epoch = u32::try_from((now - self.started).as_secs()).unwrap_or(u32::MAX);
        let Some(out) = out.get_mut(..MAX_LEN) else { return 0 };
        match request {
            // A response is not answered.
            [] | [_] => 0,
            [_, opcode, ..] if opcode & RESPONSE != 0 => 0,
            [0, ..] => pmp::handle(now, nat, realm, client, epoch, request, out),
            _ => respond(now, nat, realm, client, epoch, request, out),
        }
    }
}

fn respond(
    now: Instant,
    nat: &mut Nat,
    realm: Realm,
    client: SocketAddr,
    epoch: u32,
    request: &[u8],
    out: &mut [u8],
) -> usize {
    // A response repeats the request as far as there is room, in whole words.
    let len = request.len().min(MAX_LEN).next_multiple_of(4).clamp(HEADER_LEN, MAX_LEN);
    out[..len].fill(0);
    let copied = request.len().min(len);
    out[..copied].copy_from_slice(&request[..copied]);
    let (outcome, lifetime) = match serve(now, nat, realm, client, request, out) {
        Ok(lifetime) => (Outcome::Success, lifetime),
        Err(outcome) => (outcome, outcome.lifetime()),
    };
    out[0] = VERSION;
    out[1] |= RESPONSE;
    out[2] = 0;
    out[3] = outcome as u8;
    out[4..8].copy_from_slice(&lifetime.to_be_bytes());
    out[8..12].copy_from_slice(&epoch.to_be_bytes());
    out[12..HEADER_LEN].fill(0);
    len
}

/// Does what is asked, writes the results to their places in `out`, and returns the lifetime.
fn serve(
    now: Instant,
    nat: &mut Nat,
    realm: Realm,
    client: SocketAddr,
    request: &[u8],
    out: &mut [u8],
) -> Result<u32, Outcome> {
    if request[0] != VERSION {
        return Err(Outcome::UnsupportedVersion);
    }
    let whole = request.len() <= MAX_LEN && request.len().is_multiple_of(4);
    let header: &[u8; HEADER_LEN] = request.first_chunk().ok_or(Outcome::MalformedRequest)?;
    if !whole {
        return Err(Outcome::MalformedRequest);
    }
    let body = &request[HEADER_LEN..];
    let address = narrow(Ipv6Addr::from(field(header, 8).ok_or(Outcome::MalformedRequest)?));
    match header[1] {
        ANNOUNCE if address == client.ip() => {
            options(body)?;
            Ok(0)
        }
        MAP if address == client.ip() => {
            let map: &[u8; MAP_LEN] = body.first_chunk().ok_or(Outcome::MalformedRequest)?;
            let only_wished = options(&body[MAP_LEN..])?;
            let lifetime = u32::from_be_bytes(field(header, 4).unwrap_or_default());
            let request = Map::parse(map).ok_or(Outcome::MalformedRequest)?;
            let done = request.serve(now, nat, realm, client.ip(), only_wished, lifetime)?;
            if let (Some(end), _) = done {
                let at = HEADER_LEN + 18;
                out[at..at + 2].copy_from_slice(&end.port().to_be_bytes());
                out[at + 2..at + 18].copy_from_slice(&wide(end.ip()).octets());
            }
            Ok(done.1)
        }
        ANNOUNCE | MAP => Err(Outcome::AddressMismatch),
        _ => Err(Outcome::UnsupportedOpcode),
    }
}

/// Reads the options. True when one of them is PREFER_FAILURE.
fn options(mut rest: &[u8]) -> Result<bool, Outcome> {
    let mut prefer_failure = false;
    while let Some(head) = rest.first_chunk::<4>() {
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let next = 4 + len.next_multiple_of(4);
        let whole = rest.get(next..).ok_or(Outcome::MalformedOption)?;
        match head[0] {
            PREFER_FAILURE if len != 0 || prefer_failure => return Err(Outcome::MalformedOption),
            PREFER_FAILURE => prefer_failure = true,
            OPTIONAL.. => {}
            _ => return Err(Outcome::UnsupportedOption),
        }
        rest = whole;
    }
    Ok(prefer_failure)
}

/// What MAP asks for (RFC 6887 section 11.1).
#[derive(Clone, Copy, Debug)]
struct Map {
    nonce: [u8; 12],
    protocol: u8,
    inside_port: u16,
    wished: SocketAddr,
}

impl Map {
    fn parse(body: &[u8; MAP_LEN]) -> Option<Self> {
        let port = |at| field(body, at).map(u16::from_be_bytes);
        let address = narrow(Ipv6Addr::from(field::<16>(body, 20)?));
        Some(Self {
            nonce: field(body, 0)?,
            protocol: body[12],
            inside_port: port(16)?,
            wished: SocketAddr::new(address, port(18)?),
        })
    }

    /// The outside endpoint, if there is one now, and the lifetime.
    fn serve(
        &self,
        now: Instant,
        nat: &mut Nat,
        realm: Realm,
        client: IpAddr,
        only_wished: bool,
        lifetime: u32,
    ) -> Result<(Option<SocketAddr>, u32), Outcome> {
        let transport = match self.protocol {
            protocol::TCP => Transport::Tcp,
            protocol::UDP => Transport::Udp,
            protocol::UDP_LITE => Transport::UdpLite,
            // All protocols only with all ports, and there is no such mapping.
            _ => return Err(Outcome::UnsupportedProtocol),
        };
        let inside = SocketAddr::new(client, self.inside_port);
        if lifetime == 0 {
            nat.give_back(now, transport, realm, inside, self.nonce)?;
            return Ok((None, 0));
        }
        if self.inside_port == 0 {
            return Err(Outcome::UnsupportedProtocol);
        }
        let lifetime = lifetime.clamp(LIFETIME_MIN, LIFETIME_MAX);
        let request = LeaseRequest {
            transport,
            realm,
            inside,
            wished: Some(self.wished),
            only_wished,
            nonce: self.nonce,
            lifetime: Duration::from_secs(lifetime.into()),
        };
        Ok((Some(nat.lease(now, &request)?), lifetime))
    }
}

/// So many bytes at a place.
fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests;
