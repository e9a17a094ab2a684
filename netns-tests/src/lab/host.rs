//! Hosts: unmodified machines that know only their router, and the tools they run.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::netns::Netns;
use super::process::{Finished, Process, run};
use super::programs::find_program;
use super::reports::{Hop, Iperf, Ping, parse_curl, parse_iperf, parse_ping, parse_traceroute};
use super::{tick, tools};

/// A host of a site, or the Internet's server.
#[derive(Clone, Debug)]
pub struct Host {
    pub(crate) netns: Netns,
    pub(crate) directory: PathBuf,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

/// A reply of a web server.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpReply {
    /// The status code.
    pub code: u16,
    /// The body; empty where it was not kept.
    pub body: String,
    /// Length of the body in bytes.
    pub bytes: u64,
    /// Duration of the transfer in seconds.
    pub seconds: f64,
}

/// A download that runs beside the scenario.
#[derive(Debug)]
pub struct Download {
    process: Process,
    bytes: u64,
}

impl Download {
    /// Waits for its end; fails unless every byte has arrived, each as it was sent.
    pub fn finish(mut self, limit: Duration) -> Result<()> {
        let status = self.process.wait(limit)?;
        let text = self.process.log_text();
        ensure!(status.success(), "the download ended with {status}: {text}");
        ensure!(text.trim() == self.bytes.to_string(), "{text} of {} bytes", self.bytes);
        Ok(())
    }
}

/// A stream of ticks between two hosts, while it runs.
#[derive(Debug)]
pub struct Ticks {
    sender: Process,
    receiver: Option<Process>,
}

impl Host {
    /// The namespace it is in.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// A command of this host.
    pub fn command(&self, program: &str) -> Command {
        self.netns.command(program)
    }

    /// Runs a program with arguments, at most for `limit`. Its exit status is not judged.
    pub fn run(&self, program: &str, arguments: &[&str], limit: Duration) -> Result<Finished> {
        run(self.command(program).args(arguments), limit)
    }

    /// Starts a program that runs on; its output is in a log of its own.
    pub fn start(&self, name: &str, program: &Path, arguments: &[&str]) -> Result<Process> {
        self.spawn(name, self.netns.command(program).args(arguments))
    }

    /// Like [`Self::run`], for a program that was unpacked for the scenarios.
    pub fn run_tool(&self, name: &str, arguments: &[&str], limit: Duration) -> Result<Finished> {
        let mut command = self.command(&tools::find_tool(name)?.display().to_string());
        run(tools::with_libraries(command.args(arguments)), limit)
    }

    /// Like [`Self::start`], for a program that was unpacked for the scenarios.
    pub fn start_tool(&self, name: &str, arguments: &[&str]) -> Result<Process> {
        let mut command = self.netns.command(tools::find_tool(name)?);
        self.spawn(name, tools::with_libraries(command.args(arguments)))
    }

    /// Starts a Python program, with the modules that were unpacked for the scenarios.
    pub fn start_python(&self, name: &str, arguments: &[&str]) -> Result<Process> {
        let mut command = self.netns.command(tools::python());
        self.spawn(name, tools::with_libraries(command.args(arguments)))
    }

    fn spawn(&self, name: &str, command: &mut Command) -> Result<Process> {
        let name = format!("{}-{name}", self.netns.name());
        let log = fresh_log(&self.directory, &name);
        Process::spawn(&name, command, &log)
    }

    /// A file of the laboratory, which all its hosts share.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Sends `count` pings, `interval` apart, and waits a second for the last reply.
    pub fn ping(&self, to: impl Into<IpAddr>, count: u32, interval: Duration) -> Result<Ping> {
        self.ping_with(to, count, interval, &[])
    }

    /// Like [`Self::ping`] with more options, as in `-s 1472 -M do`.
    pub fn ping_with(
        &self,
        to: impl Into<IpAddr>,
        count: u32,
        interval: Duration,
        options: &[&str],
    ) -> Result<Ping> {
        let mut command = self.command("ping");
        command.args(["-n", "-q", "-W", "1", "-c", &count.to_string()]);
        command.args(["-i", &format!("{:.3}", interval.as_secs_f64())]);
        command.args(options).arg(to.into().to_string());
        let finished = run(&mut command, interval * count + Duration::from_secs(5))?;
        parse_ping(&finished.stdout).with_context(|| finished.stderr)
    }

