//! The status page: GET only, one request for each connection.

mod metrics;
mod page;

use std::net::IpAddr;

use super::ask::Answer;
use super::connection::Response;
use super::status::Status;

const HEADERS_MAX: usize = 64;

/// Answers the request at the start of `input`; `None` while it is not complete.
///
/// `status` is asked only when the path needs it. A request that names a host which is neither an
/// address nor `localhost` is refused, so that no web page can read ours by pointing its own name
/// here.
pub(super) fn request(input: &[u8], status: impl FnOnce() -> Answer) -> Option<(usize, Response)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let used = match request.parse(input) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) => return None,
        Err(_) => return Some((input.len(), plain("400 Bad Request", "bad request\n"))),
    };
    let host = request
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("host"))
        .and_then(|header| std::str::from_utf8(header.value).ok());
    let response = match (request.method, request.path) {
        _ if !host.is_none_or(is_literal) => {
            plain("403 Forbidden", "ask by address, or as localhost\n")
        }
        (Some("GET" | "HEAD"), Some(path)) => {
            let path = path.split(['?', '#']).next().unwrap_or(path);
            let mut response = get(path, status);
            if request.method == Some("HEAD") {
                drop_body(&mut response.bytes);
            }
            response
        }
        _ => plain("405 Method Not Allowed", "only GET\n"),
    };
    Some((used, response))
}

fn get(path: &str, status: impl FnOnce() -> Answer) -> Response {
    type Render = fn(&Status) -> (&'static str, String);
    let render: Render = match path {
        "/" => |status| ("text/html; charset=utf-8", page::render(status)),
        "/status" => |status| {
            ("application/json", serde_json::to_string_pretty(status).unwrap_or_default() + "\n")
        },
        "/metrics" => |status| (metrics::CONTENT_TYPE, metrics::render(status)),
        "/healthz" => |_| ("text/plain; charset=utf-8", "ok\n".to_owned()),
        _ => return plain("404 Not Found", "try /, /status, /metrics or /healthz\n"),
    };
    match status() {
        Answer::Status(status) => {
            let (kind, body) = render(&status);
            response("200 OK", kind, &body)
        }
        Answer::Refused(why) => plain("503 Service Unavailable", &(why + "\n")),
        Answer::Flows(_)
        | Answer::NatMappings(_)
        | Answer::NatHosts(_)
        | Answer::NatMapping(_)
        | Answer::Explanation(_)
        | Answer::AppValues(_) => plain("500 Internal Server Error", "unexpected answer\n"),
    }
}

fn plain(code: &str, body: &str) -> Response {
    response(code, "text/plain; charset=utf-8", body)
}

fn response(code: &str, kind: &str, body: &str) -> Response {
    let head = format!(
        "HTTP/1.1 {code}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    Response { bytes: (head + body).into_bytes(), last: true }
}

fn drop_body(bytes: &mut Vec<u8>) {
    if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        bytes.truncate(end + 4);
    }
}

/// True for an IP address or `localhost`, with or without a port.
fn is_literal(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str) -> Option<String> {
        let status = Status {
            node: super::super::status::NodeStatus { name: "mit".into(), ..Default::default() },
            ..Default::default()
        };
        let (used, response) = request(text.as_bytes(), || Answer::Status(Box::new(status)))?;
        assert!(used <= text.len() && response.last);
        Some(String::from_utf8(response.bytes).unwrap())
    }

    #[test]
    fn an_incomplete_request_waits_and_a_broken_one_is_refused() {
        assert_eq!(ask("GET /status HTTP/1.1\r\nHost: x"), None);
        assert!(ask("\u{1}\u{2}\u{3} rubbish\r\n\r\n").unwrap().starts_with("HTTP/1.1 400"));
    }

    #[test]
    fn pages_are_served_by_path() {
        let json = ask("GET /status?x HTTP/1.1\r\nHost: 127.0.0.1:9477\r\n\r\n").unwrap();
        assert!(json.starts_with("HTTP/1.1 200 OK") && json.contains("\"name\": \"mit\""));
        assert!(ask("GET /healthz HTTP/1.0\r\n\r\n").unwrap().ends_with("\r\n\r\nok\n"));
        assert!(ask("GET / HTTP/1.1\r\nHost: [::1]:9477\r\n\r\n").unwrap().contains("<h1>mit"));
        assert!(ask("GET /metrics HTTP/1.1\r\n\r\n").unwrap().ends_with("# EOF\n"));
        assert!(ask("GET /../etc HTTP/1.1\r\n\r\n").unwrap().starts_with("HTTP/1.1 404"));
        assert!(ask("HEAD / HTTP/1.1\r\n\r\n").unwrap().ends_with("\r\n\r\n"));
    }

    #[test]
    fn other_methods_and_foreign_names_are_refused() {
        assert!(ask("POST / HTTP/1.1\r\n\r\n").unwrap().starts_with("HTTP/1.1 405"));
        let foreign = ask("GET /status HTTP/1.1\r\nHost: evil.example\r\n\r\n").unwrap();
        assert!(foreign.starts_with("HTTP/1.1 403"));
    }

    #[test]
    fn a_silent_loop_makes_the_health_check_fail() {
        let refuse = || Answer::Refused("the gateway did not answer in time".into());
        let (_, response) = request(b"GET /healthz HTTP/1.1\r\n\r\n", refuse).unwrap();
        assert!(response.bytes.starts_with(b"HTTP/1.1 503"));
    }
}
