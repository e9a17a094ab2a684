//! What is wrong with a direct link, as far as it can be told apart: one direction only, one uplink
//! only, or datagrams of one size only.

use std::fmt;
use std::time::Duration;

use super::peer::{PathState, Peer};
use super::{Event, Node};
use crate::batch::Output;
use crate::id::PeerIndex;
use crate::metric::Liveness;
use crate::path::{LinkId, Path, PathId};
use crate::time::Instant;
use crate::wire::{Control, ControlWriter};

/// What does not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Nothing, in either direction.
    Both,
    /// What we send; what the peer sends comes in.
    There,
    /// What the peer sends; it says that it hears what we send.
    Back,
    /// What is larger than so many bytes, IP header included; it got through before.
    Large(u32),
}

/// How much of the underlay fails alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// This link, as far as is known.
    Link,
    /// All links of our uplink.
    OurUplink,
    /// All links to this uplink of the peer, while another one of its uplinks is reached.
    TheirUplink,
}

/// What is wrong with a direct link that worked before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkFault {
    /// What does not get through.
    pub kind: FaultKind,
    /// And where else.
    pub extent: Extent,
}

impl fmt::Display for LinkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FaultKind::Both => f.write_str("nothing passes")?,
            FaultKind::There => f.write_str("what we send does not arrive, what it sends does")?,
            FaultKind::Back => f.write_str("what it sends does not arrive, what we send does")?,
            FaultKind::Large(bytes) => write!(f, "packets over some {bytes} bytes vanish")?,
        }
        match self.extent {
            Extent::Link => Ok(()),
            Extent::OurUplink => f.write_str(", as over all of our uplink"),
            Extent::TheirUplink => f.write_str(", as over all of the peer's uplink"),
        }
    }
}

/// A fault that lasts so long is told.
const TOLD_AFTER: Duration = Duration::from_secs(1);

/// How often faults are looked for.
const LOOK: Duration = Duration::from_millis(450);
/// A peer is told again that it is heard in vain after so long, for the message may be lost; and after
/// twice that and four times that.
const HEARD_PAUSE: Duration = Duration::from_secs(4);
/// What a peer said once of what it hears is believed for so long, and longer as it says it more rarely.
const HEARD_EXPIRY: Duration = Duration::from_secs(13);
/// Links that one datagram tells of.
const HEARD_LINKS: usize = 8;
/// Datagrams of that kind that leave each time that faults are looked for.
const HEARD_DATAGRAMS: usize = 2;

/// Who said so often that a peer is heard in vain, says it more rarely.
const fn rarer(times: u8) -> u32 {
    match times {
        0 | 1 => 1,
        2 => 2,
        _ => 4,
    }
}

/// How far the look for faults is.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) due: Instant,
    /// The peer that is told first what is heard of it.
    pub(super) heard_next: usize,
}

/// What was told of a link.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    seen: Option<(LinkFault, Instant)>,
    told: Option<LinkFault>,
    /// The peer is heard here in vain.
    in_vain: bool,
    /// When it was told that last, and how often.
    heard_told: Option<(Instant, u8)>,
    /// When the peer said that it hears us here in vain, and how often.
    heard_there: Option<(Instant, u8)>,
}

impl Told {
    /// Takes note of what is seen. True when something is to be told.
    fn observe(&mut self, now: Instant, fault: Option<LinkFault>) -> bool {
        match (fault, self.seen) {
            (None, _) => self.seen = None,
            (Some(fault), Some((seen, _))) if fault == seen => {}
            (Some(fault), _) => self.seen = Some((fault, now)),
        }
        let lasting = match self.seen {
            Some((_, since)) if now - since < TOLD_AFTER => return false,
            seen => seen.map(|(fault, _)| fault),
        };
        std::mem::replace(&mut self.told, lasting) != lasting
    }

    fn set_in_vain(&mut self, in_vain: bool) {
        self.in_vain = in_vain;
        if !in_vain {
            self.heard_told = None;
        }
    }

    /// The peer is to be told, again perhaps, that it is heard in vain.
    fn owes_heard(&self, now: Instant) -> bool {
        let again = |(at, times)| now - at >= HEARD_PAUSE * rarer(times);
        self.in_vain && self.heard_told.is_none_or(again)
    }

    fn note_heard_told(&mut self, now: Instant) {
        let times = self.heard_told.map_or(0, |(_, times)| times);
        self.heard_told = Some((now, times.saturating_add(1)));
    }

    fn on_heard(&mut self, now: Instant) {
        let before = self.heard_there.filter(|_| self.is_heard_there(now));
        self.heard_there = Some((now, before.map_or(1, |(_, times)| times.saturating_add(1))));
    }

    fn is_heard_there(&self, now: Instant) -> bool {
        self.heard_there.is_some_and(|(at, times)| now - at < HEARD_EXPIRY * rarer(times))
    }
}