    /// Fails unless all of three quick pings come back.
    pub fn expect_ping(&self, to: impl Into<IpAddr>) -> Result<Ping> {
        let to = to.into();
        let ping = self.ping(to, 3, Duration::from_millis(50))?;
        ensure!(ping.received == ping.sent, "{} pings {to}: {ping:?}", self.netns.name());
        Ok(ping)
    }

    /// Starts `iperf3 -s` on the usual port, for both families.
    pub fn start_iperf(&self) -> Result<Process> {
        let server = self.start("iperf3", Path::new("iperf3"), &["-s", "--forceflush"])?;
        super::clock::wait_until("iperf3 listens", Duration::from_secs(5), || {
            ensure!(server.log_text().contains("listening"), "{}", server.log_text());
            Ok(())
        })?;
        Ok(server)
    }

    /// Runs iperf3 against a host with [`Self::start_iperf`], for `seconds`; `options` as in `-R`
    /// or `-u -b 10M`.
    pub fn iperf(&self, to: impl Into<IpAddr>, seconds: u32, options: &[&str]) -> Result<Iperf> {
        let mut command = self.command("iperf3");
        command.args(["-J", "-t", &seconds.to_string(), "-c", &to.into().to_string()]);
        command.args(options);
        let finished = run(&mut command, Duration::from_secs(u64::from(seconds) + 15))?;
        parse_iperf(&finished.stdout).with_context(|| finished.stderr)
    }

