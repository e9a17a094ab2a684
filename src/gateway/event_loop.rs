//! The data path's thread: one turn after another.
//!
//! Readiness is edge-triggered, so a source that was not drained stays on the ready list, and the
//! next wait does not sleep. Each turn takes a bounded amount from every source. Sockets are read
//! before deadlines are judged: an answer that already waits in a socket is not late.

mod hosts;
mod nat;
mod ready;
mod rounds;
mod sends;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use crossbeam_channel::Receiver as Channel;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::answers;
use super::ask::{Line, ToControl, ToLoop};
use super::logging::Throttle;
use super::nat_log::NatLog;
use crate::batch::{BUFFER_LEN, Output, RxBatch};
use crate::config::Config;
use crate::id::UplinkIndex;
use crate::io::clock::Clock;
use crate::io::lan_server::LanServer;
use crate::io::signals::{Order, Signals};
use crate::io::stamps::Stamps;
use crate::io::timer::Timer;
use crate::io::tun::{Tun, TunOffload};
use crate::io::underlay::{Received, Receiver, UnderlaySocket};
use crate::node::Node;
use crate::packet::Offload;
use crate::telemetry::DropReason;
use crate::time::Instant;
use hosts::Frames;
use ready::Ready;
use rounds::Rounds;
use sends::send;

use std::os::fd::AsRawFd as _;

const TIMER: Token = Token(1);
const SIGNALS: Token = Token(2);
/// Wakes the loop when the control thread has sent something.
pub(super) const WAKER: Token = Token(3);
/// Those of the LAN interfaces follow.
const LAN: usize = 4;
pub(super) const LAN_SERVERS_MAX: usize = FIRST_SOCKET - LAN;
const FIRST_SOCKET: usize = 16;
const FIRST_QUEUE: usize = FIRST_SOCKET + UplinkIndex::MAX_COUNT;

/// Receive buffers of a turn, shared by all sockets.
const RX_SLOTS: usize = 32;
/// Bytes after which a turn takes no more from peers, and none from hosts: some 0.4 ms of work.
const TURN_BYTES: usize = 256 * 1024;
/// Send groups of a turn before a flush.
const TX_GROUPS: usize = 64;
/// How long unread sockets may put off judging a deadline.
const DEFERRAL_MAX: Duration = Duration::from_millis(20);

/// What the loop needs from its creator.
pub(super) struct Parts {
    /// The loop's poll, with its waker already registered.
    pub(super) poll: Poll,
    /// The clock.
    pub(super) clock: Clock,
    /// Blocked signals.
    pub(super) signals: Signals,
    /// The TUN, up and with addresses.
    pub(super) tun: Tun,
    /// A socket for each uplink; none while its interface has no address.
    pub(super) sockets: Vec<Option<UnderlaySocket>>,
    /// The node.
    pub(super) node: Node,
    /// For names in answers.
    pub(super) config: Arc<Config>,
    /// The log of our NAT's mappings, if there is one.
    pub(super) nat_log: Option<NatLog>,
    /// Where hosts of our LAN ask the NAT for mappings.
    pub(super) lan_servers: Vec<LanServer>,
    /// From the control thread.
    pub(super) messages: Channel<ToLoop>,
    /// To the control thread.
    pub(super) control: Line<ToControl>,
}

/// The loop's state.
pub(super) struct EventLoop {
    parts: Parts,
    timer: Timer,
    receiver: Receiver,
    rx: RxBatch,
    out: Output,
    frames: Frames,
    rounds: Rounds,
    /// Bytes of frames whose datagrams are in the send batch.
    unsent: usize,
    ready: Ready,
    /// Sockets that are watched for room, because something waits for it.
    awaiting_room: u32,
    /// Sockets that could not be watched for room, which was logged.
    unwatched: u32,
    throttle: Throttle,
    /// LAN servers that may have more.
    lan_ready: bool,
    stopping: bool,
}

