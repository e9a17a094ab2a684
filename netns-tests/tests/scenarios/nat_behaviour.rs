//! How the exit's NAT looks from outside: what STUN and ICE find, and hosts that meet each other by
//! their public addresses.
//!
//! ```text
//!   mit-h1 ── mit ═══ 10 ms ══╗
//!                            utah ═══ 10 ms ═══ internet ─ server 203.0.113.80, .81
//!   aros-h1 ─ aros ══ 10 ms ══╝ exit of all three            (coturn)
//! ```

use std::fs;

use anyhow::{Result, ensure};
use netns_tests::lab::{Host, Lab, Process, Scenario, Site, Topology, wait_until};

use crate::common::{SECOND, start};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new("nat_behaviour::stun_behaviour", stun_behaviour),
    Scenario::new("nat_behaviour::ice", ice),
];

const SERVERS: [&str; 2] = ["203.0.113.80", "203.0.113.81"];
const OUTSIDE: &str = "192.0.2.17";

fn lab() -> Result<Lab> {
    start(
        Topology::new([
            Site::new("mit").config("{internet: {via: [utah]}}"),
            Site::new("utah").config("{egress: {enabled: true}, internet: {via: [local]}}"),
            Site::new("aros").config("{internet: {via: [utah]}}"),
        ])
        .internet(2)
        .all_links("{delay: 10ms}"),
    )
}

fn start_stun(server: &Host) -> Result<Process> {
    let database = server.file("turn.db").display().to_string();
    let pid = server.file("turn.pid").display().to_string();
    let mut arguments =
        vec!["-n", "--stun-only", "--no-cli", "--no-tls", "--no-dtls", "--log-file=stdout"];
    arguments.extend(["--simple-log", "--pidfile", &pid, "-b", &database]);
    for address in SERVERS {
        arguments.extend(["-L", address]);
    }
    let turn = server.start_tool("turnserver", &arguments)?;
    wait_until("the STUN server", 8 * SECOND, || {
        ensure!(turn.log_text().contains("IO method (admin thread)"), "{}", turn.log_text());
        Ok(())
    })?;
    Ok(turn)
}

/// RFC 5780 section 4 by coturn's client and server: from behind a remote exit, and from the exit's
/// own LAN.
fn stun_behaviour() -> Result<()> {
    let lab = lab()?;
    let _turn = start_stun(&lab.server()?)?;
    for site in ["mit", "utah"] {
        let host = lab.host(site, 1)?;
        let told =
            host.run_tool("turnutils_natdiscovery", &["-m", "-f", SERVERS[0]], 20 * SECOND)?;
        let told = told.success()?.stdout;
        for wanted in [
            "NAT with Endpoint Independent Mapping!",
            "NAT with Endpoint Independent Filtering!",
            &format!("UDP reflexive addr: {OUTSIDE}:"),
        ] {
            ensure!(told.contains(wanted), "from {site}, no `{wanted}` in:\n{told}");
        }
    }
    Ok(())
}

/// Two programs find each other by ICE. They offer their public addresses only, which are one and
/// the same: the packets turn round in the exit.
fn ice() -> Result<()> {
    let lab = lab()?;
    let _turn = start_stun(&lab.server()?)?;
    let script = lab.server()?.file("ice.py");
    fs::write(&script, ICE)?;
    let folder = lab.server()?.file("");
    let [script, folder] = [script, folder].map(|path| path.display().to_string());
    let start = |site: &str, role: &str, other: &str| {
        let arguments = [script.as_str(), SERVERS[0], role, other, &folder];
        lab.host(site, 1)?.start_python("ice", &arguments)
    };
    let both = [start("mit", "caller", "callee")?, start("aros", "callee", "caller")?];
    for mut process in both {
        let end = process.wait(25 * SECOND)?;
        let text = process.log_text();
        ensure!(end.success() && text.contains("heard hello from"), "{text}");
        ensure!(text.contains(&format!("over {OUTSIDE}:")), "{text}");
    }
    Ok(())
}

/// Exchanges candidates by files, and a message by what was negotiated.
const ICE: &str = r#"
import asyncio, json, os, sys, aioice
stun, role, other, folder = sys.argv[1:5]

async def main():
    ice = aioice.Connection(ice_controlling=role == "caller", stun_server=(stun, 3478), use_ipv6=False)
    await ice.gather_candidates()
    mine = [c.to_sdp() for c in ice.local_candidates if c.type == "srflx"]
    offer = {"user": ice.local_username, "password": ice.local_password, "candidates": mine}
    path = os.path.join(folder, role + ".json")
    with open(path + ".part", "w") as file:
        json.dump(offer, file)
    os.rename(path + ".part", path)
    theirs = os.path.join(folder, other + ".json")
    while not os.path.exists(theirs):
        await asyncio.sleep(0.05)
    with open(theirs) as file:
        answer = json.load(file)
    ice.remote_username, ice.remote_password = answer["user"], answer["password"]
    for line in answer["candidates"]:
        await ice.add_remote_candidate(aioice.Candidate.from_sdp(line))
    await ice.add_remote_candidate(None)
    await ice.connect()
    await ice.send(b"hello from " + role.encode())
    heard = await ice.recv()
    pair = list(ice._nominated.values())[0]
    print("heard", heard.decode(), "over", "%s:%d" % pair.remote_addr, flush=True)
    # Whoever closes first must have been heard.
    for who in role, other:
        done = os.path.join(folder, who + ".done")
        if who == role:
            open(done, "w").close()
        while not os.path.exists(done):
            await asyncio.sleep(0.02)
    await ice.close()

asyncio.run(asyncio.wait_for(main(), 20))
"#;
