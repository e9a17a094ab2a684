//! The demonstration, act by act. Every figure on the screen is measured, every claim checked.

use std::net::{IpAddr, Ipv4Addr};
use std::thread::scope;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use netns_tests::lab::reports::Ping;
use netns_tests::lab::{Lab, Process, clock, server_address, wait_until};

use super::figure2::{self, SITES};
use super::outage;
use super::screen::{Screen, Tone};
use super::tools::{self, Fetched};

/// Bytes of the downloads.
const DOWNLOAD: u64 = 20_000_000;

/// Objects of the page that is browsed.
const PARTS: u32 = 24;

/// What lives until the end.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    /// Servers on hosts.
    pub(crate) servers: Vec<Process>,
    /// The laboratory.
    pub(crate) lab: Option<Lab>,
}

/// Plays all acts. What was built stays in `stage`, however it ends.
pub(crate) fn play(screen: &mut Screen, stage: &mut Stage) -> Result<()> {
    screen.put(Tone::Bold, "rongate: the overlay of the RON paper's Figure 2\n");
    screen.put(Tone::Plain, &format!("{}\n", figure2::MAP));
    let lab = stage.lab.insert(Lab::start(figure2::topology())?);
    start(screen, lab)?;
    pings(screen, lab)?;
    stage.servers.push(downloads(screen, lab)?);
    outage::play(screen, lab)?;
    exit(screen, lab)
}

fn start(screen: &mut Screen, lab: &mut Lab) -> Result<()> {
    screen.act("Four sites, each with a gateway between its hosts and its providers");
    screen.line(
        Tone::Dim,
        "Hosts are unmodified: an address, a route to the gateway, the usual tools.",
    );
    lab.prepare_gateways()?;
    figure2::keep_reachable_endpoints(lab)?;
    let begin = clock::now();
    lab.start_gateways()?;
    let mut tunnels = 0;
    for site in SITES {
        let status = lab.gateway(site)?.status()?;
        let up = SITES.iter().filter(|peer| **peer != site && status.tunnel_up(peer).is_ok());
        tunnels += up.count();
    }
    let seconds = begin.elapsed().as_secs_f64();
    let ends = SITES.len() * (SITES.len() - 1);
    let figure = format!("{tunnels} of {ends} ends in {seconds:.1} s");
    screen.result("rongate run, at every site: tunnels", &figure);
    screen.claim(tunnels == ends, "every gateway has a tunnel to every other", &figure);
    Ok(())
}

/// What is measured for a pair of sites.
struct Pair {
    from: &'static str,
    to: &'static str,
    internet: Ping,
    overlay: Ping,
    via: Option<String>,
    uplink: Option<String>,
}