impl EventLoop {
    /// Registers every source.
    pub(super) fn new(parts: Parts) -> anyhow::Result<Self> {
        let timer = Timer::new(&parts.clock).context("cannot create a timer")?;
        let mut this = Self {
            timer,
            receiver: Receiver::new(RX_SLOTS, Stamps::new(parts.clock)),
            rx: RxBatch::new(RX_SLOTS),
            out: Output::new(TX_GROUPS),
            frames: Frames::new(),
            rounds: Rounds::new(parts.tun.queues().len()),
            unsent: 0,
            ready: Ready::default(),
            awaiting_room: 0,
            unwatched: 0,
            throttle: Throttle::new(parts.clock.now()),
            lan_ready: true,
            stopping: false,
            parts,
        };
        for (at, queue) in this.parts.tun.queues().into_iter().enumerate() {
            this.watch(queue, Token(FIRST_QUEUE + at))?;
        }
        this.watch(this.timer.as_raw_fd(), TIMER)?;
        this.watch(this.parts.signals.as_raw_fd(), SIGNALS)?;
        for index in 0..this.parts.sockets.len() {
            this.watch_socket(UplinkIndex(index as u8))?;
        }
        for (at, server) in this.parts.lan_servers.iter().enumerate() {
            this.watch(server.raw(), Token(LAN + at))?;
        }
        this.tell_offload();
        Ok(this)
    }