    /// Starts the laboratory's servers (web, echo, names) on addresses of this host.
    pub fn start_servers(&self, addresses: &[IpAddr]) -> Result<Process> {
        let mut arguments = vec!["serve".to_owned()];
        for address in addresses {
            arguments.extend(["--listen".into(), address.to_string()]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let server = self.start("servers", &find_program("lab-server")?, &arguments)?;
        super::clock::wait_until("the servers listen", Duration::from_secs(5), || {
            ensure!(server.log_text().contains("listening"), "{}", server.log_text());
            Ok(())
        })?;
        Ok(server)
    }

    /// Starts a verified download that runs beside the scenario.
    pub fn start_download(&self, from: IpAddr, bytes: u64, rate: &str) -> Result<Download> {
        let url = format!("http://{}/bytes/{bytes}", SocketAddr::new(from, 80));
        let script = r#"set -o pipefail; curl -sS --globoff --limit-rate "$1" "$2" | "$3" verify"#;
        let server = find_program("lab-server")?.display().to_string();
        let arguments = ["-c", script, "bash", rate, &url, &server];
        let process = self.start("download", Path::new("bash"), &arguments)?;
        Ok(Download { process, bytes })
    }

    /// Fetches a small page.
    pub fn http_get(&self, url: &str, limit: Duration) -> Result<HttpReply> {
        self.curl(url, limit, &[])
    }

    /// Fetches a page and throws it away.
    pub fn download(&self, url: &str, limit: Duration) -> Result<HttpReply> {
        self.curl(url, limit, &["-o", "/dev/null"])
    }

    fn curl(&self, url: &str, limit: Duration, options: &[&str]) -> Result<HttpReply> {
        let mut command = self.command("curl");
        command.args(["-sS", "--globoff", "--max-time", &format!("{:.1}", limit.as_secs_f64())]);
        command.args(["-w", "\\n%{http_code} %{size_download} %{time_total}"]);
        command.args(options).arg(url);
        let finished = run(&mut command, limit + Duration::from_secs(2))?.success()?;
        let (body, code, bytes, seconds) = parse_curl(&finished.stdout)?;
        Ok(HttpReply { code, body, bytes, seconds })
    }

    /// Downloads `bytes` of recognisable content and checks every byte; returns the seconds.
    pub fn verified_download(&self, from: IpAddr, bytes: u64, limit: Duration) -> Result<f64> {
        let url = format!("http://{}/bytes/{bytes}", SocketAddr::new(from, 80));
        let script = r#"set -o pipefail; curl -sS --globoff --max-time "$1" "$2" | "$3" verify"#;
        let mut command = self.command("bash");
        command.args(["-c", script, "bash", &format!("{:.1}", limit.as_secs_f64()), &url]);
        command.arg(find_program("lab-server")?);
        let finished = run(&mut command, limit + Duration::from_secs(2))?.success()?;
        let got: u64 = finished.stdout.trim().parse()?;
        ensure!(got == bytes, "{got} of {bytes} bytes arrived from {url}");
        Ok(finished.elapsed.as_secs_f64())
    }

    /// What `dig +short NAME TYPE` at `server` answers, line by line.
    pub fn dig(&self, server: impl Into<IpAddr>, name: &str, kind: &str) -> Result<Vec<String>> {
        let at = format!("@{}", server.into());
        let arguments = ["+short", "+tries=2", "+time=2", &at, name, kind];
        let finished = self.run("dig", &arguments, Duration::from_secs(8))?.success()?;
        Ok(finished.stdout.lines().map(str::to_owned).collect())
    }

    /// The hops towards an address; `options` choose the kind of probe, as in `-I` or `-T`.
    pub fn traceroute(&self, to: impl Into<IpAddr>, options: &[&str]) -> Result<Vec<Hop>> {
        let mut command = self.command("traceroute");
        command.args(["-n", "-q", "1", "-w", "1", "-m", "12"]).args(options);
        command.arg(to.into().to_string());
        let finished = run(&mut command, Duration::from_secs(20))?.success()?;
        parse_traceroute(&finished.stdout)
    }

    /// Starts sending ticks to `to`, `rate` of them a second, each of 64 bytes.
    pub fn start_ticks(&self, to: &Self, target: impl Into<IpAddr>, rate: u32) -> Result<Ticks> {
        self.start_ticks_with(to, target, rate, &[])
    }

    /// Like [`Self::start_ticks`], with more options of `lab-tick send`.
    pub fn start_ticks_with(
        &self,
        to: &Self,
        target: impl Into<IpAddr>,
        rate: u32,
        options: &[&str],
    ) -> Result<Ticks> {
        let program = find_program("lab-tick")?;
        let receiver = to.start("tick-receiver", &program, &["receive"])?;
        super::clock::wait_until("the tick receiver listens", Duration::from_secs(5), || {
            ensure!(receiver.log_text().contains("listening"), "{}", receiver.log_text());
            Ok(())
        })?;
        let sender = self.start_tick_sender("send", target.into(), rate, options)?;
        Ok(Ticks { sender, receiver: Some(receiver) })
    }

    /// Starts sending ticks to a UDP echo service and measuring what comes back.
    pub fn start_echo_ticks(&self, to: impl Into<IpAddr>, rate: u32) -> Result<Ticks> {
        let sender = self.start_tick_sender("echo", to.into(), rate, &[])?;
        Ok(Ticks { sender, receiver: None })
    }

    fn start_tick_sender(
        &self,
        mode: &str,
        to: IpAddr,
        rate: u32,
        options: &[&str],
    ) -> Result<Process> {
        let port = if mode == "echo" { tick::ECHO_PORT } else { tick::PORT };
        let (to, rate) = (SocketAddr::new(to, port).to_string(), rate.to_string());
        let mut arguments = vec![mode, "--to", &to, "--rate", &rate];
        arguments.extend_from_slice(options);
        self.start(&format!("tick-{mode}"), &find_program("lab-tick")?, &arguments)
    }
}

impl Ticks {
    /// Stops the sender, lets the last ticks arrive, and returns what was seen.
    pub fn stop(mut self) -> Result<tick::Report> {
        let limit = Duration::from_secs(5);
        let mut report = last_report(&mut self.sender, limit)?;
        if let Some(mut receiver) = self.receiver.take() {
            std::thread::sleep(Duration::from_millis(500));
            report = tick::Report { sent: report.sent, ..last_report(&mut receiver, limit)? };
        }
        Ok(report)
    }
}

/// A log file that no earlier process has written to.
fn fresh_log(directory: &Path, name: &str) -> PathBuf {
    let first = directory.join(format!("{name}.log"));
    let later = (2..).map(|number| directory.join(format!("{name}-{number}.log")));
    let mut candidates = std::iter::once(first.clone()).chain(later);
    candidates.find(|path| !path.exists()).unwrap_or(first)
}

/// Each tick program ends when its input is closed; its last line is the report.
fn last_report(process: &mut Process, limit: Duration) -> Result<tick::Report> {
    process.close_input(limit)?;
    let text = process.log_text();
    let line = text.lines().last();
    let line = line.with_context(|| format!("{} printed nothing", process.name()))?;
    serde_json::from_str(line).with_context(|| format!("{} printed:\n{text}", process.name()))
}
