//! Our own exit to the Internet: the NAT, and what it does with a packet that leaves.

use std::net::IpAddr;

use ipnet::IpNet;

use super::alias::Aliases;
use super::deliver::Admitted;
use super::from_internet::Meeting;
use super::{EgressConfig, Label, Node};
use crate::batch::Output;
use crate::id::PeerIndex;
use crate::metric::Metric;
use crate::nat::{Nat, Outbound, Realm, Refusal};
use crate::packet::{Headers, Vnet, icmp};
use crate::rng::Rng;
use crate::telemetry::DropReason;
use crate::time::Instant;

/// What we offer to the overlay as a way to the Internet.
#[derive(Debug)]
pub(super) struct Exit {
    pub(super) nat: Nat,
    /// What the kernel is shown of the NAT's outside addresses.
    pub(super) aliases: Aliases,
    /// The router's own addresses and local networks, and what the operator adds.
    pub(super) denied: Vec<IpNet>,
    /// Special-purpose destinations that the operator allows.
    pub(super) permitted: Vec<IpNet>,
    refusal: Refusal,
    /// When the next refused host may be told so, if nothing had been saved up.
    told_until: Instant,
}

/// Microseconds between two refused hosts that are told, in the long run.
const TELL_INTERVAL: u64 = 10_000;
/// How many may be told at once.
const TELL_BURST: u64 = 50;

impl Exit {
    pub(super) fn new(now: Instant, config: &EgressConfig, rng: Rng) -> Self {
        Self {
            nat: Nat::new(now, &config.nat, rng),
            aliases: Aliases::default(),
            denied: config.denied.clone(),
            permitted: config.permitted.clone(),
            refusal: config.nat.policy.refusal,
            told_until: Instant::ZERO,
        }
    }

    /// True for an outside address of our NAT.
    pub(super) fn in_pool(&self, address: IpAddr) -> bool {
        self.nat.is_outside(address)
    }

    /// What to tell a host whose packet was refused for this reason, if anything, and if not too many
    /// have been told lately.
    fn refusal(&mut self, now: Instant, reason: DropReason) -> Option<icmp::Error> {
        let error = match self.refusal {
            Refusal::Prohibited => icmp::Error::AdminProhibited,
            Refusal::Unreachable => icmp::Error::HostUnreachable,
            Refusal::Silent => return None,
        };
        let refused = matches!(
            reason,
            DropReason::NatPortsExhausted
                | DropReason::NatTableFull
                | DropReason::NatHostLimit
                | DropReason::NatSiteLimit
                | DropReason::NatRateLimited
                | DropReason::NatAmbiguous
        );
        let earliest = now.as_micros().saturating_sub(TELL_BURST * TELL_INTERVAL);
        let due = self.told_until.max(Instant::from_micros(earliest));
        if !refused || due > now {
            return None;
        }
        self.told_until = Instant::from_micros(due.as_micros() + TELL_INTERVAL);
        Some(error)
    }
}

impl Node {
    /// Lets the NAT look ahead at what is about to be judged.
    pub(super) fn look_ahead(&self) {
        let Some(exit) = self.exit.as_ref().filter(|exit| exit.nat.is_large()) else { return };
        if self.coalescer.ready().len() > 1 {
            let leaves = |headers: &Headers| self.prefixes.owner(headers.destination).is_none();
            let packets = self.coalescer.ready().filter(|merged| leaves(&merged.headers));
            exit.nat.look_ahead(packets.map(|merged| (merged.peer.into(), &merged.headers)));
        }
    }

    /// True when it saves time to be told of small frames before they are handled
    /// ([`Self::look_ahead_at`]).
    pub fn looks_ahead(&self) -> bool {
        self.exit.as_ref().is_some_and(|exit| exit.nat.is_large())
    }

