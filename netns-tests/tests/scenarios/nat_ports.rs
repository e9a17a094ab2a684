//! Ports that are open from outside: asked for by hosts (NAT-PMP with its usual client, PCP by a
//! BitTorrent client, FTP in active mode over such a port), and by the configuration.
//!
//! ```text
//!   mit-h1 ─ mit ═══ 10 ms ═══ utah ═══ 10 ms ═══ internet ─ server 203.0.113.80
//!               (overlay)       │ exit 192.0.2.17 (underlay)
//!                            utah-h1
//! ```

use std::fs;

use anyhow::{Context, Result, ensure};
use netns_tests::lab::process::{run, run_with_input};
use netns_tests::lab::tools::{find_tool, with_libraries};
use netns_tests::lab::{Host, Scenario, Site, Topology, wait_until};

use crate::common::{SECOND, start};
use crate::nat_programs::ftp;

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario::new("nat_ports::open_from_outside", open_from_outside)];

const OUTSIDE: &str = "192.0.2.17";
const SERVER: &str = "203.0.113.80";

fn open_from_outside() -> Result<()> {
    let utah = "{egress: {enabled: true, for: [mit]}, internet: {via: [local]}, \
                nat: {pcp: true, forwards: [{port: 40443, to: '10.1.0.11:80'}]}}";
    let mit = "{internet: {via: [utah], servers: ['tcp 10.1.0.11:80']}}";
    let topology =
        Topology::new([Site::new("mit").hosts(2).config(mit), Site::new("utah").config(utah)]);
    let mut lab = start(topology.internet(1).all_links("{delay: 10ms}"))?;
    let (far, near, server) = (lab.host("mit", 2)?, lab.host("utah", 1)?, lab.server()?);
    let forwarded = lab.host("mit", 1)?;
    let _servers = [
        forwarded.start_servers(&[forwarded.v4.into()])?,
        far.start_servers(&[far.v4.into()])?,
        near.start_servers(&[near.v4.into()])?,
    ];
    // By the configuration: a server at another site, which has sent nothing.
    reached(&server, 40_443)?;
    // A host of another site asks the exit; one of the exit's own site asks its router.
    for (host, ask) in [(&far, Some("10.77.0.2")), (&near, None)] {
        let port = lease(host, ask, ["0", "80"])?;
        reached(&server, port)?;
    }
    let listed = lab.gateway("utah")?.command(&["nat", "--json"])?.success()?.stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed)?;
    let of = |host: &Host| {
        let own = format!("{}:80", host.v4);
        let all = listed["mappings"].as_array().into_iter().flatten();
        all.filter(|mapping| mapping["inside"] == own.as_str()).count()
    };
    ensure!((of(&far), of(&near)) == (1, 1), "{listed}");
    // The client names the port that it was given, and the server calls.
    let port = lease(&far, Some("10.77.0.2"), ["41000", "41000"])?;
    ensure!(port == 41_000, "{port}");
    ftp(&far, &server, &["--ftp-port", &format!("{OUTSIDE}:{port}")])?;
    pcp(&near, &server)?;
    // Programs that ask nobody but their own router find the exit where the router passes it on.
    let router = lab.router("mit")?;
    let mut nft = router.command("nft");
    run_with_input(nft.args(["-f", "-"]), PASSED_ON, 5 * SECOND)?.success()?;
    let port = lease(&far, None, ["42000", "80"])?;
    reached(&server, port)?;
    // What is asked of others is not.
    let mut stranger = far.command("nc");
    let told =
        run_with_input(stranger.args(["-u", "-n", "-w", "1", SERVER, "5351"]), "\0\0", 4 * SECOND)?;
    ensure!(told.stdout.is_empty(), "{told:?}");
    pcp(&far, &server)
}

/// As the README has it.
const PASSED_ON: &str = r#"
table ip portmap {
  chain ask {
    type nat hook prerouting priority dstnat
    iifname "lan0" fib daddr type local udp dport 5351 dnat to 10.77.0.2
  }
}
"#;

/// A program that looks for a router with PCP by itself, and can be reached then.
fn pcp(host: &Host, server: &Host) -> Result<()> {
    let script = host.file("pcp.py");
    fs::write(&script, PCP)?;
    let client = host.start_python("pcp", &[&script.display().to_string()])?;
    let port = wait_until("a mapping by PCP", 10 * SECOND, || {
        let told = client.log_text();
        let port = told.split("open tcp ").nth(1).with_context(|| told.clone())?;
        let port = port.split_whitespace().next().unwrap_or_default().to_owned();
        ensure!(told.contains("transport: PCP"), "{told}");
        ensure!(!told.contains("transport: NAT-PMP"), "{told}");
        Ok(port)
    })?;
    wait_until("a call by BitTorrent", 6 * SECOND, || {
        server.run("nc", &["-n", "-z", "-w", "2", OUTSIDE, &port], 4 * SECOND)?.success()?;
        Ok(())
    })
}

/// Says which outside port it was given, and what was spoken on the way there.
const PCP: &str = r#"
import libtorrent, sys
kinds = libtorrent.alert.category_t
wanted = kinds.port_mapping_notification | kinds.port_mapping_log_notification
session = libtorrent.session({
    "enable_natpmp": True, "enable_upnp": False, "enable_lsd": False, "enable_dht": False,
    "listen_interfaces": "0.0.0.0:6999", "alert_mask": int(wanted),
})
while True:
    session.wait_for_alert(500)
    for alert in session.pop_alerts():
        if isinstance(alert, libtorrent.portmap_alert):
            print("open", str(alert.map_protocol), alert.external_port, flush=True)
        else:
            print(alert.message(), flush=True)
"#;

/// A page of the host behind the port, as the Internet sees it.
fn reached(server: &Host, port: u16) -> Result<()> {
    let page = format!("http://{OUTSIDE}:{port}/whoami");
    wait_until(&format!("port {port} is open"), 6 * SECOND, || {
        let reply = server.http_get(&page, 2 * SECOND)?;
        ensure!(reply.body.trim() == "203.0.113.80", "{reply:?}");
        Ok(())
    })
}

/// Asks for an outside port, of any or of this number, for a port of the host's, and returns it.
fn lease(host: &Host, gateway: Option<&str>, ports: [&str; 2]) -> Result<u16> {
    let mut command = host.command(&find_tool("natpmpc")?.display().to_string());
    if let Some(gateway) = gateway {
        command.args(["-g", gateway]);
    }
    command.arg("-a").args(ports).args(["tcp", "3600"]);
    let told = run(with_libraries(&mut command), 10 * SECOND)?.success()?;
    ensure!(told.stdout.contains(&format!("Public IP address : {OUTSIDE}")), "{told:?}");
    let port = told.stdout.split("Mapped public port ").nth(1).context(told.stdout.clone())?;
    Ok(port.split(' ').next().unwrap_or_default().parse()?)
}
