//! The client's side of the control socket.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::de::DeserializeOwned;

use super::{Failure, Gateway, Outcome, output};
use crate::config;
use crate::gateway::status::{Reply, Request};

/// Where gateways put their sockets by default.
const FOLDER: &str = "/run/rongate";
/// A gateway answers within a turn; longer means that it hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// Ten thousand flows take some 3 MB.
const REPLY_LEN_MAX: u64 = 64 << 20;

/// An open connection to a gateway.
pub(super) struct Client {
    stream: BufReader<UnixStream>,
    socket: PathBuf,
}

impl Client {
    /// Connects to the gateway that the command line means.
    pub(super) fn connect(gateway: &Gateway) -> Result<Self, Failure> {
        let socket = socket(gateway)?;
        let stream = UnixStream::connect(&socket).map_err(|error| refusal(&socket, error))?;
        let patience = Some(PATIENCE);
        stream.set_read_timeout(patience).context("cannot set a time limit")?;
        stream.set_write_timeout(patience).context("cannot set a time limit")?;
        Ok(Self { stream: BufReader::new(stream), socket })
    }

    /// Sends a request and returns the answer as it came.
    pub(super) fn ask(&mut self, request: &Request) -> anyhow::Result<serde_json::Value> {
        let whom = || format!("the gateway at {} does not answer", self.socket.display());
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes()).with_context(whom)?;
        let mut reply = String::new();
        let read = self.stream.by_ref().take(REPLY_LEN_MAX).read_line(&mut reply);
        let len = read.map_err(plain_timeout).with_context(whom)?;
        if len == 0 {
            anyhow::bail!("{}: it closed the connection", whom());
        }
        match serde_json::from_str(&reply).context("the gateway's answer is not understood")? {
            Reply::Ok(value) => Ok(value),
            Reply::Error(words) => anyhow::bail!("{words}"),
        }
    }

    /// Sends a request and reads the answer.
    pub(super) fn ask_for<T: DeserializeOwned>(&mut self, request: &Request) -> anyhow::Result<T> {
        understand(self.ask(request)?)
    }
}

/// Asks once, and shows the answer as JSON or as people read it.
pub(super) fn show<T: DeserializeOwned>(
    gateway: &Gateway,
    request: &Request,
    json: bool,
    render: impl FnOnce(&T) -> String,
) -> Outcome {
    let value = Client::connect(gateway)?.ask(request)?;
    if json {
        return output::write_json(&value);
    }
    output::write(&render(&understand(value)?))
}

fn understand<T: DeserializeOwned>(value: serde_json::Value) -> anyhow::Result<T> {
    serde_json::from_value(value)
        .context("the gateway's answer is not understood: is it another version?")
}

/// A time limit shows itself as `WouldBlock`, whose words mislead.
fn plain_timeout(error: std::io::Error) -> std::io::Error {
    if error.kind() == ErrorKind::WouldBlock {
        return std::io::Error::new(ErrorKind::TimedOut, "nothing came within 10 s");
    }
    error
}

fn refusal(socket: &Path, error: std::io::Error) -> anyhow::Error {
    let shown = socket.display();
    let words = if error.kind() == ErrorKind::NotFound {
        format!("no gateway runs here: there is no socket {shown}")
    } else if error.kind() == ErrorKind::ConnectionRefused {
        format!("no gateway runs here: nobody listens at {shown}")
    } else if error.kind() == ErrorKind::PermissionDenied {
        format!("you may not talk to the gateway at {shown}: run this as its user (root)")
    } else {
        format!("cannot connect to {shown}: {error}")
    };
    anyhow::Error::msg(words)
}

fn socket(gateway: &Gateway) -> Result<PathBuf, Failure> {
    if let Some(socket) = &gateway.control {
        return Ok(socket.clone());
    }
    if let Some(file) = &gateway.config {
        return Ok(config::control_socket(file)?);
    }
    only_socket(Path::new(FOLDER))
}

fn only_socket(folder: &Path) -> Result<PathBuf, Failure> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut sockets: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "sock"))
        .collect();
    sockets.sort();
    match sockets.as_slice() {
        [socket] => Ok(socket.clone()),
        [] => Err(Failure::Fault(anyhow::Error::msg(format!(
            "no gateway runs here: there is no socket in {}; `--control SOCKET` or `--config \
             FILE` names another place",
            folder.display()
        )))),
        several => {
            let list: Vec<_> = several.iter().map(|path| path.display().to_string()).collect();
            let list = list.join(", ");
            Err(Failure::Usage(format!(
                "several gateways run here: choose one by `--control`: {list}"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_socket_is_found_and_several_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let words = |failure| match failure {
            Failure::Usage(words) => words,
            Failure::Fault(error) => error.to_string(),
            Failure::Config(_) | Failure::ClosedPipe => String::new(),
        };
        let none = words(only_socket(folder.path()).unwrap_err());
        assert!(none.starts_with("no gateway runs here"), "{none}");
        std::fs::write(folder.path().join("b.sock"), "").unwrap();
        std::fs::write(folder.path().join("state"), "").unwrap();
        assert_eq!(only_socket(folder.path()).unwrap(), folder.path().join("b.sock"));
        std::fs::write(folder.path().join("a.sock"), "").unwrap();
        let several = words(only_socket(folder.path()).unwrap_err());
        assert!(several.ends_with("b.sock") && several.contains("a.sock, "), "{several}");
    }
}
