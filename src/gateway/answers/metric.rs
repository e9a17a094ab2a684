//! What programs say of paths: taken in, and listed.

use std::time::Duration;

use super::Scene;
use super::peers::uplink_name;
use crate::gateway::ask::Answer;
use crate::gateway::status::{AppValueList, AppValueStatus, TTL_MAX_S};
use crate::id::PeerIndex;
use crate::node::Node;
use crate::path::Path;
use crate::time::Instant;

/// Whom a value is about, in an operator's words.
pub(super) struct Subject<'a> {
    pub(super) peer: &'a str,
    pub(super) via: Option<&'a str>,
    pub(super) uplink: Option<&'a str>,
}

/// Sets a value, or takes it back.
pub(super) fn set(
    node: &mut Node,
    now: Instant,
    scene: &Scene<'_>,
    subject: &Subject<'_>,
    value: Option<f64>,
    ttl_s: f64,
) -> Answer {
    let paths = match paths(node, now, scene, subject) {
        Ok(paths) => paths,
        Err(why) => return Answer::Refused(why),
    };
    let value = match value {
        None => None,
        Some(value) if !value.is_finite() || value < 0.0 => {
            return Answer::Refused("the value must be a number, 0 or greater".to_owned());
        }
        Some(_) if !(ttl_s > 0.0 && ttl_s <= TTL_MAX_S) => {
            return Answer::Refused("a value holds for more than 0s and at most 24h".to_owned());
        }
        Some(value) => Some((value, now + Duration::from_secs_f64(ttl_s))),
    };
    let (peer, paths) = paths;
    for path in paths {
        if let Err(error) = node.set_app_value(now, peer, path, value) {
            return Answer::Refused(error.to_string());
        }
    }
    Answer::AppValues(list(node, now, scene))
}

/// The paths that a subject names.
fn paths(
    node: &Node,
    now: Instant,
    scene: &Scene<'_>,
    subject: &Subject<'_>,
) -> Result<(PeerIndex, Vec<Path>), String> {
    let named = |name: &str| {
        scene.config.peer_named(name).ok_or_else(|| format!("there is no peer `{name}`"))
    };
    let peer = named(subject.peer)?;
    let relay = subject.via.map(named).transpose()?;
    match (relay, subject.uplink) {
        (Some(_), Some(_)) => Err("a path has a relay or an uplink, not both".to_owned()),
        (Some(relay), None) if relay == peer => Err("a peer is no relay to itself".to_owned()),
        (Some(relay), None) => Ok((peer, vec![Path::Via(relay)])),
        (None, uplink) => {
            let known = |name: &str| scene.config.uplinks.iter().any(|known| known.name == name);
            if let Some(name) = uplink.filter(|name| !known(name)) {
                return Err(format!("there is no uplink `{name}`"));
            }
            let peers = node.peers(now);
            let links = peers.iter().filter(|p| p.index == peer).flat_map(|p| &p.links);
            let all = links.map(|link| Path::Direct(link.link));
            let wanted =
                |path: &Path| uplink.is_none() || uplink_name(scene, *path).as_deref() == uplink;
            let direct: Vec<Path> = all.filter(wanted).collect();
            if direct.is_empty() {
                return Err(format!("there is no direct path to `{}` yet", subject.peer));
            }
            Ok((peer, direct))
        }
    }
}

/// All values in force.
pub(super) fn list(node: &Node, now: Instant, scene: &Scene<'_>) -> AppValueList {
    let of_peer = |(index, peer): (PeerIndex, &crate::config::Peer)| {
        let name = peer.name.clone();
        let values: Vec<_> = node
            .app_values(index)
            .filter(|(.., until)| *until > now)
            .map(|(path, value, until)| AppValueStatus {
                peer: name.clone(),
                via: path.relay().map(|relay| node.peer_name(relay).to_owned()),
                uplink: uplink_name(scene, path),
                value,
                expires_s: (until - now).as_secs_f64(),
            })
            .collect();
        values
    };
    AppValueList { values: scene.config.peers().flat_map(of_peer).collect() }
}
