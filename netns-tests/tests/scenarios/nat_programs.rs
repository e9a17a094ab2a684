//! Programs that people use, through the NAT of a remote exit.
//!
//! ```text
//!   mit-h1 ┬ mit ═══ 10 ms ═══ utah ═══ 10 ms ═══ internet ─ server 203.0.113.80, .81
//!   mit-h2 ┘        (overlay)  exit    (underlay)
//! ```

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use netns_tests::lab::process::run;
use netns_tests::lab::tools::{find_tool, with_libraries};
use netns_tests::lab::{Host, Scenario, Site, Topology, wait_until};

use crate::common::{SECOND, start};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new("nat_programs::transfers", transfers),
    Scenario::new("nat_programs::sessions", sessions),
    Scenario::new("nat_programs::bittorrent", bittorrent),
];

const SERVER: &str = "203.0.113.80";
const OUTSIDE: &str = "192.0.2.17";

/// Two hosts that use a remote exit.
pub(crate) fn topology() -> Topology {
    Topology::new([
        Site::new("mit").hosts(2).config("{internet: {via: [utah]}}"),
        Site::new("utah").config("{egress: {enabled: true, for: [mit]}}"),
    ])
    .internet(2)
    .all_links("{delay: 10ms}")
}

fn transfers() -> Result<()> {
    let lab = start(topology())?;
    let (host, server) = (lab.host("mit", 1)?, lab.server()?);
    for options in [&["-P", "4"][..], &["-R"], &["-u", "-b", "20M", "-l", "1200"]] {
        let report = host.iperf(SERVER.parse::<std::net::IpAddr>()?, 1, options)?;
        ensure!(report.bits_per_second > 5e6, "{options:?}: {report:?}");
        ensure!(report.loss < 0.05, "{options:?}: {report:?}");
    }
    http2(&host, &server)?;
    http3(&host, &server)?;
    mtr(&host)
}

/// HTTP/2 by many requests on one connection.
fn http2(host: &Host, server: &Host) -> Result<()> {
    let file = server.file("nginx.conf");
    let scratch = server.file("nginx");
    fs::create_dir_all(&scratch)?;
    let (certificate, key) = certificate(server)?;
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {}/{name};\n", scratch.display()))
        .concat();
    let config = format!(
        "daemon off; pid {0}/pid; error_log stderr; worker_processes 1; user root;\nevents {{}}\n\
         http {{ access_log off; {paths} server {{ listen {SERVER}:443 ssl http2;\n\
         ssl_certificate {certificate}; ssl_certificate_key {key};\n\
         location / {{ return 200 \"$remote_addr $server_protocol\\n\"; }} }} }}\n",
        scratch.display(),
    );
    fs::write(&file, config)?;
    let (file, scratch) = (file.display().to_string(), scratch.display().to_string());
    let _nginx = server.start_tool("nginx", &["-c", &file, "-p", &scratch])?;
    let url = format!("https://{SERVER}/[1-20]");
    wait_until("an answer by HTTP/2", 5 * SECOND, || {
        let arguments = ["-sS", "-m", "4", "-k", "--http2", &url];
        let page = host.run("curl", &arguments, 6 * SECOND)?.success()?;
        let wanted = format!("{OUTSIDE} HTTP/2.0");
        let count = page.stdout.lines().filter(|line| *line == wanted).count();
        ensure!(count == 20, "{page:?}");
        Ok(())
    })
}

/// The server's certificate and its key.
fn certificate(server: &Host) -> Result<(String, String)> {
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| server.file(name));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    openssl.args(["-nodes", "-subj", "/CN=server.lab", "-days", "2", "-keyout"]).arg(&key);
    run(openssl.arg("-out").arg(&certificate), 5 * SECOND)?.success()?;
    Ok((certificate.display().to_string(), key.display().to_string()))
}

