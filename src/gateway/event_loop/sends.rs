//! What the node sealed, to the sockets; and what a socket had no room for.

use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::{EventLoop, FIRST_SOCKET, Parts};
use crate::batch::{Output, Target, Transmit};
use crate::node::Node;
use crate::telemetry::DropReason;

impl EventLoop {
    /// Sends what is finished; and all there is when the next call might not find room.
    pub(super) fn flush_if_full(&mut self) {
        let parts = &mut self.parts;
        let unsent = &mut self.unsent;
        self.out.tx.drain_finished(|transmit| {
            send_transmit(parts, transmit);
            *unsent = 0;
        });
        if !self.out.tx.has_room(Node::TX_HEADROOM) {
            self.send_batch();
        }
    }

    /// Sends what the node sealed. Its other output points into the receive buffers and waits for
    /// the end of the turn.
    pub(super) fn send_batch(&mut self) {
        send_all(&mut self.parts, &mut self.out);
        self.unsent = 0;
    }

    /// Sends what waited for room, before anything new.
    pub(super) fn send_rests(&mut self) {
        let counters = self.parts.node.counters_mut();
        for socket in self.parts.sockets.iter_mut().flatten() {
            // Also where room cannot be watched for: then whatever wakes us is a chance.
            if !socket.has_rest() {
                continue;
            }
            if let Err((reason, count)) = socket.send_rest() {
                counters.drop_many(reason, count);
            }
            let waited = socket.take_waited();
            counters.waited.add(waited.packets, waited.bytes);
        }
    }

    /// Watches sockets for room as long as something waits for it: else the kernel would wake us
    /// for every datagram that leaves.
    pub(super) fn watch_rests(&mut self) {
        for (index, socket) in self.parts.sockets.iter().enumerate() {
            let Some(socket) = socket else { continue };
            let (waits, bit) = (socket.has_rest(), 1 << index);
            if waits == (self.awaiting_room & bit != 0) {
                continue;
            }
            let interest = match waits {
                true => Interest::READABLE | Interest::WRITABLE,
                false => Interest::READABLE,
            };
            let (raw, token) = (socket.raw(), Token(FIRST_SOCKET + index));
            let registry = self.parts.poll.registry();
            match registry.reregister(&mut SourceFd(&raw), token, interest) {
                Ok(()) => self.awaiting_room ^= bit,
                Err(_) if self.unwatched & bit != 0 => {}
                Err(error) => {
                    self.unwatched |= bit;
                    log::error!("cannot watch an uplink's socket for room: {error}");
                }
            }
        }
    }
}

/// Sends all that the node sealed.
pub(super) fn send_all(parts: &mut Parts, out: &mut Output) {
    for transmit in out.tx.transmits() {
        send_transmit(parts, transmit);
    }
    out.tx.clear();
}

fn send_transmit(parts: &mut Parts, transmit: &Transmit) {
    send(parts, transmit.target, transmit.bytes(), transmit.stride);
}

/// Sends datagrams of `stride` bytes each, the last one may be shorter; counts what is refused.
pub(super) fn send(parts: &mut Parts, target: Target, bytes: &[u8], stride: usize) {
    let result = match parts.sockets.get_mut(target.uplink.usize()) {
        Some(Some(socket)) => socket.send(target.destination, target.tos, bytes, stride),
        _ => Err((DropReason::UnderlaySend, bytes.len().div_ceil(stride.max(1)) as u64)),
    };
    if let Err((reason, count)) = result {
        parts.node.counters_mut().drop_many(reason, count);
    }
}