    /// Turns until a signal or a fault ends it.
    pub(super) fn run(&mut self) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(64);
        while !self.stopping {
            self.watch_rests();
            self.wait(&mut events)?;
            self.turn()?;
            self.take_messages();
        }
        Ok(())
    }

    fn watch(&self, fd: i32, token: Token) -> io::Result<()> {
        self.parts.poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)
    }

    fn watch_socket(&mut self, uplink: UplinkIndex) -> io::Result<()> {
        if let Some(socket) = &self.parts.sockets[uplink.usize()] {
            self.watch(socket.raw(), Token(FIRST_SOCKET + uplink.usize()))?;
            self.ready.mark_socket(uplink.usize());
        }
        Ok(())
    }

    /// Sleeps until something is ready or due. Does not sleep while a source is known to have more.
    fn wait(&mut self, events: &mut Events) -> anyhow::Result<()> {
        let timeout = if self.ready.any_socket() || self.rounds.any() || self.lan_ready {
            Some(Duration::ZERO)
        } else {
            if let Some((deadline, _why)) = self.parts.node.poll_timeout() {
                self.timer.arm(deadline).context("cannot set the timer")?;
            }
            None
        };
        match self.parts.poll.poll(events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error).context("cannot wait for events"),
        }
        for event in &*events {
            match event.token() {
                TIMER => self.timer.acknowledge(),
                SIGNALS => self.obey_signals(),
                WAKER => {}
                Token(LAN..FIRST_SOCKET) => self.lan_ready = true,
                Token(token) if token >= FIRST_QUEUE => self.rounds.mark(token - FIRST_QUEUE),
                Token(token) => self.ready.mark_socket(token - FIRST_SOCKET),
            }
        }
        Ok(())
    }

    /// First what peers sent, out of the house at once; then what hosts sent.
    fn turn(&mut self) -> anyhow::Result<()> {
        self.send_rests();
        self.receive();
        // Read behind both: what came meanwhile must not lie in the future.
        let mut now = self.parts.clock.now();
        if self.rx.filled > 0 {
            self.parts.node.handle_datagrams(now, &mut self.rx, &mut self.out);
            self.carry_out(now);
            now = self.parts.clock.now();
        }
        self.serve_hosts(now)?;
        self.serve_lan(now);
        self.judge_deadlines(now);
        self.carry_out(now);
        self.log_mappings(now);
        while let Some(event) = self.parts.node.poll_event() {
            if event.is_passing() {
                log::debug!("{event}");
            } else if self.throttle.admits(now) {
                log::info!("{event}");
            }
        }
        Ok(())
    }

    /// Fills the receive buffers from the ready sockets, each in its turn at being the first.
    fn receive(&mut self) {
        let sockets = self.parts.sockets.len();
        let waiting = self.ready.socket_count().max(1);
        for index in self.ready.socket_order(sockets) {
            let Some(socket) = &self.parts.sockets[index] else {
                self.ready.clear_socket(index);
                continue;
            };
            let uplink = UplinkIndex(index as u8);
            let (mut budget, mut bytes) = (RX_SLOTS.div_ceil(waiting), TURN_BYTES / waiting);
            while budget > 0 && bytes > 0 && self.rx.filled < RX_SLOTS {
                let before = self.rx.filled;
                // What a call can bring stays within what is left.
                let most = budget.min(bytes.div_ceil(BUFFER_LEN));
                if self.receiver.receive(socket.raw(), uplink, &mut self.rx, most)
                    == Received::Drained
                {
                    self.ready.clear_socket(index);
                    break;
                }
                let new = &self.rx.slots[before..self.rx.filled];
                budget -= new.len().clamp(1, budget);
                bytes = bytes.saturating_sub(new.iter().map(|slot| slot.len).sum());
            }
        }
    }

    fn judge_deadlines(&mut self, now: Instant) {
        let Some((deadline, _why)) = self.parts.node.poll_timeout() else { return };
        let unread = self.ready.any_socket() && now.saturating_since(deadline) < DEFERRAL_MAX;
        if deadline <= now && !unread {
            let wall = self.parts.clock.wall(now);
            self.parts.node.handle_timeout(now, wall, &mut self.out);
            self.flush_if_full();
        }
    }

    /// Ends the node's turn and carries out its output.
    fn carry_out(&mut self, now: Instant) {
        self.parts.node.end_turn(now, &mut self.rx, &mut self.out);
        for forward in &self.out.forwards {
            let range = forward.range.start as usize..forward.range.end as usize;
            let bytes = &self.rx.slots[usize::from(forward.slot)].buffer[range];
            send(&mut self.parts, forward.target, bytes, forward.stride as usize);
        }
        self.send_batch();
        let offload = self.parts.tun.offload();
        for write in &self.out.tun_writes {
            if let Err(reason) = self.parts.tun.write_parts(&self.out, &self.rx, write) {
                self.parts.node.counters_mut().drop_many(reason, u64::from(write.segments));
            }
        }
        if self.parts.tun.offload() != offload {
            log::warn!("the kernel refused a kind of super-packets: writing packets one by one");
            self.tell_offload();
        }
        self.out.clear();
        self.rx.filled = 0;
    }

    fn tell_offload(&mut self) {
        let TunOffload { tcp, udp } = self.parts.tun.offload();
        self.parts.node.set_offload(Offload { tcp, udp });
    }

    fn obey_signals(&mut self) {
        while let Some(order) = self.parts.signals.next() {
            match order {
                Order::Stop => self.stopping = true,
                Order::Reload => {
                    if !self.parts.control.send(ToControl::Reload) {
                        log::warn!("busy: SIGHUP ignored");
                    }
                }
            }
        }
    }

    fn take_messages(&mut self) {
        let mut questions = VecDeque::new();
        while let Ok(message) = self.parts.messages.try_recv() {
            match message {
                ToLoop::Question(request, reply) => questions.push_back((request, reply)),
                ToLoop::Uplink(uplink, socket) => self.replace_socket(uplink, socket),
                ToLoop::Exit(change) => {
                    for pair in change.outside {
                        self.parts.node.set_outside(pair.internal, pair.outside);
                    }
                    self.parts.node.set_exit_denied(change.closed);
                }
                ToLoop::Policy(config, policy) => {
                    self.parts.node.set_policy(self.parts.clock.now(), *policy);
                    self.parts.config = config;
                }
            }
        }
        if questions.is_empty() {
            return;
        }
        let now = self.parts.clock.now();
        for (request, reply) in questions {
            let local = self.parts.sockets.iter().map(|s| s.as_ref().map(UnderlaySocket::local));
            let scene = answers::Scene {
                config: &self.parts.config,
                local: local.collect(),
                nat_log_lost: self.parts.nat_log.as_ref().map_or(0, NatLog::lost),
            };
            // Who asked may have given up.
            let _ = reply.try_send(answers::answer(&mut self.parts.node, now, &scene, &request));
        }
    }

    fn replace_socket(&mut self, uplink: UplinkIndex, socket: Option<UnderlaySocket>) {
        let Some(place) = self.parts.sockets.get_mut(uplink.usize()) else { return };
        if let Some(mut old) = place.take() {
            let (counters, waited) = (self.parts.node.counters_mut(), old.take_waited());
            counters.drop_many(DropReason::UnderlaySend, old.rest());
            counters.waited.add(waited.packets, waited.bytes);
            self.awaiting_room &= !(1 << uplink.usize());
            self.unwatched &= !(1 << uplink.usize());
            let _ = self.parts.poll.registry().deregister(&mut SourceFd(&old.raw()));
        }
        let name = &self.parts.config.uplinks[uplink.usize()].name;
        match &socket {
            Some(socket) => log::info!("uplink {name} is at {}", socket.local()),
            None => log::warn!("uplink {name} has no address"),
        }
        *place = socket;
        if let Err(error) = self.watch_socket(uplink) {
            log::error!("cannot watch an uplink's socket: {error}");
        }
    }
}

/// A poll with a waker in it.
pub(super) fn poll_with_waker(token: Token) -> anyhow::Result<(Poll, Arc<Waker>)> {
    let poll = Poll::new().context("cannot create an epoll instance")?;
    let waker = Waker::new(poll.registry(), token).context("cannot create a waker")?;
    Ok((poll, Arc::new(waker)))
}

#[cfg(test)]
mod ecn_tests;
