//! One connection of the control socket or the status page, with bounds on everything.

use std::io::{self, Read, Write};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};

use super::status::REQUEST_LEN_MAX;
use crate::time::Instant;

/// The longest head of an HTTP request.
const HTTP_HEAD_MAX: usize = 8_192;

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// JSON lines, any number of them.
    Control,
    /// HTTP/1, one request.
    Http,
}

impl Protocol {
    /// How long a peer may be silent, or not take its answer.
    const fn patience(self) -> Duration {
        match self {
            Self::Control => Duration::from_secs(120),
            Self::Http => Duration::from_secs(10),
        }
    }

    const fn input_max(self) -> usize {
        match self {
            Self::Control => REQUEST_LEN_MAX,
            Self::Http => HTTP_HEAD_MAX,
        }
    }
}

/// Either kind of stream.
pub(super) trait Stream: Read + Write + Source {}

impl Stream for TcpStream {}
impl Stream for UnixStream {}

/// A connection with its buffers.
pub(super) struct Connection {
    /// The stream.
    pub(super) stream: Box<dyn Stream + Send>,
    /// What is spoken.
    pub(super) protocol: Protocol,
    /// When it is given up.
    pub(super) deadline: Instant,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    /// Close once the output is written.
    closing: bool,
}

/// What the server has to say to a complete request.
pub(super) struct Response {
    /// The bytes.
    pub(super) bytes: Vec<u8>,
    /// The connection ends with it.
    pub(super) last: bool,
}

impl Connection {
    /// A new connection.
    pub(super) fn new(stream: Box<dyn Stream + Send>, protocol: Protocol, now: Instant) -> Self {
        Self {
            stream,
            protocol,
            deadline: now + protocol.patience(),
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            closing: false,
        }
    }

    /// Reads, has complete requests answered by `answer`, and writes, as far as the stream allows.
    /// False when the connection is at its end.
    ///
    /// `answer` gets the input so far; it says how much of it a complete request took, and the
    /// response; `None` while the request is not complete.
    pub(super) fn drive(
        &mut self,
        now: Instant,
        mut answer: impl FnMut(&[u8]) -> Option<(usize, Response)>,
    ) -> bool {
        loop {
            if !self.flush() {
                return false;
            }
            // One answer at a time: who does not read gets no more.
            if !self.output.is_empty() {
                return true;
            }
            if self.closing {
                return false;
            }
            if let Some((used, response)) = answer(&self.input) {
                self.input.drain(..used);
                self.output = response.bytes;
                self.written = 0;
                self.closing = response.last;
                self.deadline = now + self.protocol.patience();
                continue;
            }
            if self.input.len() >= self.protocol.input_max() {
                return false;
            }
            match self.read() {
                Ok(0) => return false,
                Ok(_) => self.deadline = now + self.protocol.patience(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 2_048];
        let room = self.protocol.input_max() - self.input.len();
        let limit = room.min(chunk.len());
        loop {
            match self.stream.read(&mut chunk[..limit]) {
                Ok(len) => {
                    self.input.extend_from_slice(&chunk[..len]);
                    return Ok(len);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what can be written. False when the other end is gone.
    fn flush(&mut self) -> bool {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return false,
                Ok(len) => self.written += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.output.clear();
        self.written = 0;
        true
    }
}
