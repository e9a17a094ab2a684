//! Datagrams between the nodes: on their way, link by link where those have queues.

use std::net::IpAddr;

use super::network::{Fate, Rest, Side};
use super::turn::keep;
use super::{Arriving, Happening, NodeNumber, Simulator, Tapped};
use crate::batch::Target;
use crate::time::Instant;

/// A datagram before a link with a rate.
#[derive(Debug)]
pub(super) struct GoingOn {
    whose: Whose,
    rest: Rest,
}

#[derive(Debug)]
enum Whose {
    /// It goes to a node.
    Of { node: NodeNumber, arriving: Arriving },
    /// A packet beside the nodes, with its number.
    Beside(u64),
}

impl Simulator {
    /// A packet of `len` bytes goes from one address to another without nodes; it never waits for what
    /// nodes send, nor they for it. [`Self::take_beside`] tells when it arrives.
    pub fn send_beside(&mut self, from: IpAddr, to: IpAddr, len: usize, number: u64) {
        let fate = self.network.transit(self.now, from, to, Side::Direct, len);
        self.beside_goes(number, fate);
    }

    /// The numbers of packets that arrived beside the nodes, and when; or will, if nothing more can
    /// keep them. One may come twice.
    pub fn take_beside(&mut self) -> Vec<(u64, Instant)> {
        std::mem::take(&mut self.beside)
    }

    fn beside_goes(&mut self, number: u64, fate: Fate) {
        // Its checksum is wrong then.
        if fate.corrupt {
            return;
        }
        for delay in [fate.delay, fate.again].into_iter().flatten() {
            let at = self.now + delay;
            match fate.rest.clone() {
                None => self.beside.push((number, at)),
                Some(rest) => self.goes_on(at, Whose::Beside(number), rest),
            }
        }
    }

    /// A datagram leaves a node: through its middlebox, over the network, to whoever owns the
    /// destination.
    pub(super) fn transmit(&mut self, number: NodeNumber, target: Target, bytes: Vec<u8>) {
        let slot = &mut self.nodes[number];
        let mut source = slot.config.uplinks[target.uplink.usize()].listen;
        if let Some(middlebox) = &mut slot.boxes[target.uplink.usize()] {
            source = middlebox.outbound(self.now, target.destination);
        }
        let destination = target.destination;
        if let Some(audit) = &mut self.audit {
            audit.on_wire(self.now, number, &bytes);
        }
        if let Some(tap) = &mut self.tap {
            tap.push(Tapped { source, destination, bytes: bytes.clone() });
        }
        let ((node, uplink), at_port) = match self.owners.get(&destination) {
            Some(owner) => (*owner, 0),
            None => match self.outsides.get(&destination.ip()) {
                Some(owner) => (*owner, destination.port()),
                None => return,
            },
        };
        let (from, to, len) = (source.ip(), destination.ip(), bytes.len());
        let fate = self.network.transit(self.now, from, to, Side::Overlay, len);
        self.goes(node, Arriving { uplink, source, at: self.now, at_port, bytes }, fate);
    }

    pub(super) fn go_on(&mut self, going_on: GoingOn) {
        let fate = self.network.go_on(self.now, going_on.rest);
        match going_on.whose {
            Whose::Of { node, arriving } => self.goes(node, arriving, fate),
            Whose::Beside(number) => self.beside_goes(number, fate),
        }
    }

    /// What becomes of a datagram that goes to a node.
    fn goes(&mut self, node: NodeNumber, mut arriving: Arriving, fate: Fate) {
        let Some(delay) = fate.delay else { return keep(&mut self.spare, arriving.bytes) };
        if fate.corrupt {
            let bit = self.rng.below(arriving.bytes.len() as u32 * 8);
            arriving.bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        if let Some(again) = fate.again {
            let bytes = arriving.bytes.clone();
            let second = Arriving { bytes, ..arriving };
            self.comes(node, second, self.now + again, fate.rest.clone());
        }
        self.comes(node, arriving, self.now + delay, fate.rest);
    }

    /// A datagram is at its end, or before a link.
    fn comes(&mut self, node: NodeNumber, arriving: Arriving, at: Instant, rest: Option<Rest>) {
        match rest {
            None => {
                let arriving = Arriving { at, ..arriving };
                self.schedule(at, Happening::Datagram { node, arriving });
            }
            Some(rest) => self.goes_on(at, Whose::Of { node, arriving }, rest),
        }
    }

    fn goes_on(&mut self, at: Instant, whose: Whose, rest: Rest) {
        self.schedule(at, Happening::GoesOn(Box::new(GoingOn { whose, rest })));
    }
}
