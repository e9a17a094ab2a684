use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;

use mio::Waker;

use super::super::ask::Line;
use super::super::status::{FlowList, Status};
use super::*;
use crate::time::WallClock;

/// Answers at once, and counts the reloads.
#[derive(Default)]
struct Fake {
    reloads: usize,
}

impl Backend for Fake {
    fn ask(&mut self, request: Request) -> Answer {
        match request {
            Request::Status => Answer::Status(Box::default()),
            Request::Flows { limit, .. } => {
                Answer::Flows(FlowList { total: limit as u64, ..FlowList::default() })
            }
            Request::Explain { .. }
            | Request::Nat { .. }
            | Request::NatHosts { .. }
            | Request::NatDelete { .. }
            | Request::SetMetric { .. }
            | Request::Metrics
            | Request::Reload => Answer::Refused("no".into()),
        }
    }

    fn reload(&mut self) -> Result<ReloadReport, String> {
        self.reloads += 1;
        Err("bad file".into())
    }

    fn tend(&mut self, _notified: bool) {}
}

struct Running {
    path: PathBuf,
    http: SocketAddr,
    line: Line<ToControl>,
    thread: JoinHandle<Fake>,
    _dir: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/mit.sock");
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut listeners = Listeners::bind(&path, Some(any)).unwrap();
        let http = listeners.http.as_ref().unwrap().local_addr().unwrap();
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).unwrap());
        let (line, from_loop) = Line::new(waker);
        let clock = Clock::new(WallClock(0));
        listeners.watch(&poll).unwrap();
        let server = Server::new(poll, listeners, from_loop, clock, Fake::default());
        let thread = std::thread::spawn(move || server.run());
        Self { path, http, line, thread, _dir: dir }
    }

    fn connect(&self) -> BufReader<UnixStream> {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        BufReader::new(stream)
    }

    fn stop(self) -> Fake {
        assert!(self.line.send(ToControl::Stop));
        let fake = self.thread.join().unwrap();
        assert!(!self.path.exists(), "the socket is removed at the end");
        fake
    }
}

fn ask(connection: &mut BufReader<UnixStream>, request: &str) -> String {
    connection.get_mut().write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    connection.read_line(&mut reply).unwrap();
    reply
}

#[test]
fn requests_are_answered_in_turn_on_one_connection() {
    let server = Running::start();
    let mut connection = server.connect();
    let status = ask(&mut connection, "{\"command\":\"status\"}\n");
    let reply: Reply<Status> = serde_json::from_str(&status).unwrap();
    assert_eq!(reply, Reply::Ok(Status::default()));
    let flows = ask(&mut connection, "{\"command\":\"flows\",\"limit\":7}\n{\"command\":");
    assert!(flows.contains("\"total\":7"), "{flows}");
    let split = ask(&mut connection, "\"reload\"}\n");
    assert_eq!(split, "{\"error\":\"bad file\"}\n");
    let rubbish = ask(&mut connection, "hello\n");
    assert!(rubbish.starts_with("{\"error\":\"not understood"), "{rubbish}");
    assert_eq!(server.stop().reloads, 1);
}

#[test]
fn a_request_without_end_is_cut_off() {
    let server = Running::start();
    let mut connection = server.connect();
    let _ = connection.get_mut().write_all(&[b'x'; 20_000]);
    let mut rest = Vec::new();
    let ended = connection.read_to_end(&mut rest);
    assert!(rest.is_empty() && !matches!(ended, Err(e) if e.kind() == io::ErrorKind::WouldBlock));
    server.stop();
}

#[test]
fn connections_above_the_limit_are_closed_and_places_come_free_again() {
    let server = Running::start();
    let mut held: Vec<_> = (0..CONNECTIONS_MAX).map(|_| server.connect()).collect();
    for connection in &mut held {
        assert!(ask(connection, "{\"command\":\"status\"}\n").starts_with("{\"ok\""));
    }
    let mut reply = String::new();
    assert_eq!(server.connect().read_line(&mut reply).unwrap(), 0);
    drop(held);
    let served = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        let mut connection = server.connect();
        let _ = connection.get_mut().write_all(b"{\"command\":\"status\"}\n");
        let mut reply = String::new();
        connection.read_line(&mut reply).is_ok() && reply.starts_with("{\"ok\"")
    });
    assert!(served);
    server.stop();
}

#[test]
fn the_status_page_is_served_and_sighup_reloads() {
    let server = Running::start();
    assert!(server.line.send(ToControl::Reload));
    let mut stream = TcpStream::connect(server.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.ends_with("\r\n\r\nok\n"));
    assert_eq!(server.stop().reloads, 1);
}

#[test]
fn the_socket_is_private_and_one_in_use_is_not_taken() {
    let server = Running::start();
    let mode = fs::metadata(&server.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let error = format!("{:#}", Listeners::bind(&server.path, None).err().unwrap());
    assert!(error.contains("another gateway listens there"), "{error}");
    let path = server.path.clone();
    server.stop();

    fs::create_dir_all(path.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(Listeners::bind(&path, None).is_ok(), "a dead predecessor's socket is replaced");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    assert!(Listeners::bind(&path, None).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}