/// HTTP/3: several files by one QUIC connection.
fn http3(host: &Host, server: &Host) -> Result<()> {
    let (certificate, key) = certificate(server)?;
    let (folder, got) = (server.file("http3"), host.file("http3-got"));
    fs::create_dir_all(&folder)?;
    fs::create_dir_all(&got)?;
    let contents = [1_000, 300_000, 1_000_000].map(pattern);
    let mut urls = Vec::new();
    for (name, content) in ["a", "b", "c"].iter().zip(&contents) {
        fs::write(folder.join(name), content)?;
        urls.push(format!("https://{SERVER}/{name}"));
    }
    let folder = folder.display().to_string();
    let arguments = ["-q", "-d", &folder, SERVER, "443", &key, &certificate];
    let _server = server.start_tool("gtlsserver", &arguments)?;
    let download = format!("--download={}", got.display());
    let mut arguments = vec!["-q", "--exit-on-all-streams-close", &download, SERVER, "443"];
    arguments.extend(urls.iter().map(String::as_str));
    wait_until("files by HTTP/3", 10 * SECOND, || {
        host.run_tool("gtlsclient", &arguments, 8 * SECOND)?.success()?;
        for (name, content) in ["a", "b", "c"].iter().zip(&contents) {
            ensure!(fs::read(got.join(name))? == *content, "file {name} is damaged");
        }
        Ok(())
    })
}

/// Every hop behind the exit answers `mtr`, whatever it probes with.
fn mtr(host: &Host) -> Result<()> {
    for kind in [&[][..], &["--udp"], &["--tcp", "-P", "80"]] {
        let mut command = host.command(&find_tool("mtr")?.display().to_string());
        command.env("MTR_PACKET", find_tool("mtr-packet")?);
        command.args(["-n", "--report", "-c", "3", "-i", "0.1", "-G", "1"]).args(kind).arg(SERVER);
        let report = run(with_libraries(&mut command), 20 * SECOND)?.success()?;
        let hops: Vec<Vec<&str>> = report
            .stdout
            .lines()
            .filter(|line| line.contains(".|--"))
            .map(|line| line.split_whitespace().skip(1).collect())
            .collect();
        for wanted in ["203.0.113.1", SERVER] {
            let lossless = |hop: &&Vec<&str>| hop[0] == wanted && hop[1] == "0.0%";
            ensure!(hops.iter().any(|hop| lossless(&hop)), "{kind:?}: {report:?}");
        }
    }
    Ok(())
}

fn sessions() -> Result<()> {
    let lab = start(topology())?;
    let (host, server) = (lab.host("mit", 1)?, lab.server()?);
    ssh(&host, &server)?;
    ftp(&host, &server, &[])?;
    sip(&host, &server)?;
    wireguard(&host, &server)
}

fn ssh(host: &Host, server: &Host) -> Result<()> {
    let [host_key, key, home] = ["dropbear.key", "id", "home"].map(|name| host.file(name));
    let [host_key, key] = [host_key, key].map(|path| path.display().to_string());
    server.run_tool("dropbearkey", &["-t", "ed25519", "-f", &host_key], 5 * SECOND)?.success()?;
    host.run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &key], 5 * SECOND)?
        .success()?;
    let folder = home.join(".ssh");
    fs::create_dir_all(&folder)?;
    fs::copy(format!("{key}.pub"), folder.join("authorized_keys"))?;
    lend_home(&home)?;
    let listen = format!("{SERVER}:22");
    let arguments = ["-F", "-E", "-s", "-r", &host_key, "-p", &listen];
    let _daemon = server.start_tool("dropbear", &arguments)?;
    let script = "echo $SSH_CONNECTION; seq 200000";
    let options =
        ["-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oBatchMode=yes"];
    let login = format!("root@{SERVER}");
    let mut arguments = vec!["-F", "none", "-i", &key];
    arguments.extend(options);
    arguments.extend([login.as_str(), script]);
    wait_until("a login by ssh", 10 * SECOND, || {
        let session = host.run("ssh", &arguments, 8 * SECOND)?.success()?;
        ensure!(session.stdout.starts_with(OUTSIDE), "{session:?}");
        let numbers = session.stdout.lines().skip(1);
        let in_order = numbers.zip(1_u32..).filter(|(line, n)| *line == n.to_string()).count();
        ensure!(in_order == 200_000, "{in_order} of 200,000 lines came");
        Ok(())
    })
}

