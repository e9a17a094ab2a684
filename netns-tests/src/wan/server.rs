//! The emulator's end of the control socket: a few clients, a line each, never blocking.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::control::{Reply, Request};

/// Most clients at a time; more are closed at once.
pub(crate) const CLIENTS_MAX: usize = 16;
/// Longest request.
const LINE_MAX: usize = 64 << 10;

struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// Listens and keeps the clients in numbered places.
pub(crate) struct Server {
    listener: UnixListener,
    path: PathBuf,
    clients: [Option<Client>; CLIENTS_MAX],
}

impl Server {
    /// Listens at `path`, replacing a dead socket there.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let place = || format!("cannot listen at {}", path.display());
        if UnixStream::connect(path).is_err() {
            drop(fs::remove_file(path));
        }
        let listener = UnixListener::bind(path).with_context(place)?;
        listener.set_nonblocking(true).with_context(place)?;
        Ok(Self { listener, path: path.into(), clients: Default::default() })
    }

    pub(crate) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Takes a new client; its place and descriptor are to be watched.
    pub(crate) fn accept(&mut self) -> Option<(usize, BorrowedFd<'_>)> {
        let (stream, _) = self.listener.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        let place = self.clients.iter().position(Option::is_none)?;
        let client = Client { stream, input: Vec::new(), output: Vec::new() };
        let client = self.clients[place].insert(client);
        Some((place, client.stream.as_fd()))
    }

    /// Reads what a client sent and answers whole lines. The client is closed at its end of file,
    /// on an error, and if it does not read its answers.
    pub(crate) fn serve(&mut self, place: usize, answer: &mut dyn FnMut(Request) -> Reply) {
        let Some(client) = self.clients[place].as_mut() else { return };
        if !client.serve(answer) {
            self.clients[place] = None;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

impl Client {
    fn serve(&mut self, answer: &mut dyn FnMut(Request) -> Reply) -> bool {
        let mut open = true;
        let mut buffer = [0; 4096];
        while self.input.len() <= LINE_MAX {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    open = false;
                    break;
                }
                Ok(n) => self.input.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let reply = match serde_yaml::from_slice::<Request>(&line) {
                Ok(request) => answer(request),
                Err(error) => Reply::refused(error),
            };
            self.output.extend(serde_json::to_vec(&reply).unwrap_or_default());
            self.output.push(b'\n');
        }
        let fits = self.input.len() <= LINE_MAX;
        let sent = self.stream.write(&self.output);
        // An answer that the socket's buffer cannot take would need a write queue; it is larger
        // than any report.
        open && fits && sent.is_ok_and(|n| n == std::mem::take(&mut self.output).len())
    }
}