    /// Brings what the NAT needs for these frames from the TUN, of at most [`Nat::AHEAD_MAX`], into the
    /// processor's caches. Changes nothing.
    pub fn look_ahead_at<'f>(&self, frames: impl Iterator<Item = &'f [u8]>) {
        if let Some(exit) = &self.exit {
            let parsed = frames.filter_map(|frame| Headers::parse(frame).ok());
            exit.nat.look_ahead_inbound(parsed.map(|headers| exit.aliases.seen_outside(headers)));
        }
    }

    /// Gives a packet for the Internet its outside source. One for an outside address of our own
    /// NAT turns round: it goes to the inside host that has it.
    pub(super) fn translate_outbound(
        &mut self,
        now: Instant,
        realm: Realm,
        frame: &mut [u8],
        headers: &Headers,
        vnet: &Vnet,
        out: &mut Output,
    ) -> Result<Admitted, DropReason> {
        if headers.is_ipv6() && self.beyond(headers.destination).is_ipv4() {
            return self.leave_as_ipv4(now, realm, frame, headers, vnet, out);
        }
        let exit = self.exit.as_mut().ok_or(DropReason::ExitRefused)?;
        let outbound = match exit.nat.outbound(now, realm, frame, headers, vnet) {
            Ok(outbound) => outbound,
            Err(reason) => {
                self.tell_refused(now, realm, frame, headers, reason, out);
                return Err(reason);
            }
        };
        let admitted = match outbound {
            Outbound::Held => return Ok(Admitted::Gone),
            Outbound::Internet => Admitted::ToTun,
            Outbound::Hairpin(inbound) => {
                self.turn_round(now, Meeting { from: realm, inbound }, frame, vnet, out)?
            }
        };
        if headers.fragment.is_some_and(|fragment| fragment.offset == 0) {
            self.pass_released(now, out);
        }
        if admitted == Admitted::ToTun
            && let Some(exit) = &self.exit
        {
            exit.aliases.put_on(frame, headers, vnet)?;
        }
        Ok(admitted)
    }

    /// Tells an inside host that its packet was refused, if that is due.
    pub(super) fn tell_refused(
        &mut self,
        now: Instant,
        realm: Realm,
        frame: &[u8],
        headers: &Headers,
        reason: DropReason,
        out: &mut Output,
    ) {
        if let Some(error) = self.exit.as_mut().and_then(|exit| exit.refusal(now, reason)) {
            self.answer_inside(now, realm, frame, headers, error, out);
        }
    }

    /// A packet between two hosts behind our NAT.
    pub(super) fn turn_round(
        &mut self,
        now: Instant,
        meeting: Meeting,
        frame: &mut [u8],
        vnet: &Vnet,
        out: &mut Output,
    ) -> Result<Admitted, DropReason> {
        let inbound = meeting.inbound;
        if inbound.destination.is_ipv6() && frame.first().is_some_and(|byte| byte >> 4 == 4) {
            let go = |node: &mut Self, packet: &mut [u8], headers: Headers, vnet: Vnet| {
                if inbound.realm.peer().is_none() {
                    return node.write_made_train(packet, &headers, &vnet, out);
                }
                node.without_rest(|node| node.meet_inside(now, meeting, packet, &vnet, None, out))
            };
            return self.arrive_as_ipv6(frame, vnet, inbound, go).map(|()| Admitted::Gone);
        }
        if inbound.realm.peer().is_none() {
            return Ok(Admitted::ToTun);
        }
        self.meet_inside(now, meeting, frame, vnet, Some(inbound.realm), out)?;
        Ok(Admitted::Gone)
    }

    /// Sends what lies in no buffer that could wait for a flush: what finds no room is lost.
    pub(super) fn without_rest<T>(&mut self, send: impl FnOnce(&mut Self) -> T) -> T {
        let earlier = self.unsent.take();
        let is_earlier = std::mem::take(&mut self.translation.is_unsent);
        let done = send(self);
        self.translation.is_unsent = is_earlier;
        if let Some(lost) = std::mem::replace(&mut self.unsent, earlier) {
            self.counters.drop_many(DropReason::BatchFull, lost.packets);
        }
        done
    }

    /// Sends a packet that has no flow to a peer.
    pub(super) fn send_back(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        frame: &[u8],
        headers: &Headers,
        vnet: &Vnet,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let path = self.router.path(peer, Metric::Latency).ok_or(DropReason::NoPath)?;
        let route = self.route(peer, path, headers.tos, Label::default());
        let route = route.ok_or(DropReason::NoPath)?;
        self.encapsulate(now, &route, frame, headers, vnet, out)
    }

    /// Lets fragments go that waited for the first one of their packet.
    pub(super) fn pass_released(&mut self, now: Instant, out: &mut Output) {
        let mut frame = std::mem::take(&mut self.fragment_scratch);
        while let Some(exit) = &mut self.exit {
            let Some(side) = exit.nat.take_released(&mut frame) else { break };
            let passed = self.without_rest(|node| match side {
                Some(realm) => node.pass_out(now, realm, &mut frame, out),
                None => node.pass_in(now, &mut frame, out),
            });
            if let Err(reason) = passed {
                self.counters.drop(reason);
            }
        }
        self.fragment_scratch = frame;
    }

    fn pass_out(
        &mut self,
        now: Instant,
        realm: Realm,
        frame: &mut [u8],
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let headers = Headers::parse(frame)?;
        let vnet = Vnet::default();
        match self.translate_outbound(now, realm, frame, &headers, &vnet, out)? {
            Admitted::ToTun => self.write_made(frame, out),
            Admitted::Gone => Ok(()),
        }
    }

    /// Writes a packet that lies in no receive buffer to the TUN.
    pub(super) fn write_made(&mut self, packet: &[u8], out: &mut Output) -> Result<(), DropReason> {
        if !out.write_generated(Vnet::default(), packet) {
            return Err(DropReason::BatchFull);
        }
        self.counters.tun_tx.add(1, packet.len() as u64);
        Ok(())
    }

    /// The same for a super-packet.
    pub(super) fn write_made_train(
        &mut self,
        packet: &[u8],
        headers: &Headers,
        vnet: &Vnet,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        if !out.write_generated(*vnet, packet) {
            return Err(DropReason::BatchFull);
        }
        self.counters.tun_tx.add(super::from_tun::train_len(headers, vnet), packet.len() as u64);
        Ok(())
    }

    /// What is due in the NAT: expiry, answers to SYNs that nobody wanted, fragments whose first one
    /// did not come. True when there is more to do.
    pub(super) fn serve_exit(&mut self, now: Instant, budget: usize, out: &mut Output) -> bool {
        let Some(exit) = &mut self.exit else { return false };
        let unfinished = exit.nat.expire(now, budget) == 0;
        let lost = exit.nat.take_lost_fragments();
        self.counters.drop_many(DropReason::Fragment, lost);
        let mut answer = [0; icmp::MAX_LEN];
        while let Some(exit) = &mut self.exit {
            let len = exit.nat.take_answer(now, &mut answer);
            if let Ok(headers) = Headers::parse(&answer[..len]) {
                // An address of the same length takes the place of another: nothing can fail.
                let whole = Vnet::default();
                let _ = exit.aliases.put_on(&mut answer[..len], &headers, &whole);
            }
            if len == 0 || self.write_made(&answer[..len], out).is_err() {
                break;
            }
        }
        unfinished
    }
}
