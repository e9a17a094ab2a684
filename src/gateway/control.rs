//! The control thread: control socket, status page, and care for the host's changes.
//!
//! It answers from what the event loop tells it; the loop never waits for it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use crossbeam_channel::Receiver;
use mio::event::Source as _;
use mio::net::{TcpListener, UnixListener};
use mio::{Events, Interest, Poll, Token};
use serde::Serialize;

use super::ask::{Answer, ToControl};
use super::connection::{Connection, Protocol, Response, Stream};
use super::http;
use super::status::{ReloadReport, Reply, Request};
use crate::io::clock::Clock;
use crate::io::files;

/// Connections of both kinds at a time; more are closed at once.
const CONNECTIONS_MAX: usize = 32;

/// Wakes the thread when the loop has sent something.
pub(super) const WAKER: Token = Token(0);
const CONTROL: Token = Token(1);
const HTTP: Token = Token(2);
/// The host's notifications.
pub(super) const MONITOR: Token = Token(3);
const FIRST_CONNECTION: usize = 16;

/// How often the thread looks around when nothing happens.
const TICK: Duration = Duration::from_secs(1);

/// What the control thread asks others for. The gateway's is the event loop and the configuration
/// file; tests have their own.
pub(super) trait Backend {
    /// Answers a question about the node.
    fn ask(&mut self, request: Request) -> Answer;
    /// Reads the configuration again.
    fn reload(&mut self) -> Result<ReloadReport, String>;
    /// Looks after the host: called about once a second, and with `notified` when the host told
    /// that it changed.
    fn tend(&mut self, notified: bool);
}

/// The listening sockets, bound but not yet served.
pub(super) struct Listeners {
    control: UnixListener,
    path: PathBuf,
    http: Option<TcpListener>,
}

impl Listeners {
    /// Binds both. A socket that a dead predecessor left is replaced, one in use is not.
    pub(super) fn bind(path: &Path, http: Option<std::net::SocketAddr>) -> anyhow::Result<Self> {
        let control = bind_control(path)
            .with_context(|| format!("cannot listen at {} (control.socket)", path.display()))?;
        let http = match http {
            Some(address) => Some(TcpListener::bind(address).map_err(|error| {
                let why = match error.raw_os_error() {
                    Some(libc::EADDRINUSE) => "the port is taken".to_owned(),
                    Some(libc::EADDRNOTAVAIL) => "this host lacks the address".to_owned(),
                    _ => error.to_string(),
                };
                anyhow::anyhow!("the status page cannot listen at {address} (http.listen): {why}")
            })?),
            None => None,
        };
        Ok(Self { control, path: path.to_owned(), http })
    }

    /// Has `poll` watch them.
    pub(super) fn watch(&mut self, poll: &Poll) -> io::Result<()> {
        poll.registry().register(&mut self.control, CONTROL, Interest::READABLE)?;
        if let Some(http) = &mut self.http {
            poll.registry().register(http, HTTP, Interest::READABLE)?;
        }
        Ok(())
    }
}

fn bind_control(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        files::create_dir(dir)?;
    }
    if let Ok(metadata) = fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            bail!("something that is no socket is in the way");
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            bail!("another gateway listens there");
        }
        fs::remove_file(path)?;
    }
    // Nobody may connect between the socket's birth and its mode.
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    nix::sys::stat::umask(before);
    let listener = listener?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The thread's state.
pub(super) struct Server<B> {
    poll: Poll,
    listeners: Listeners,
    connections: Vec<Option<Connection>>,
    from_loop: Receiver<ToControl>,
    clock: Clock,
    backend: B,
}

impl<B: Backend> Server<B> {
    /// A server for listeners that `poll` watches; `poll` has the waker too.
    pub(super) fn new(
        poll: Poll,
        listeners: Listeners,
        from_loop: Receiver<ToControl>,
        clock: Clock,
        backend: B,
    ) -> Self {
        let connections = (0..CONNECTIONS_MAX).map(|_| None).collect();
        Self { poll, listeners, connections, from_loop, clock, backend }
    }

