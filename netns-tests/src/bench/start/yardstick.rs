//! The tunnels of `benches/yardsticks`.

use anyhow::Result;

use super::{PORT, Running, ends};
use crate::bench::site::Site;
use crate::lab::programs::find_program;

/// Starts two of them.
pub(super) fn start(program: &str, options: &[&str], site: &Site) -> Result<Running> {
    let program = find_program(program)?;
    let ends = ends(site);
    // Anybody may know them: the laboratory's links lead nowhere.
    let keys = ["5a".repeat(32), "a5".repeat(32)];
    let mut daemons = Vec::new();
    for (at, end) in ends.iter().enumerate() {
        let other = &ends[1 - at];
        let [listen, peer] = [end, other].map(|end| format!("{}:{PORT}", end.underlay));
        let mut daemon = end.spawn(
            &program,
            &[
                &["--tun", end.name, "--listen", &listen, "--peer", &peer][..],
                &["--seal", &keys[at], "--open", &keys[1 - at]],
                options,
            ]
            .concat(),
        )?;
        end.wait_interface(end.name, &mut daemon)?;
        end.address(end.name, other)?;
        daemons.push(daemon);
    }
    Ok(Running::Other(daemons))
}