impl Node {
    /// What is wrong with a direct link that worked before; none when nothing is known to be. Without
    /// a tunnel nothing new is learnt: what was told last stands.
    pub fn link_fault(&self, now: Instant, peer: PeerIndex, link: LinkId) -> Option<LinkFault> {
        let entry = self.peers.get(peer.usize())?;
        let state = entry.state(Path::Direct(link))?;
        if !entry.sealable {
            return state.told.told;
        }
        if state.prober.state() != Liveness::Down {
            let passed = state.mtu.shrunk_to()?;
            let kind = FaultKind::Large(u32::from(passed) + self.outer_headers(link));
            return Some(LinkFault { kind, extent: Extent::Link });
        }
        if state.prober.flaps().downs() == 0 {
            return None;
        }
        let kind = if state.prober.is_heard_in_vain(now) {
            FaultKind::There
        } else if state.told.is_heard_there(now) {
            FaultKind::Back
        } else {
            FaultKind::Both
        };
        Some(LinkFault { kind, extent: self.extent(peer, link) })
    }

    fn extent(&self, peer: PeerIndex, link: LinkId) -> Extent {
        let mut ours = Seen::default();
        for (other, state) in self.peers.iter().flat_map(Peer::links) {
            if other.local == link.local {
                ours.note(state);
            }
        }
        let (mut theirs, mut others) = (Seen::default(), Seen::default());
        for (other, state) in self.peers[peer.usize()].links() {
            let seen = if other.remote == link.remote { &mut theirs } else { &mut others };
            seen.note(state);
        }
        // One link alone says nothing of the rest, and of a single peer that is dead neither.
        let dead_elsewhere = ours.dead > theirs.dead + others.dead;
        let uplink_is_dead = ours.alive == 0 && ours.dead > 1;
        if uplink_is_dead && (dead_elsewhere || others.alive + theirs.alive > 0) {
            Extent::OurUplink
        } else if theirs.alive == 0 && others.alive > 0 && theirs.dead > 1 {
            Extent::TheirUplink
        } else {
            Extent::Link
        }
    }

    /// Tells of faults that have lasted, and peers of what we hear of them.
    pub(super) fn observe_faults(&mut self, now: Instant, out: &mut Output) {
        if now < self.faults.due {
            return;
        }
        self.faults.due = now + LOOK;
        let mut any_in_vain = false;
        for index in 0..self.peers.len() {
            let peer = PeerIndex(index as u16);
            for at in 0..self.peers[index].paths.len() {
                let state = &self.peers[index].paths[at];
                let Path::Direct(link) = state.path else { break };
                let fault = self.link_fault(now, peer, link);
                if self.peers.aside(index).paths[at].told.observe(now, fault) {
                    let what = fault.map_or_else(|| "works".to_owned(), |fault| fault.to_string());
                    let event = Event::LinkChanged {
                        peer: self.peers[index].name.clone(),
                        link: self.describe(peer, Path::Direct(link)),
                        what,
                    };
                    self.push_event(event);
                }
                let in_vain = fault.is_some_and(|fault| fault.kind == FaultKind::There);
                self.peers.aside(index).paths[at].told.set_in_vain(in_vain);
                any_in_vain |= in_vain;
            }
        }
        if any_in_vain {
            self.tell_heard(now, out);
        }
    }

    /// Tells peers that they are heard on links where what we send does not arrive. They are deaf there,
    /// and cannot know by themselves in which direction nothing passes.
    fn tell_heard(&mut self, now: Instant, out: &mut Output) {
        let mut left = HEARD_DATAGRAMS;
        for step in 0..self.peers.len() {
            let index = (self.faults.heard_next + step) % self.peers.len();
            let mut body = [0; 64];
            let mut writer = ControlWriter::new(&mut body);
            let mut links = [None; HEARD_LINKS];
            let owed = self.peers[index].links().filter(|(_, state)| state.told.owes_heard(now));
            for (place, (link, _)) in links.iter_mut().zip(owed) {
                // As the peer names it.
                let theirs = Path::Direct(LinkId { local: link.remote, remote: link.local });
                if writer.push(&Control::Heard(theirs.into())) {
                    *place = Some(link);
                }
            }
            let len = writer.len();
            if len == 0 {
                continue;
            }
            if left == 0 {
                // These are the first next time.
                self.faults.heard_next = index;
                return;
            }
            if self.send_body(now, PeerIndex(index as u16), &body[..len], out) {
                left -= 1;
                for link in links.into_iter().flatten() {
                    let peer = self.peers.aside(index);
                    if let Some(state) = peer.state_mut(Path::Direct(link)) {
                        state.told.note_heard_told(now);
                    }
                }
            }
        }
    }

    /// A peer says that it hears us on one of our links to it, which we know to be dead.
    pub(super) fn on_heard(&mut self, now: Instant, peer: PeerIndex, path: PathId) {
        let paths = &mut self.peers.aside(peer.usize()).paths;
        let mut links = paths.iter_mut().take_while(|state| state.path.relay().is_none());
        if let Some(state) = links.find(|state| PathId::from(state.path) == path) {
            state.told.on_heard(now);
        }
    }
}

/// Links that were looked at.
#[derive(Default)]
struct Seen {
    alive: usize,
    dead: usize,
}

impl Seen {
    fn note(&mut self, state: &PathState) {
        if state.prober.state() != Liveness::Down {
            self.alive += 1;
        } else if state.prober.flaps().downs() > 0 {
            self.dead += 1;
        }
    }
}

#[cfg(test)]
mod tests;
