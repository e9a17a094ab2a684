//! Who sent which sealed datagram: its source, and at most one relay, each of them once.
//!
//! A datagram is known by what is sealed in it, not by what its relay header says of its way.

use std::collections::BTreeMap;

use crate::sim::NodeNumber;
use crate::wire::{self, DataHeader, MessageType};

/// Sealed datagrams remembered at least; one comes back within milliseconds if at all.
const REMEMBERED: usize = 20_000;
/// The header of a datagram and its tag.
type Seal = [u8; wire::DATA_HEADER_LEN + wire::TAG_LEN];

/// The senders of each datagram, in two generations.
#[derive(Debug, Default)]
pub(super) struct Loops {
    senders: [BTreeMap<Seal, (NodeNumber, Option<NodeNumber>)>; 2],
}

impl Loops {
    /// A node sends a datagram. What is wrong with that, in words.
    pub(super) fn sends(&mut self, node: NodeNumber, datagram: &[u8]) -> Option<String> {
        let seal = seal_of(datagram)?;
        if let Some(senders) = self.senders.iter_mut().find_map(|seen| seen.get_mut(&seal)) {
            if senders.0 != node && senders.1.is_none() {
                senders.1 = Some(node);
                return None;
            }
            return Some(format!("a datagram loops: {senders:?} had sent it before"));
        }
        if self.senders[0].len() >= REMEMBERED {
            self.senders.swap(0, 1);
            self.senders[0].clear();
        }
        self.senders[0].insert(seal, (node, None));
        None
    }
}

/// What a datagram with data is known by.
fn seal_of(datagram: &[u8]) -> Option<Seal> {
    let inner = match wire::peek(datagram) {
        Ok(MessageType::Relay) => datagram.get(wire::RELAY_OVERHEAD..)?,
        _ => datagram,
    };
    DataHeader::parse(inner).ok()?;
    let (header, tag) = (inner.first_chunk::<{ wire::DATA_HEADER_LEN }>()?, inner.last_chunk()?);
    let tag: &[u8; wire::TAG_LEN] = tag;
    let mut seal = [0; wire::DATA_HEADER_LEN + wire::TAG_LEN];
    seal[..wire::DATA_HEADER_LEN].copy_from_slice(header);
    seal[wire::DATA_HEADER_LEN..].copy_from_slice(tag);
    Some(seal)
}
