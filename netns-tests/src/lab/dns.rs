//! The smallest name server that satisfies `dig`: one question in, one address out (RFC 1035).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const A: u16 = 1;
const AAAA: u16 = 28;
const NAME_ERROR: u8 = 3;

/// What the server knows: names under `lab`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Zone {
    /// The answer to A questions.
    pub v4: Option<Ipv4Addr>,
    /// The answer to AAAA questions.
    pub v6: Option<Ipv6Addr>,
}

/// The reply to `query` from `client`; `None` for what is not a plain query with one question.
///
/// `whoami.lab` has the client's own address; every other name under `lab` the zone's; all else
/// does not exist.
pub fn reply(query: &[u8], client: IpAddr, zone: Zone) -> Option<Vec<u8>> {
    let header = query.first_chunk::<12>()?;
    let is_plain = header[2] & 0xf8 == 0 && header[4..6] == [0, 1];
    if !is_plain {
        return None;
    }
    let (labels, end) = name(query, 12)?;
    let kind = u16::from_be_bytes(*query.get(end..)?.first_chunk()?);
    let question = query.get(12..end + 4)?;
    let known = labels.last().is_some_and(|label| label == "lab");
    let address = match (labels.first().map(String::as_str), kind, client) {
        (Some("whoami"), A, IpAddr::V4(_)) | (Some("whoami"), AAAA, IpAddr::V6(_)) => Some(client),
        (Some("whoami"), ..) => None,
        (_, A, _) => zone.v4.map(IpAddr::V4),
        (_, AAAA, _) => zone.v6.map(IpAddr::V6),
        _ => None,
    };
    let address = address.filter(|_| known);

    let mut reply = header[..2].to_vec();
    let status = if known { 0 } else { NAME_ERROR };
    // A response, authoritative, recursion desired as asked.
    reply.extend_from_slice(&[0x84 | (header[2] & 1), status]);
    reply.extend_from_slice(&[0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    reply.extend_from_slice(question);
    if let Some(address) = address {
        // A pointer to the question's name, the type, class IN, 60 seconds.
        reply.extend_from_slice(&[0xc0, 12]);
        reply.extend_from_slice(&kind.to_be_bytes());
        reply.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
        match address {
            IpAddr::V4(address) => {
                reply.extend_from_slice(&[0, 4]);
                reply.extend_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                reply.extend_from_slice(&[0, 16]);
                reply.extend_from_slice(&address.octets());
            }
        }
    }
    Some(reply)
}

fn name(packet: &[u8], mut at: usize) -> Option<(Vec<String>, usize)> {
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels, at));
        }
        if length > 63 {
            return None;
        }
        let label = packet.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut packet = vec![0xab, 0xcd, 1, 0x20, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            packet.push(label.len() as u8);
            packet.extend_from_slice(label.as_bytes());
        }
        packet.push(0);
        packet.extend_from_slice(&kind.to_be_bytes());
        packet.extend_from_slice(&[0, 1]);
        packet
    }

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9));

    fn zone() -> Zone {
        Zone { v4: Some(Ipv4Addr::new(203, 0, 113, 80)), v6: None }
    }

    #[test]
    fn a_name_has_the_zones_address() {
        let reply = reply(&query("www.lab", A), CLIENT, zone()).unwrap();
        assert_eq!(reply[..4], [0xab, 0xcd, 0x85, 0]);
        assert_eq!(reply[6..8], [0, 1]);
        assert_eq!(reply[reply.len() - 6..], [0, 4, 203, 0, 113, 80]);
    }

    #[test]
    fn whoami_is_the_client() {
        let reply = reply(&query("WhoAmI.lab", A), CLIENT, zone()).unwrap();
        assert_eq!(reply[reply.len() - 4..], [198, 51, 100, 9]);
    }

    #[test]
    fn other_names_do_not_exist_and_noise_gets_no_answer() {
        let missing = reply(&query("example.org", A), CLIENT, zone()).unwrap();
        assert_eq!((missing[3], missing[7]), (NAME_ERROR, 0));
        assert_eq!(reply(&query("www.lab", AAAA), CLIENT, zone()).unwrap()[7], 0);
        assert_eq!(reply(b"short", CLIENT, zone()), None);
        let mut cut = query("www.lab", A);
        cut.truncate(17);
        assert_eq!(reply(&cut, CLIENT, zone()), None);
    }
}