    /// Serves until told to stop; then gives back what it asked.
    pub(super) fn run(mut self) -> B {
        let mut events = Events::with_capacity(64);
        loop {
            if let Err(error) = self.poll.poll(&mut events, Some(TICK))
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::error!("the control thread cannot wait: {error}");
                break;
            }
            let mut notified = false;
            for event in &events {
                match event.token() {
                    WAKER => {}
                    MONITOR => notified = true,
                    CONTROL => self.accept_control(),
                    HTTP => self.accept_http(),
                    Token(token) => self.serve(token - FIRST_CONNECTION),
                }
            }
            if self.obey() {
                break;
            }
            self.backend.tend(notified);
            self.expire();
        }
        // A successor may have bound its own by now only if ours was removed by hand.
        let _ = fs::remove_file(&self.listeners.path);
        self.backend
    }

    /// True when it is time to end.
    fn obey(&mut self) -> bool {
        while let Ok(message) = self.from_loop.try_recv() {
            match message {
                ToControl::Stop => return true,
                ToControl::Reload => match self.backend.reload() {
                    Ok(report) if report.applied.is_empty() => {
                        log::info!("the configuration did not change");
                    }
                    Ok(report) => log::info!("reloaded: {}", report.applied.join(", ")),
                    Err(why) => log::error!("not reloaded: {why}"),
                },
            }
        }
        false
    }

    fn accept_control(&mut self) {
        while let Some((stream, _)) = accepted(self.listeners.control.accept()) {
            self.admit(Box::new(stream), Protocol::Control);
        }
    }

    fn accept_http(&mut self) {
        while let Some((stream, _)) =
            self.listeners.http.as_ref().and_then(|listener| accepted(listener.accept()))
        {
            self.admit(Box::new(stream), Protocol::Http);
        }
    }

    fn admit(&mut self, mut stream: Box<dyn Stream + Send>, protocol: Protocol) {
        let Some(slot) = self.connections.iter().position(Option::is_none) else {
            log::debug!("too many connections");
            return;
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = Token(FIRST_CONNECTION + slot);
        if stream.register(self.poll.registry(), token, interest).is_ok() {
            self.connections[slot] = Some(Connection::new(stream, protocol, self.clock.now()));
            self.serve(slot);
        }
    }

    fn serve(&mut self, slot: usize) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        let now = self.clock.now();
        let backend = &mut self.backend;
        let protocol = connection.protocol;
        let alive = connection.drive(now, |input| match protocol {
            Protocol::Control => control_line(backend, input),
            Protocol::Http => http::request(input, || backend.ask(Request::Status)),
        });
        if !alive {
            self.close(slot);
        }
    }

    fn expire(&mut self) {
        let now = self.clock.now();
        for slot in 0..self.connections.len() {
            if self.connections[slot].as_ref().is_some_and(|c| c.deadline <= now) {
                self.close(slot);
            }
        }
    }

    fn close(&mut self, slot: usize) {
        if let Some(mut connection) = self.connections[slot].take() {
            let _ = connection.stream.deregister(self.poll.registry());
        }
    }
}

/// A connection, or none: those that broke while they waited are skipped with the rest, which is
/// tried again with the next event.
fn accepted<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            if error.kind() != io::ErrorKind::WouldBlock {
                log::debug!("accept: {error}");
            }
            None
        }
    }
}

/// Answers the first complete line of `input`.
fn control_line(backend: &mut impl Backend, input: &[u8]) -> Option<(usize, Response)> {
    let end = input.iter().position(|&byte| byte == b'\n')?;
    let bytes = match serde_json::from_slice::<Request>(&input[..end]) {
        Ok(Request::Reload) => match backend.reload() {
            Ok(report) => line(&Reply::Ok(report)),
            Err(why) => line(&Reply::<()>::Error(why)),
        },
        Ok(request) => match backend.ask(request) {
            Answer::Status(status) => line(&Reply::Ok(status)),
            Answer::Flows(flows) => line(&Reply::Ok(flows)),
            Answer::NatMappings(list) => line(&Reply::Ok(list)),
            Answer::NatHosts(list) => line(&Reply::Ok(list)),
            Answer::NatMapping(mapping) => line(&Reply::Ok(mapping)),
            Answer::Explanation(explanation) => line(&Reply::Ok(explanation)),
            Answer::AppValues(list) => line(&Reply::Ok(list)),
            Answer::Refused(why) => line(&Reply::<()>::Error(why)),
        },
        Err(error) => line(&Reply::<()>::Error(format!("not understood: {error}"))),
    };
    Some((end + 1, Response { bytes, last: false }))
}

/// What the control socket, or with `http` the status page, answers to the first complete request of
/// `input` when there is no gateway to ask, and how much of the input that took: for those who send
/// it rubbish on purpose.
pub fn answer_in_vain(input: &[u8], http: bool) -> Option<(usize, Vec<u8>)> {
    let (used, response) = if http {
        http::request(input, || Nobody.ask(Request::Status))?
    } else {
        control_line(&mut Nobody, input)?
    };
    Some((used, response.bytes))
}

/// Stands for a gateway that says nothing of itself.
struct Nobody;

impl Backend for Nobody {
    fn ask(&mut self, request: Request) -> Answer {
        match request {
            Request::Status => Answer::Status(Box::default()),
            Request::Flows { .. }
            | Request::Explain { .. }
            | Request::Nat { .. }
            | Request::NatHosts { .. }
            | Request::NatDelete { .. }
            | Request::SetMetric { .. }
            | Request::Metrics
            | Request::Reload => Answer::Refused("nobody is there".to_owned()),
        }
    }

    fn reload(&mut self) -> Result<ReloadReport, String> {
        Err("nobody is there".to_owned())
    }

    fn tend(&mut self, _notified: bool) {}
}

fn line<T: Serialize>(reply: &Reply<T>) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(reply).unwrap_or_else(|error| {
        format!(r#"{{"error":"the answer has no JSON form: {error}"}}"#).into_bytes()
    });
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
