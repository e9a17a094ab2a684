//! The log of mappings (RFC 6888 section 4): who had which outside endpoint when, without
//! destinations.
//!
//! A thread of its own writes. Batches reach it over a bounded channel that nobody waits for; what
//! finds no room is counted, and the count is written as soon as there is room again.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use anyhow::Context as _;
use crossbeam_channel::{Receiver, Sender, bounded};
use serde::Serialize;

use super::answers::protocol;
use crate::config::{Config, NatLogSection, SyslogService};
use crate::io::underlay::unspecified;
use crate::nat::{NatEvent, Realm};
use crate::time::WallClock;

/// Events in a batch.
pub(super) const BATCH_MAX: usize = 1_024;
/// Batches that wait.
const QUEUE: usize = 64;
/// Facility `local0`, severity `informational` (RFC 5424 section 6.2.1).
const PRIORITY: u8 = 16 * 8 + 6;

/// Events of one turn.
pub(super) struct Batch {
    /// When.
    pub(super) at: WallClock,
    /// Events lost since the start.
    pub(super) lost: u64,
    /// What happened.
    pub(super) events: Vec<NatEvent>,
}

/// The end that events are handed to.
pub(super) struct NatLog {
    sender: Option<Sender<Batch>>,
    thread: Option<JoinHandle<()>>,
    lost: u64,
}

impl NatLog {
    /// Opens what the configuration names and starts the thread; none if it names nothing.
    pub(super) fn start(config: &Config) -> anyhow::Result<Option<Self>> {
        let section = &config.nat_log;
        if section.file.is_none() && section.syslog.is_none() || config.egress.is_none() {
            return Ok(None);
        }
        let writer = Writer::open(config, section)?;
        let (sender, batches) = bounded(QUEUE);
        let thread = std::thread::Builder::new()
            .name("nat log".to_owned())
            .spawn(move || writer.run(&batches))
            .context("cannot start the thread of the NAT's log")?;
        Ok(Some(Self { sender: Some(sender), thread: Some(thread), lost: 0 }))
    }

    /// Events that found no room.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    /// Hands events over without waiting.
    pub(super) fn send(&mut self, mut batch: Batch) {
        let count = batch.events.len() as u64;
        batch.lost += self.lost;
        let sent = self.sender.as_ref().is_some_and(|sender| sender.try_send(batch).is_ok());
        if !sent {
            self.lost += count;
        }
    }
}

impl Drop for NatLog {
    /// What was handed over is written.
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread of the NAT's log panicked");
        }
    }
}

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    event: &'a str,
    node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    site: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inside: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outside: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
}

enum Remote {
    Local(UnixDatagram, PathBuf),
    Udp(UdpSocket, SocketAddr),
}

struct Writer {
    node: String,
    peers: Vec<String>,
    file: Option<(PathBuf, File)>,
    syslog: Option<Remote>,
    lost: u64,
    complained: bool,
}

impl Writer {
    fn open(config: &Config, section: &NatLogSection) -> anyhow::Result<Self> {
        let file = match &section.file {
            Some(path) => {
                let file = open_file(path).with_context(|| {
                    format!("cannot write to {} (nat_log.file)", path.display())
                })?;
                Some((path.clone(), file))
            }
            None => None,
        };
        let syslog = match &section.syslog {
            Some(SyslogService::Local(path)) => {
                let socket = UnixDatagram::unbound().context("no socket for syslog")?;
                socket.set_nonblocking(true).context("no socket for syslog")?;
                Some(Remote::Local(socket, path.clone()))
            }
            Some(SyslogService::Udp(address)) => {
                let socket = UdpSocket::bind((unspecified(address.is_ipv6()), 0));
                let socket = socket.context("no socket for syslog")?;
                socket.set_nonblocking(true).context("no socket for syslog")?;
                Some(Remote::Udp(socket, *address))
            }
            None => None,
        };
        let peers = config.peers.iter().map(|peer| peer.name.clone()).collect();
        let node = config.node.name.clone();
        Ok(Self { node, peers, file, syslog, lost: 0, complained: false })
    }

    fn run(mut self, batches: &Receiver<Batch>) {
        while let Ok(batch) = batches.recv() {
            let result = self.write(&batch);
            if let Err(error) = &result
                && !self.complained
            {
                log::error!("the NAT's log is incomplete: {error:#}");
            }
            self.complained = result.is_err();
        }
    }

    fn write(&mut self, batch: &Batch) -> anyhow::Result<()> {
        let time = rfc3339(batch.at);
        let mut lines = Vec::new();
        if batch.lost > self.lost {
            lines.push(self.line(&time, None, batch.lost - self.lost)?);
            self.lost = batch.lost;
        }
        for event in &batch.events {
            lines.push(self.line(&time, Some(event), 0)?);
        }
        let appended = self.append(&lines);
        let submitted = self.submit(&time, &lines);
        appended.and(submitted)
    }

    fn line(&self, time: &str, event: Option<&NatEvent>, lost: u64) -> anyhow::Result<String> {
        let (name, mapping) = match event {
            Some(NatEvent::Created(mapping)) => ("created", Some(mapping)),
            Some(NatEvent::Ended(mapping)) => ("ended", Some(mapping)),
            None => ("lost", None),
        };
        let line = Line {
            time,
            event: name,
            node: &self.node,
            site: mapping.map(|mapping| self.site(mapping.realm)),
            protocol: mapping.map(|mapping| protocol(mapping.transport)),
            inside: mapping.map(|mapping| mapping.inside.to_string()),
            outside: mapping.map(|mapping| mapping.outside.to_string()),
            count: event.is_none().then_some(lost),
        };
        Ok(serde_json::to_string(&line)?)
    }

