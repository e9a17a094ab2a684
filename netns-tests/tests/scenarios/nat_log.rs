//! The log of mappings at a syslog service of the Internet, rsyslog, which takes each message apart.
//!
//! ```text
//!   mit-h1 ─ mit ═══ 10 ms ═══ utah ═══ 10 ms ═══ internet ─ server 203.0.113.80
//!               (overlay)      exit 192.0.2.17 (underlay)    rsyslog
//! ```

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use netns_tests::lab::process::run_with_input;
use netns_tests::lab::tools::find_tool;
use netns_tests::lab::{Host, Process, Scenario, Site, Topology, wait_until};
use serde_json::Value;

use crate::common::{SECOND, start};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::new("nat_log::by_syslog", by_syslog)];

const SERVER: &str = "203.0.113.80";
const OUTSIDE: &str = "192.0.2.17";
/// What rsyslog makes of the head of each message (RFC 5424 section 6), but for its time.
const HEAD: &str = "1|local0.info|utah|rongate|-|nat|-|";

/// Beginning and end of a mapping arrive, with the time, and nothing in them says whom the host
/// talked to.
fn by_syslog() -> Result<()> {
    let utah = format!("{{egress: {{enabled: true}}, nat_log: {{syslog: '{SERVER}:514'}}}}");
    let mut lab = start(
        Topology::new([
            Site::new("mit").config("{internet: {via: [utah]}}"),
            Site::new("utah").config(&utah),
        ])
        .internet(1)
        .all_links("{delay: 10ms}"),
    )?;
    let (host, server) = (lab.host("mit", 1)?, lab.server()?);
    let got = server.file("messages");
    let _service = start_rsyslog(&server, &got)?;
    // The service may not listen yet: what is sent then is lost, and a new mapping is tried.
    let mut port = 6_000;
    let (outside, inside) = wait_until("the beginning of a mapping", 10 * SECOND, || {
        port += 1;
        let outside = mapped(&host, port)?;
        let inside = format!("{}:{port}", host.v4);
        event(&got, "created", &inside, &outside)?;
        Ok((outside, inside))
    })?;
    lab.gateway("utah")?.command(&["nat", "delete", "udp", &outside])?.success()?;
    wait_until("its end", 4 * SECOND, || event(&got, "ended", &inside, &outside))?;
    let text = fs::read_to_string(&got)?;
    ensure!(!text.contains(SERVER) && !text.contains(":9007"), "a destination: {text}");
    Ok(())
}

fn start_rsyslog(server: &Host, got: &Path) -> Result<Process> {
    let program = find_tool("rsyslogd")?;
    let root = program.ancestors().nth(2).context("no directory of modules")?;
    let modules = root.join(format!("lib/{}-linux-gnu/rsyslog", std::env::consts::ARCH));
    let file = server.file("rsyslog.conf");
    let parts = "%protocol-version%|%syslogfacility-text%.%syslogseverity-text%|%hostname%|\
                 %app-name%|%procid%|%msgid%|%structured-data%|%timereported:::date-rfc3339%|%msg%";
    let config = format!(
        "module(load=\"imudp\")\ntemplate(name=\"parts\" type=\"string\" string=\"{parts}\\n\")\n\
         ruleset(name=\"all\") {{ action(type=\"omfile\" file=\"{}\" template=\"parts\") }}\n\
         input(type=\"imudp\" address=\"{SERVER}\" port=\"514\" ruleset=\"all\")\n",
        got.display(),
    );
    fs::write(&file, config)?;
    let (file, modules) = (file.display().to_string(), modules.display().to_string());
    server.start_tool("rsyslogd", &["-n", "-f", &file, "-i", "NONE", "-M", &modules])
}

/// Makes a mapping of a port of the host, and returns its outside endpoint.
fn mapped(host: &Host, port: u16) -> Result<String> {
    let port = port.to_string();
    let arguments = ["-u", "-n", "-w", "1", "-p", &port, SERVER, "9007"];
    let told = run_with_input(host.command("nc").args(arguments), "who\n", 4 * SECOND)?;
    let outside = told.stdout.lines().last().context("no answer")?.to_owned();
    ensure!(outside.starts_with(OUTSIDE), "{outside}");
    Ok(outside)
}

/// Looks for the event among the messages, and reads all of it.
fn event(got: &Path, name: &str, inside: &str, outside: &str) -> Result<()> {
    let text = fs::read_to_string(got).context("nothing came")?;
    for line in text.lines() {
        let rest = line.strip_prefix(HEAD).with_context(|| line.to_owned())?;
        let (time, body) = rest.split_once('|').with_context(|| line.to_owned())?;
        let event: Value = serde_json::from_str(body).with_context(|| line.to_owned())?;
        ensure!(event["time"] == time, "two times: {line}");
        if event["event"] == name && event["inside"] == inside {
            let rest = ["node", "site", "protocol", "outside"].map(|key| event[key].as_str());
            ensure!(rest == [Some("utah"), Some("mit"), Some("udp"), Some(outside)], "{line}");
            return Ok(());
        }
    }
    anyhow::bail!("no `{name}` of {inside}: {text}")
}
