//! One gateway process: its configuration, its life, and what it says of itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::clock::wait_until;
use super::netns::Netns;
use super::process::{Finished, Process, run};
use super::programs::find_gateway;

const READY_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The gateway of one site.
#[derive(Debug)]
pub struct Gateway {
    site: String,
    netns: Netns,
    directory: PathBuf,
    /// The configuration; written to its file at every start.
    pub config: serde_yaml::Value,
    process: Option<Process>,
}

/// Makes a key pair with `rongate keygen`; returns the public key.
pub(crate) fn generate_key(file: &Path) -> Result<String> {
    let mut command = Command::new(find_gateway()?);
    command.args(["keygen", "--out"]).arg(file);
    let finished = run(&mut command, Duration::from_secs(5))?.success()?;
    let key = finished.stdout.trim().to_owned();
    ensure!(!key.is_empty(), "`{}` printed no public key", finished.command);
    Ok(key)
}

impl Gateway {
    pub(crate) fn new(
        site: &str,
        netns: Netns,
        directory: PathBuf,
        config: serde_yaml::Value,
    ) -> Self {
        Self { site: site.into(), netns, directory, config, process: None }
    }

    /// The name of its site, which is also its node's.
    pub fn site(&self) -> &str {
        &self.site
    }

    /// The namespace it runs in.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.directory.join(format!("{}.yaml", self.site))
    }

    /// Its control socket.
    pub fn control_path(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// Writes the configuration file.
    pub fn write_config(&self) -> Result<()> {
        let path = self.config_path();
        std::fs::write(&path, serde_yaml::to_string(&self.config)?)
            .with_context(|| path.display().to_string())
    }

    /// Starts the process and waits until it answers on its control socket.
    pub fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_ready()
    }

    /// Starts the process and does not wait.
    pub fn spawn(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the gateway of {} runs already", self.site);
        self.write_config()?;
        let mut command = self.netns.command(find_gateway()?);
        command.arg("run").arg("--config").arg(self.config_path()).env("RUST_BACKTRACE", "1");
        let log = self.directory.join("gateway.log");
        self.process =
            Some(Process::spawn(&format!("gateway of {}", self.site), &mut command, &log)?);
        Ok(())
    }

    /// Waits until it answers `status`; fails at once if it has ended.
    pub fn wait_ready(&mut self) -> Result<()> {
        let start = super::clock::now();
        loop {
            self.process_mut()?.ensure_running()?;
            match self.status() {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > READY_LIMIT => {
                    return Err(error)
                        .with_context(|| format!("the gateway of {} is not ready", self.site));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Ends it as an operator would; fails if it does not end cleanly.
    pub fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("it does not run")?;
        let status = process.terminate(STOP_LIMIT)?;
        ensure!(status.success(), "the gateway of {} ended with {status}", self.site);
        Ok(())
    }

    /// Kills it at once, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("it does not run")?.kill()
    }

    /// Whether the process is there.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(match &mut self.process {
            Some(process) => process.ended()?.is_none(),
            None => false,
        })
    }

    /// The process.
    pub fn process_mut(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("the gateway of {} does not run", self.site))
    }

    /// Everything it has logged, over all its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("gateway.log")).unwrap_or_default()
    }

    /// Runs an operator's command against it, as in `["peers"]`.
    pub fn command(&self, arguments: &[&str]) -> Result<Finished> {
        let mut command = Command::new(find_gateway()?);
        command.args(arguments).arg("--control").arg(self.control_path());
        run(&mut command, Duration::from_secs(5))
    }

    /// Runs `doctor` where it runs.
    pub fn doctor(&self, arguments: &[&str]) -> Result<Finished> {
        let mut command = self.netns().command(find_gateway()?);
        command.arg("doctor").arg("--config").arg(self.config_path()).args(arguments);
        run(&mut command, Duration::from_secs(10))
    }

    /// The document of `status --json`.
    pub fn status(&self) -> Result<Status> {
        let finished = self.command(&["status", "--json"])?.success()?;
        let document = serde_json::from_str(&finished.stdout)
            .with_context(|| format!("`status --json` printed:\n{}", finished.stdout))?;
        Ok(Status(document))
    }

    /// Waits until `check` is satisfied by the status.
    pub fn wait_status<T>(
        &self,
        what: &str,
        limit: Duration,
        mut check: impl FnMut(&Status) -> Result<T>,
    ) -> Result<T> {
        wait_until(&format!("{} at {}", what, self.site), limit, || check(&self.status()?))
    }

    /// Waits until the tunnel to a peer is established.
    pub fn wait_tunnel(&self, peer: &str, limit: Duration) -> Result<()> {
        self.wait_status(&format!("a tunnel to {peer}"), limit, |status| status.tunnel_up(peer))
    }

    /// Waits until hosts can reach those of a peer: there is a tunnel, and a path was found.
    pub fn wait_reachable(&self, peer: &str, limit: Duration) -> Result<()> {
        self.wait_status(&format!("a way to {peer}"), limit, |status| {
            status.tunnel_up(peer)?;
            status.via(peer, "latency").map(|_| ())
        })
    }

    /// Waits until latency traffic to `peer` goes by `relay`, or directly for `None`.
    pub fn wait_via(&self, peer: &str, relay: Option<&str>, limit: Duration) -> Result<()> {
        let what = format!("{peer} by {}", relay.unwrap_or("the direct path"));
        self.wait_status(&what, limit, |status| {
            let via = status.via(peer, "latency")?;
            ensure!(via.as_deref() == relay, "it goes by {via:?}");
            Ok(())
        })
    }
}

