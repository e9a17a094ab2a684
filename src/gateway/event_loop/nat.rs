//! What the loop does for the NAT besides packets: hosts of our own LAN ask for mappings (PCP and
//! NAT-PMP), and what happens to mappings goes to their log.

use std::net::SocketAddr;

use super::EventLoop;
use crate::gateway::nat_log;
use crate::nat::pcp;
use crate::time::Instant;

/// Requests that a turn serves at each interface.
const REQUESTS: usize = 16;

impl EventLoop {
    /// Answers those that wait.
    pub(super) fn serve_lan(&mut self, now: Instant) {
        if !std::mem::take(&mut self.lan_ready) {
            return;
        }
        let (mut request, mut reply) = ([0; pcp::MAX_LEN + 1], [0; pcp::MAX_LEN]);
        for server in &self.parts.lan_servers {
            for served in 0.. {
                if served == REQUESTS {
                    self.lan_ready = true;
                    break;
                }
                let Some((len, from)) = server.receive(&mut request) else { break };
                let client = SocketAddr::new(from.ip().to_canonical(), from.port());
                let node = &mut self.parts.node;
                let len = node.serve_lan_pcp(now, client, &request[..len], &mut reply);
                if len > 0 {
                    server.send(&reply[..len], from);
                }
            }
        }
    }

    /// Hands what happened to mappings to their log.
    pub(super) fn log_mappings(&mut self, now: Instant) {
        let Some(log) = &mut self.parts.nat_log else { return };
        while let Some(first) = self.parts.node.take_nat_event() {
            let mut events = vec![first];
            while events.len() < nat_log::BATCH_MAX
                && let Some(event) = self.parts.node.take_nat_event()
            {
                events.push(event);
            }
            let lost = self.parts.node.lost_nat_events();
            log.send(nat_log::Batch { at: self.parts.clock.wall(now), lost, events });
        }
    }
}