    fn site(&self, realm: Realm) -> &str {
        let peer = realm.peer().and_then(|peer| self.peers.get(peer.usize()));
        peer.map_or(&self.node, |name| name)
    }

    fn append(&mut self, lines: &[String]) -> anyhow::Result<()> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        // Whoever moved the file away wants a new one.
        let same = std::fs::metadata(&*path).is_ok_and(|now| {
            file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (now.dev(), now.ino()))
        });
        if !same {
            *file = open_file(path).with_context(|| path.display().to_string())?;
        }
        let mut text = lines.join("\n");
        text.push('\n');
        file.write_all(text.as_bytes()).with_context(|| path.display().to_string())
    }

    fn submit(&self, time: &str, lines: &[String]) -> anyhow::Result<()> {
        let Some(remote) = &self.syslog else { return Ok(()) };
        for line in lines {
            let sent = match remote {
                // The local service puts time and host in front itself.
                Remote::Local(socket, path) => {
                    socket.send_to(format!("<{PRIORITY}>rongate: {line}").as_bytes(), path)
                }
                Remote::Udp(socket, address) => {
                    let node = &self.node;
                    let message = format!("<{PRIORITY}>1 {time} {node} rongate - nat - {line}");
                    socket.send_to(message.as_bytes(), address)
                }
            };
            sent.context("syslog")?;
        }
        Ok(())
    }
}

fn open_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The time in UTC as RFC 3339 writes it, to a millisecond.
fn rfc3339(at: WallClock) -> String {
    let millis = at.0 / 1_000_000;
    let (seconds, rest) = (millis / 1_000, millis % 1_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the leap day is the last one.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{rest:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PeerIndex;
    use crate::nat::{Kind, MappingId, MappingView, Transport};
    use crate::time::Instant;

    #[test]
    fn times_are_written_as_calendars_have_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(WallClock(seconds * 1_000_000_000)), text);
        }
        assert_eq!(rfc3339(WallClock(1_500_000)), "1970-01-01T00:00:00.001Z");
    }

    fn event(port: u16) -> NatEvent {
        NatEvent::Created(MappingView {
            id: MappingId(1),
            transport: Transport::Udp,
            realm: PeerIndex(0).into(),
            inside: "10.1.0.5:5000".parse().unwrap(),
            outside: SocketAddr::new("192.0.2.1".parse().unwrap(), port),
            kind: Kind::Dynamic,
            created: Instant::ZERO,
            sessions: 0,
        })
    }

    fn batch(lost: u64, port: u16) -> Batch {
        Batch { at: WallClock(0), lost, events: vec![event(port)] }
    }

    #[test]
    fn a_line_names_host_endpoint_and_time_but_no_destination_and_follows_a_moved_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nat.log");
        let section = NatLogSection { file: Some(path.clone()), syslog: None };
        let (config, _) = crate::gateway::kernel::test_site(&[
            "uplinks: [{ name: isp1, interface: wan0, listen: \"192.0.2.1:4710\" }]\n",
        ]);
        let mut writer = Writer::open(&config, &section).unwrap();
        writer.write(&batch(0, 40_000)).unwrap();
        std::fs::rename(&path, dir.path().join("nat.log.1")).unwrap();
        writer.write(&batch(3, 40_001)).unwrap();
        let old = std::fs::read_to_string(dir.path().join("nat.log.1")).unwrap();
        assert_eq!(
            old,
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"event\":\"created\",\"node\":\"mit\",\
             \"site\":\"utah\",\"protocol\":\"udp\",\"inside\":\"10.1.0.5:5000\",\
             \"outside\":\"192.0.2.1:40000\"}\n"
        );
        let new = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = new.lines().collect();
        assert!(lines[0].contains("\"event\":\"lost\"") && lines[0].contains("\"count\":3"));
        assert!(lines[1].contains("192.0.2.1:40001") && lines.len() == 2, "{new}");
    }

    #[test]
    fn syslog_gets_the_same_lines_and_a_missing_one_is_an_error_not_a_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let section =
            NatLogSection { file: None, syslog: Some(SyslogService::Local(path.clone())) };
        let (config, _) = crate::gateway::kernel::test_site(&[
            "uplinks: [{ name: isp1, interface: wan0, listen: \"192.0.2.1:4710\" }]\n",
        ]);
        let mut writer = Writer::open(&config, &section).unwrap();
        assert!(writer.write(&batch(0, 40_000)).is_err());
        let service = UnixDatagram::bind(&path).unwrap();
        writer.write(&batch(0, 40_001)).unwrap();
        let mut buffer = [0; 2_048];
        let length = service.recv(&mut buffer).unwrap();
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        assert!(text.starts_with("<134>rongate: {\"time\"") && text.contains(":40001"), "{text}");
    }

    #[test]
    fn a_collector_gets_messages_of_rfc_5424() {
        let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
        collector.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let syslog = Some(SyslogService::Udp(collector.local_addr().unwrap()));
        let (config, _) = crate::gateway::kernel::test_site(&[
            "uplinks: [{ name: isp1, interface: wan0, listen: \"192.0.2.1:4710\" }]\n",
        ]);
        let mut writer = Writer::open(&config, &NatLogSection { file: None, syslog }).unwrap();
        writer.write(&batch(0, 40_002)).unwrap();
        let mut buffer = [0; 2_048];
        let length = collector.recv(&mut buffer).unwrap();
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        let head = "<134>1 1970-01-01T00:00:00.000Z mit rongate - nat - {\"time\"";
        assert!(text.starts_with(head) && text.contains(":40002"), "{text}");
    }
}