/// The document of `status --json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Status(pub Value);

impl Status {
    /// The entry of one peer.
    pub fn peer(&self, name: &str) -> Result<&Value> {
        let peers = self.0["peers"].as_array().context("status has no peers")?;
        peers.iter().find(|peer| peer["name"] == name).with_context(|| format!("no peer {name}"))
    }

    /// Fails unless the tunnel to a peer is up.
    pub fn tunnel_up(&self, peer: &str) -> Result<()> {
        let state = &self.peer(peer)?["tunnel"]["state"];
        let state = state.as_str().with_context(|| format!("tunnel state {state}"))?;
        ensure!(["up", "established"].contains(&state.to_ascii_lowercase().as_str()), "{state}");
        Ok(())
    }

    /// The relay that a metric's traffic to a peer takes; `None` for the direct path.
    pub fn via(&self, peer: &str, metric: &str) -> Result<Option<String>> {
        let path = &self.peer(peer)?["paths"][metric];
        ensure!(path.is_object(), "no path to {peer} for {metric}");
        Ok(path["via"].as_str().map(str::to_owned))
    }

    /// The links to a peer.
    pub fn links(&self, peer: &str) -> Result<&[Value]> {
        let links = self.peer(peer)?["links"].as_array().context("no links")?;
        Ok(links)
    }

    /// How many packets were dropped, by reason; zero counts are left out.
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let none = serde_json::Map::new();
        let drops = self.0["drops"].as_object().unwrap_or(&none);
        drops
            .iter()
            .filter_map(|(reason, count)| Some((reason.clone(), count.as_u64()?)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// A number anywhere in the document, by a JSON pointer like `/nat/mappings`.
    pub fn number(&self, pointer: &str) -> Result<f64> {
        let value = self.0.pointer(pointer).with_context(|| format!("status has no {pointer}"))?;
        value.as_f64().with_context(|| format!("{pointer} is {value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_status_document_is_read_by_peer() {
        let status = Status(json!({
            "peers": [{"name": "utah", "tunnel": {"state": "up", "age_s": 1},
                "links": [{"uplink": "isp1"}],
                "paths": {"latency": {"via": null, "metric": 40},
                          "loss": {"via": "aros", "metric": 0}}}],
            "drops": {"replay": 2, "forged": 0},
            "nat": {"mappings": 3},
        }));
        status.tunnel_up("utah").unwrap();
        assert_eq!(status.via("utah", "latency").unwrap(), None);
        assert_eq!(status.via("utah", "loss").unwrap().as_deref(), Some("aros"));
        assert!(status.via("utah", "throughput").is_err());
        assert!(status.peer("mit").is_err());
        assert_eq!(status.drops(), BTreeMap::from([("replay".to_owned(), 2)]));
        assert!((status.number("/nat/mappings").unwrap() - 3.0).abs() < 1e-9);
    }
}
