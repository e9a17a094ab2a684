//! Questions from the control thread to the event loop, and what else they tell each other.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use ipnet::IpNet;
use mio::Waker;

use super::kernel::OutsidePair;
use super::status::{
    AppValueList, Explanation, FlowList, NatHostList, NatMappingList, NatMappingStatus, Request,
    Status,
};
use crate::config::Config;
use crate::id::UplinkIndex;
use crate::io::underlay::UnderlaySocket;
use crate::node::NodePolicy;

/// How long the control thread waits for the loop. The loop answers within a turn.
const PATIENCE: Duration = Duration::from_secs(2);
/// Messages waiting in either direction.
const QUEUE: usize = 64;

/// From the control thread to the loop.
pub(super) enum ToLoop {
    /// Answer this.
    Question(Request, Sender<Answer>),
    /// The socket of an uplink was opened anew, or its interface has no address any more.
    Uplink(UplinkIndex, Option<UnderlaySocket>),
    /// The outside of our exit changed.
    Exit(ExitChange),
    /// A configuration with another policy, or other networks in it.
    Policy(Arc<Config>, Box<NodePolicy>),
}

/// What an address change means for the exit.
pub(super) struct ExitChange {
    /// What the pool's addresses stand for.
    pub(super) outside: Vec<OutsidePair>,
    /// Destinations that users of the exit may not reach.
    pub(super) closed: Vec<IpNet>,
}

/// From the loop to the control thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ToControl {
    /// The operator sent SIGHUP.
    Reload,
    /// End.
    Stop,
}

/// What the loop says to a question.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Flows`].
    Flows(FlowList),
    /// To [`Request::Nat`].
    NatMappings(NatMappingList),
    /// To [`Request::NatHosts`].
    NatHosts(NatHostList),
    /// To [`Request::NatDelete`].
    NatMapping(NatMappingStatus),
    /// To [`Request::Explain`].
    Explanation(Box<Explanation>),
    /// To [`Request::SetMetric`] and [`Request::Metrics`].
    AppValues(AppValueList),
    /// Why not, in one sentence.
    Refused(String),
}

/// One end of a channel that wakes whoever reads the other end.
pub(super) struct Line<T> {
    sender: Sender<T>,
    waker: Arc<Waker>,
}

impl<T> Clone for Line<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), waker: Arc::clone(&self.waker) }
    }
}

impl<T> Line<T> {
    /// A bounded channel whose reader waits in the poll that `waker` belongs to.
    pub(super) fn new(waker: Arc<Waker>) -> (Self, Receiver<T>) {
        let (sender, receiver) = bounded(QUEUE);
        (Self { sender, waker }, receiver)
    }

    /// Sends without waiting. False when the queue is full or the reader gone.
    pub(super) fn send(&self, message: T) -> bool {
        self.sender.try_send(message).is_ok() && self.waker.wake().is_ok()
    }
}

impl Line<ToLoop> {
    /// Asks and waits for the answer.
    pub(super) fn ask(&self, request: Request) -> Answer {
        let (reply, answer) = bounded(1);
        if !self.send(ToLoop::Question(request, reply)) {
            return Answer::Refused("the gateway is too busy to answer".to_owned());
        }
        answer
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| Answer::Refused("the gateway did not answer in time".to_owned()))
    }
}