/// Pings between hosts, beside pings between the gateways' own addresses at their providers.
fn pings(screen: &mut Screen, lab: &mut Lab) -> Result<()> {
    screen.act("Hosts ping each other across the overlay");
    screen.line(
        Tone::Dim,
        "Without it: the gateways ping each other's addresses at their providers.",
    );
    screen.result("", "without     overlay");
    // The better way is taken when it has been measured; it was not known at the beginning.
    let relayed = lab.gateway("mit")?.wait_status("a better way", 20 * SECOND, |status| {
        ensure!(status.via("arosnet", "latency")?.is_some(), "still direct");
        Ok(())
    });
    let pairs =
        [("mit", "arosnet"), ("mediaone", "utah"), ("mediaone", "arosnet"), ("mit", "utah")];
    let measured = scope(|threads| {
        let lab = &*lab;
        let measure = |from, to| threads.spawn(move || measure(lab, from, to));
        let work: Vec<_> = pairs.into_iter().map(|(from, to)| measure(from, to)).collect();
        let join = |work: std::thread::ScopedJoinHandle<'_, Result<Pair>>| {
            work.join().map_err(|_| anyhow!("a measurement panicked"))?
        };
        work.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let mut all = (0, 0);
    for mut pair in measured {
        let status = lab.gateway(pair.from)?.status()?;
        pair.via = status.via(pair.to, "latency")?;
        let uplink = &status.peer(pair.to)?["paths"]["latency"]["uplink"];
        pair.uplink = uplink.as_str().map(str::to_owned);
        let Pair { from, to, internet, overlay, via, uplink } = &pair;
        let way = match (via, uplink) {
            (Some(relay), _) => format!("via {relay}"),
            (None, Some(uplink)) => format!("direct, {uplink}"),
            (None, None) => "direct".into(),
        };
        screen.result(
            &format!("{from} → {to}"),
            &format!("{:5.1} ms  {:5.1} ms {way}", internet.avg_ms, overlay.avg_ms),
        );
        all = (all.0 + overlay.received, all.1 + overlay.sent);
        if (*from, *to) == ("mit", "arosnet") {
            let better = via.is_some() && overlay.avg_ms < internet.avg_ms - 10.0;
            let figure = format!("{:.0} → {:.0} ms, {way}", internet.avg_ms, overlay.avg_ms);
            screen.claim(
                better && relayed.is_ok(),
                "mit to arosnet is faster by the overlay",
                &figure,
            );
        }
    }
    let figure = format!("{} of {} answered", all.0, all.1);
    screen.claim(all.0 == all.1, "hosts ping hosts at other sites", &figure);
    Ok(())
}

const SECOND: Duration = Duration::from_secs(1);

fn measure(lab: &Lab, from: &'static str, to: &'static str) -> Result<Pair> {
    let uplink = |site: &str| Ok::<_, anyhow::Error>(lab.topology().plan(site)?.uplink(0).0.addr());
    let source = uplink(from)?.to_string();
    let (interval, router) = (SECOND / 10, lab.router(from)?);
    let internet = router.ping_with(uplink(to)?, 8, interval, &["-I", &source])?;
    let overlay = lab.host(from, 1)?.ping(lab.host(to, 1)?.v4, 8, interval)?;
    Ok(Pair { from, to, internet, overlay, via: None, uplink: None })
}

/// A download at a host, compared with what the server itself reads.
fn checked_download(
    screen: &mut Screen,
    lab: &Lab,
    (from, server): (&str, Ipv4Addr),
    original: &Fetched,
) -> Result<()> {
    let url = tools::bytes_url(server, original.bytes as u64);
    let got = tools::fetch(&lab.host(from, 1)?, &url)?;
    let same = got.sha256 == original.sha256;
    screen.result(
        &format!("{from}-h1$ curl … | sha256sum"),
        &format!(
            "{:.0} MB, {:.0} Mbit/s, {}",
            got.bytes / 1e6,
            got.mbit_per_second(),
            if same { "same checksum" } else { "ANOTHER checksum" },
        ),
    );
    let figure = format!("{:.0} Mbit/s, SHA-256 {}…", got.mbit_per_second(), &got.sha256[..8]);
    screen.claim(same, &format!("{from} downloads {:.0} MB whole", got.bytes / 1e6), &figure);
    Ok(())
}

fn downloads(screen: &mut Screen, lab: &Lab) -> Result<Process> {
    screen.act("mit's host browses and downloads from a host at arosnet");
    let (host, server) = (lab.host("mit", 1)?, lab.host("arosnet", 1)?);
    let servers = server.start_servers(&[server.v4.into()])?;
    let named = host.dig(server.v4, "www.lab", "A")?;
    screen.result(&format!("mit-h1$ dig @{} www.lab", server.v4), &named.join(" "));
    let right = named == [server.v4.to_string()];
    let (whole, seconds) = tools::browse(&host, server.v4, PARTS)?;
    let figure = format!("{whole} of {} objects in {seconds:.2} s", PARTS + 1);
    screen.result("mit-h1$ curl --parallel (a page)", &figure);
    screen.claim(right && whole == PARTS + 1, "mit browses at arosnet", &figure);
    let original = tools::fetch(&server, &tools::bytes_url(server.v4, DOWNLOAD))?;
    checked_download(screen, lab, ("mit", server.v4), &original)?;
    Ok(servers)
}

/// Hosts of MediaOne go out to the Internet at MIT.
fn exit(screen: &mut Screen, lab: &mut Lab) -> Result<()> {
    screen.act("mediaone's host goes out to the Internet at mit, a remote exit");
    let (server, _) = server_address(0);
    let (host, router) = (lab.host("mediaone", 1)?, lab.router("mediaone")?);
    let outside = |site: &str| {
        Ok::<IpAddr, anyhow::Error>(lab.topology().plan(site)?.uplink(0).0.addr().into())
    };
    let (own, exits) = (outside("mediaone")?, outside("mit")?);
    // The router itself is no host of the overlay: it goes out by its provider as ever.
    let (by_provider, by_overlay) =
        (tools::whoami(&router, server)?, tools::whoami(&host, server)?);
    let topology = lab.topology().clone();
    let who = |address: IpAddr| format!("{address}, {}", figure2::whose(&topology, address));
    screen.result(&format!("gateway$ curl {server}/whoami"), &who(by_provider));
    screen.result(&format!("mediaone-h1$ curl {server}/whoami"), &who(by_overlay));
    screen.claim(
        by_overlay == exits && by_provider == own,
        "the Internet sees the exit's address",
        &who(by_overlay),
    );
    let ping = host.expect_ping(server)?;
    screen.result(&format!("mediaone-h1$ ping {server}"), &format!("{:.1} ms", ping.avg_ms));

    let hops = wait_until("a way for traceroute", 30 * SECOND, || {
        let hops = host.traceroute(server, &[])?;
        ensure!(hops.last() == Some(&Some(server.into())), "it ends at {:?}", hops.last());
        Ok(hops)
    })?;
    screen.result(&format!("mediaone-h1$ traceroute {server}"), &format!("{} hops", hops.len()));
    for (number, hop) in (1..).zip(&hops) {
        let text = hop.map_or_else(|| "no answer".into(), who);
        screen.line(Tone::Plain, &format!("   {number}  {text}"));
    }
    let at_exit = hops.iter().flatten().any(|hop| figure2::whose(&topology, *hop).contains("mit"));
    screen.claim(at_exit, "traceroute shows the way by the exit", &format!("{} hops", hops.len()));

    let original = tools::fetch(&lab.server()?, &tools::bytes_url(server, DOWNLOAD))?;
    checked_download(screen, lab, ("mediaone", server), &original)?;
    let mappings = lab.gateway("mit")?.status()?.number("/nat/mappings")?;
    screen.result("rongate status at mit", &format!("{mappings:.0} NAT mappings"));
    screen.claim(mappings >= 1.0, "the exit translates", &format!("{mappings:.0} NAT mappings"));
    Ok(())
}
