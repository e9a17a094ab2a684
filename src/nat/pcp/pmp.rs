//! NAT-PMP (RFC 6886): what hosts spoke before PCP, and many still do.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::super::lease::{LeaseError, LeaseRequest};
use super::super::{Nat, Realm, Transport};
use super::{LIFETIME_MAX, LIFETIME_MIN, RESPONSE, field};
use crate::time::Instant;

const EXTERNAL_ADDRESS: u8 = 0;
const MAP_UDP: u8 = 1;
const MAP_TCP: u8 = 2;

const SUCCESS: u16 = 0;
const NOT_AUTHORIZED: u16 = 2;
const NETWORK_FAILURE: u16 = 3;
const OUT_OF_RESOURCES: u16 = 4;
const UNSUPPORTED_OPCODE: u16 = 5;

/// There are no nonces: a host is who has its address.
const NONCE: [u8; 12] = *b"NAT-PMP     ";

pub(super) fn handle(
    now: Instant,
    nat: &mut Nat,
    realm: Realm,
    client: SocketAddr,
    epoch: u32,
    request: &[u8],
    out: &mut [u8],
) -> usize {
    let opcode = request[1];
    out[..16].fill(0);
    out[1] = opcode | RESPONSE;
    out[4..8].copy_from_slice(&epoch.to_be_bytes());
    let (result, len) = match opcode {
        EXTERNAL_ADDRESS => match nat.outside_address(realm, client) {
            Some(IpAddr::V4(address)) => {
                out[8..12].copy_from_slice(&address.octets());
                (SUCCESS, 12)
            }
            Some(IpAddr::V6(_)) | None => (NETWORK_FAILURE, 12),
        },
        MAP_UDP | MAP_TCP => {
            let Some((inside_port, wished, lifetime)) = parse(request) else { return 0 };
            let transport = if opcode == MAP_UDP { Transport::Udp } else { Transport::Tcp };
            let inside = SocketAddr::new(client.ip(), inside_port);
            out[8..10].copy_from_slice(&inside_port.to_be_bytes());
            match map(now, nat, realm, transport, inside, wished, lifetime) {
                Ok((port, lifetime)) => {
                    out[10..12].copy_from_slice(&port.to_be_bytes());
                    out[12..16].copy_from_slice(&lifetime.to_be_bytes());
                    (SUCCESS, 16)
                }
                Err(LeaseError::NotAuthorized) => (NOT_AUTHORIZED, 16),
                Err(_) => (OUT_OF_RESOURCES, 16),
            }
        }
        _ => (UNSUPPORTED_OPCODE, 8),
    };
    out[2..4].copy_from_slice(&result.to_be_bytes());
    len
}

/// Inside port, wished outside port, lifetime.
fn parse(request: &[u8]) -> Option<(u16, u16, u32)> {
    let port = |at| field(request, at).map(u16::from_be_bytes);
    Some((port(4)?, port(6)?, u32::from_be_bytes(field(request, 8)?)))
}

fn map(
    now: Instant,
    nat: &mut Nat,
    realm: Realm,
    transport: Transport,
    inside: SocketAddr,
    wished: u16,
    lifetime: u32,
) -> Result<(u16, u32), LeaseError> {
    if lifetime == 0 {
        nat.give_back(now, transport, realm, inside, NONCE)?;
        return Ok((0, 0));
    }
    let lifetime = lifetime.clamp(LIFETIME_MIN, LIFETIME_MAX);
    let unspecified = IpAddr::from([0, 0, 0, 0]);
    let request = LeaseRequest {
        transport,
        realm,
        inside,
        wished: Some(SocketAddr::new(unspecified, wished)),
        only_wished: false,
        nonce: NONCE,
        lifetime: Duration::from_secs(lifetime.into()),
    };
    Ok((nat.lease(now, &request)?.port(), lifetime))
}