/// The superuser of the laboratory has a home of its own.
fn lend_home(home: &Path) -> Result<()> {
    use nix::mount::{MsFlags, mount};
    let users = fs::read_to_string("/etc/passwd")?;
    let changed: String = users
        .lines()
        .map(|line| match line.strip_prefix("root:") {
            Some(_) => format!("root:x:0:0:root:{}:/bin/sh\n", home.display()),
            None => format!("{line}\n"),
        })
        .collect();
    let file = home.join("passwd");
    fs::write(&file, changed)?;
    mount(Some(&file), "/etc/passwd", None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .context("lend the laboratory a home")
}

/// Some bytes in which nothing repeats soon.
fn pattern(length: u32) -> Vec<u8> {
    (0..length).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect()
}

/// A file there and back. In passive mode both connections are the client's; with `more` arguments of
/// curl the server may be the one who calls.
pub(crate) fn ftp(host: &Host, server: &Host, more: &[&str]) -> Result<()> {
    let folder = server.file("ftp");
    fs::create_dir_all(&folder)?;
    let content = pattern(500_000);
    fs::write(folder.join("file"), &content)?;
    let folder = folder.display().to_string();
    let arguments = ["-m", "pyftpdlib", "-i", SERVER, "-p", "21", "-w", "-d", &folder];
    let _daemon = server.start_python("ftp", &arguments)?;
    let got = host.file("got");
    let got_name = got.display().to_string();
    let url = format!("ftp://{SERVER}/file");
    let curl = |last: &[&str]| {
        let arguments = [&["-sS", "-m", "8"], more, last].concat();
        host.run("curl", &arguments, 9 * SECOND)?.success()
    };
    wait_until("a file by FTP", 10 * SECOND, || {
        curl(&["-o", &got_name, &url])?;
        ensure!(fs::read(&got)? == content, "the file is damaged");
        Ok(())
    })?;
    curl(&["-T", &got_name, &format!("ftp://{SERVER}/copy")])?;
    ensure!(fs::read(Path::new(&folder).join("copy"))? == content, "the copy is damaged");
    Ok(())
}

/// Calls, each with a dialogue over UDP.
fn sip(host: &Host, server: &Host) -> Result<()> {
    let uas = ["-sn", "uas", "-i", SERVER, "-p", "5060", "-nostdin"];
    let _uas = server.start_tool("sipp", &uas)?;
    let from = host.v4.to_string();
    let (to, log) = (format!("{SERVER}:5060"), host.file("sip").display().to_string());
    let mut uac = vec!["-sn", "uac", "-i", &from, "-p", "5062", "-m", "20", "-r", "20"];
    uac.extend(["-d", "200", "-nostdin", "-trace_err", "-error_file", &log, &to]);
    let calls = host.run_tool("sipp", &uac, 20 * SECOND)?;
    ensure!(calls.status.success(), "{}", calls.stdout);
    Ok(())
}

/// A tunnel in user space from behind the NAT, which stays open for the other end.
fn wireguard(host: &Host, server: &Host) -> Result<()> {
    let pair = |who: &str| -> Result<(String, String)> {
        let secret = host.run("wg", &["genkey"], SECOND)?.success()?.stdout;
        let file = host.file(&format!("{who}.wg"));
        fs::write(&file, &secret)?;
        let script = format!("wg pubkey < {}", file.display());
        let public = run(Command::new("sh").args(["-c", &script]), SECOND)?.success()?.stdout;
        Ok((file.display().to_string(), public.trim().to_owned()))
    };
    let ((secret_a, public_a), (secret_b, public_b)) = (pair("a")?, pair("b")?);
    // They share a directory of sockets, so that their interfaces must have different names.
    let up = |who: &Host, name: &str, address: &str| -> Result<_> {
        let process = who.start_tool("wireguard-go", &["-f", name])?;
        wait_until("the interface of wireguard-go", 5 * SECOND, || {
            who.run("wg", &["show", name], SECOND)?.success()?;
            let interface = format!("address replace {address}/24 dev {name}\nlink set {name} up");
            who.netns().ip(&interface)
        })?;
        Ok(process)
    };
    let _processes = [up(host, "wg-a", "172.31.0.1")?, up(server, "wg-b", "172.31.0.2")?];
    let listen = ["set", "wg-b", "listen-port", "51820", "private-key", &secret_b];
    let peer = ["peer", &public_a, "allowed-ips", "172.31.0.1/32"];
    server.run("wg", &[&listen[..], &peer].concat(), SECOND)?.success()?;
    let call = ["set", "wg-a", "private-key", &secret_a, "peer", &public_b];
    let to = format!("{SERVER}:51820");
    let peer = ["allowed-ips", "172.31.0.2/32", "endpoint", &to];
    host.run("wg", &[&call[..], &peer].concat(), SECOND)?.success()?;
    let (inner_a, inner_b) =
        ("172.31.0.1".parse::<std::net::IpAddr>()?, "172.31.0.2".parse::<std::net::IpAddr>()?);
    wait_until("WireGuard through the NAT", 8 * SECOND, || host.expect_ping(inner_b).map(|_| ()))?;
    server.expect_ping(inner_a)?;
    let seen = server.run("wg", &["show", "wg-b", "endpoints"], SECOND)?.success()?.stdout;
    ensure!(seen.contains(OUTSIDE), "{seen}");
    Ok(())
}

/// A swarm: the tracker and the seed are in the Internet, two hosts behind the NAT fetch.
fn bittorrent() -> Result<()> {
    let lab = start(topology())?;
    let server = lab.server()?;
    let seed = server.file("seed");
    fs::create_dir_all(&seed)?;
    let content: Vec<u8> = (0..1_000_000_u32).map(|n| (n.wrapping_mul(n) >> 9) as u8).collect();
    fs::write(seed.join("film"), &content)?;
    let torrent = server.file("film.torrent");
    fs::write(&torrent, torrent_of(&seed.join("film"), content.len())?)?;
    let tracker = server.file("tracker.py");
    fs::write(&tracker, TRACKER)?;
    let _tracker = server.start_python("tracker", &[&tracker.display().to_string(), SERVER])?;
    let torrent = torrent.display().to_string();
    let client = |who: &Host, folder: &Path, more: &[&str]| -> Result<_> {
        let folder = folder.display().to_string();
        let mut arguments = vec!["--enable-dht=false", "--bt-tracker-interval=1", "--dir", &folder];
        arguments.extend(["--no-conf=true", "--listen-port=6881", "--console-log-level=notice"]);
        arguments.extend(["--file-allocation=none", "--disable-ipv6=true"]);
        arguments.extend_from_slice(more);
        arguments.push(&torrent);
        who.start_tool("aria2c", &arguments)
    };
    let _seed = client(&server, &seed, &["--seed-ratio=0.0", "--check-integrity=true"])?;
    let mut fetching = Vec::new();
    for number in [1, 2] {
        let host = lab.host("mit", number)?;
        let folder = host.file(&format!("fetch{number}"));
        fetching.push((client(&host, &folder, &["--seed-time=0"])?, folder));
    }
    for (mut process, folder) in fetching {
        let end = process.wait(30 * SECOND)?;
        ensure!(end.success(), "{}", process.log_text());
        ensure!(fs::read(folder.join("film"))? == content, "{} is damaged", folder.display());
    }
    Ok(())
}

/// Tells everyone who announces himself of all others.
const TRACKER: &str = r#"
import http.server, socket, sys, urllib.parse
peers = set()

class Tracker(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query, encoding="latin-1")
        own = socket.inet_aton(self.client_address[0]) + int(query["port"][0]).to_bytes(2, "big")
        peers.add(own)
        others = b"".join(peers - {own})
        body = b"d8:intervali1e5:peers%d:%se" % (len(others), others)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer((sys.argv[1], 6969), Tracker).serve_forever()
"#;

/// A torrent of one piece.
fn torrent_of(file: &Path, length: usize) -> Result<Vec<u8>> {
    let sum = run(Command::new("sha1sum").arg(file), 5 * SECOND)?.success()?.stdout;
    let hex = sum.get(..40).context("no checksum")?;
    let bytes: Result<Vec<u8>, _> =
        (0..40).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16)).collect();
    let tracker = format!("http://{SERVER}:6969/announce");
    let head = format!("d8:announce{}:{tracker}4:infod6:lengthi{length}e", tracker.len());
    let tail = format!("4:name4:film12:piece lengthi{}e6:pieces20:", 1 << 20);
    Ok([head.as_bytes(), tail.as_bytes(), &bytes?, b"ee"].concat())
}
