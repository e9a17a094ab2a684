//! `lab-server`: the Internet's servers in a laboratory. On each address: HTTP on port 80
//! (`/bytes/N`, `/whoami`), TCP and UDP echo on port 7, UDP "who am I" on port 9007, DNS on port 53.

use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use netns_tests::lab::dns::{self, Zone};
use netns_tests::lab::payload::Payload;
use netns_tests::lab::tick::ECHO_PORT;

const HTTP_PORT: u16 = 80;
const DNS_PORT: u16 = 53;
const WHOAMI_PORT: u16 = 9007;
const IDLE_LIMIT: Duration = Duration::from_secs(120);

/// Servers for laboratory hosts to talk to.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until the standard input ends.
    Serve {
        /// An address to serve at; give it several times.
        #[arg(long, required = true)]
        listen: Vec<IpAddr>,
    },
    /// Check what `/bytes/N` has sent, from standard input, and print its length.
    Verify,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Serve { listen } => serve(&listen),
        Command::Verify => {
            let length = Payload::default().verify(io::stdin().lock())?;
            writeln!(io::stdout(), "{length}")?;
            Ok(())
        }
    }
}

fn serve(addresses: &[IpAddr]) -> Result<()> {
    let zone = Zone {
        v4: addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        }),
        v6: addresses.iter().find_map(|address| match address {
            IpAddr::V6(address) => Some(*address),
            IpAddr::V4(_) => None,
        }),
    };
    let payload = Arc::new(Payload::default());
    for &address in addresses {
        let payload = Arc::clone(&payload);
        tcp_service(address, HTTP_PORT, move |stream, client| http(stream, client, &payload))?;
        tcp_service(address, ECHO_PORT, |stream, _| echo(&stream))?;
        udp_service(address, ECHO_PORT, |datagram, _| Some(datagram.to_vec()))?;
        udp_service(address, WHOAMI_PORT, |_, client| Some(format!("{client}\n").into_bytes()))?;
        udp_service(address, DNS_PORT, move |query, client| dns::reply(query, client.ip(), zone))?;
    }
    writeln!(io::stdout(), "listening")?;
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    Ok(())
}

fn tcp_service(
    address: IpAddr,
    port: u16,
    work: impl Fn(TcpStream, SocketAddr) -> io::Result<()> + Send + Sync + 'static,
) -> Result<()> {
    let place = SocketAddr::new(address, port);
    let listener = TcpListener::bind(place).with_context(|| format!("listen on {place}"))?;
    let work = Arc::new(work);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let work = Arc::clone(&work);
            thread::spawn(move || {
                // A client that goes away in the middle is no concern of ours.
                let _ = serve_client(stream, &*work);
            });
        }
    });
    Ok(())
}

fn serve_client(
    stream: TcpStream,
    work: &impl Fn(TcpStream, SocketAddr) -> io::Result<()>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE_LIMIT))?;
    stream.set_write_timeout(Some(IDLE_LIMIT))?;
    stream.set_nodelay(true)?;
    let client = stream.peer_addr()?;
    work(stream, client)
}

fn udp_service(
    address: IpAddr,
    port: u16,
    answer: impl Fn(&[u8], SocketAddr) -> Option<Vec<u8>> + Send + 'static,
) -> Result<()> {
    let place = SocketAddr::new(address, port);
    let socket = UdpSocket::bind(place).with_context(|| format!("listen on {place}"))?;
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        loop {
            // Errors are ICMP messages about earlier answers.
            let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
            if let Some(reply) = answer(&buffer[..length], client) {
                let _ = socket.send_to(&reply, client);
            }
        }
    });
    Ok(())
}

fn echo(stream: &TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 65_536];
    loop {
        let length = (&*stream).read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        (&*stream).write_all(&buffer[..length])?;
    }
}

/// One request after another, until the client closes.
fn http(stream: TcpStream, client: SocketAddr, payload: &Payload) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?).take(64 * 1024);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut header = String::new();
        while reader.read_line(&mut header)? > 0 && header.trim() != "" {
            header.clear();
        }
        reader.set_limit(64 * 1024);
        let target = request.split(' ').nth(1).unwrap_or("/");
        let mut stream = &stream;
        match target.strip_prefix("/bytes/").map(str::parse::<u64>) {
            Some(Ok(length)) => {
                head(stream, "200 OK", length)?;
                payload.write(stream, length)?;
            }
            None if target == "/whoami" => {
                let body = format!("{}\n", client.ip());
                head(stream, "200 OK", body.len() as u64)?;
                stream.write_all(body.as_bytes())?;
            }
            None if target == "/" => {
                let body = "<h1>A server of the laboratory</h1>\n";
                head(stream, "200 OK", body.len() as u64)?;
                stream.write_all(body.as_bytes())?;
            }
            None | Some(Err(_)) => head(stream, "404 Not Found", 0)?,
        }
    }
}

fn head(mut stream: &TcpStream, status: &str, length: u64) -> io::Result<()> {
    stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n").as_bytes())
}
