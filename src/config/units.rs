//! Quantities with a unit, as written in the configuration: rates, durations, ports, listeners.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// Bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

/// Decimal multiples, as everywhere in networking.
const RATE_UNITS: [(&str, u64); 4] =
    [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000), ("bit", 1)];

impl Rate {
    /// So many bits per second.
    pub const fn from_bits_per_second(bits: u64) -> Self {
        Self(bits)
    }

    /// So many thousand bits per second.
    pub const fn from_kbit(kbit: u64) -> Self {
        Self(kbit * 1_000)
    }

    /// Bits per second.
    pub const fn bits_per_second(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) = RATE_UNITS
            .into_iter()
            .find(|(_, scale)| self.0 >= *scale && self.0.is_multiple_of(*scale))
            .unwrap_or(("bit", 1));
        write!(f, "{}{unit}", self.0 / scale)
    }
}

/// A text that is no quantity of the wanted kind; says how to write one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseUnitError(&'static str);

const RATE_FORM: ParseUnitError = ParseUnitError(
    "not a rate: write a number with its unit `bit`, `kbit`, `mbit` or `gbit` (per second), \
     like `200mbit`",
);
const DURATION_FORM: ParseUnitError = ParseUnitError(
    "not a duration: write a number with its unit `ms`, `s`, `m` or `h`, like `250ms` or `5m`",
);
const PORTS_FORM: ParseUnitError =
    ParseUnitError("not a port range: write `FIRST-LAST` or one port, like `40000-59999`");
const PORTS_REVERSED: ParseUnitError =
    ParseUnitError("the port range is reversed: write the lower port first");
const PORT_ZERO: ParseUnitError = ParseUnitError("port 0 does not exist: use 1 to 65535");
const LISTEN_FORM: ParseUnitError = ParseUnitError(
    "not a listening address: write `ADDRESS:PORT`, `[IPV6]:PORT`, or `auto:PORT` (`auto6:PORT`) \
     to follow the interface's IPv4 (IPv6) address",
);
const LISTEN_UNSPECIFIED: ParseUnitError = ParseUnitError(
    "an unspecified address cannot be told from other uplinks: write the interface's address, or \
     `auto:PORT`",
);
const ENDPOINT_FORM: ParseUnitError = ParseUnitError(
    "not an endpoint: write `ADDRESS:PORT`, `[IPV6]:PORT` or `HOST.NAME:PORT`, like \
     `198.51.100.1:4710`",
);
const ENDPOINT_USELESS: ParseUnitError =
    ParseUnitError("nothing can be sent to this address: write the peer's unicast address");

/// Splits a number, which may have a decimal point, from its unit.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(at);
    (!number.is_empty()).then(|| (number, unit.trim_start()))
}

/// `number` times `scale` as a whole number; none on overflow or a remainder.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut value = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    let mut place = scale;
    for digit in fraction.bytes() {
        let digit = u64::from(char::from(digit).to_digit(10)?);
        if digit != 0 && !place.is_multiple_of(10) {
            return None;
        }
        place /= 10;
        value = value.checked_add(digit * place)?;
    }
    Some(value)
}

impl FromStr for Rate {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, ParseUnitError> {
        let (number, unit) = split_number(text).ok_or(RATE_FORM)?;
        let (_, scale) = RATE_UNITS.into_iter().find(|(name, _)| *name == unit).ok_or(RATE_FORM)?;
        scaled(number, scale).map(Self).ok_or(RATE_FORM)
    }
}

const DURATION_UNITS: [(&str, u64); 4] =
    [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000)];

/// Reads a duration like `250ms`, `1.5s`, `5m`, `2h`.
pub fn parse_duration(text: &str) -> Result<Duration, ParseUnitError> {
    let (number, unit) = split_number(text).ok_or(DURATION_FORM)?;
    let (_, scale) =
        DURATION_UNITS.into_iter().find(|(name, _)| *name == unit).ok_or(DURATION_FORM)?;
    scaled(number, scale).map(Duration::from_micros).ok_or(DURATION_FORM)
}

/// Writes a duration as [`parse_duration`] reads it, with the biggest unit that leaves no fraction.
pub fn format_duration(duration: Duration) -> String {
    let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    DURATION_UNITS
        .into_iter()
        .find(|(_, scale)| us >= *scale && us.is_multiple_of(*scale))
        .map_or_else(
            || format!("{}ms", us as f64 / 1_000.0),
            |(unit, scale)| format!("{}{unit}", us / scale),
        )
}

/// Reads `40000-59999`, or one port.
pub fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, ParseUnitError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let parse = |part: &str| part.trim().parse::<u16>().map_err(|_| PORTS_FORM);
    let (first, last) = (parse(first)?, parse(last)?);
    if first == 0 {
        return Err(PORT_ZERO);
    }
    if first > last {
        return Err(PORTS_REVERSED);
    }
    Ok(first..=last)
}

/// Where an uplink listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At this address.
    Address(SocketAddr),
    /// At whatever address the interface has, which may change.
    Auto {
        /// Follow the interface's IPv6 address, else its IPv4 address.
        ipv6: bool,
        /// The UDP port.
        port: u16,
    },
}

impl Listen {
    /// The UDP port.
    pub const fn port(self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Auto { port, .. } => port,
        }
    }

    /// Whether it is an IPv6 uplink.
    pub const fn is_ipv6(self) -> bool {
        match self {
            Self::Address(address) => address.is_ipv6(),
            Self::Auto { ipv6, .. } => ipv6,
        }
    }

    /// The address, unless it follows the interface.
    pub const fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(address),
            Self::Auto { .. } => None,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Auto { ipv6: false, port } => write!(f, "auto:{port}"),
            Self::Auto { ipv6: true, port } => write!(f, "auto6:{port}"),
        }
    }
}

impl FromStr for Listen {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, ParseUnitError> {
        let listen = match text.rsplit_once(':') {
            Some((host @ ("auto" | "auto6"), port)) => {
                Self::Auto { ipv6: host == "auto6", port: port.parse().map_err(|_| LISTEN_FORM)? }
            }
            _ => Self::Address(text.parse().map_err(|_| LISTEN_FORM)?),
        };
        if listen.port() == 0 {
            return Err(PORT_ZERO);
        }
        if listen.address().is_some_and(|address| address.ip().is_unspecified()) {
            return Err(LISTEN_UNSPECIFIED);
        }
        Ok(listen)
    }
}

/// Where a peer may be reached: an address, or a name that the gateway resolves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// At this address.
    Address(SocketAddr),
    /// At the address that this name has.
    Name {
        /// A host name.
        host: String,
        /// The UDP port.
        port: u16,
    },
}

impl Endpoint {
    /// The address, unless a name has to be resolved first.
    pub const fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Name { .. } => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, ParseUnitError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            if address.port() == 0 {
                return Err(PORT_ZERO);
            }
            return match address.ip() {
                ip if ip.is_unspecified() || ip.is_multicast() => Err(ENDPOINT_USELESS),
                IpAddr::V4(ip) if ip.is_broadcast() => Err(ENDPOINT_USELESS),
                IpAddr::V4(_) | IpAddr::V6(_) => Ok(Self::Address(address)),
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or(ENDPOINT_FORM)?;
        let port = port.parse().map_err(|_| ENDPOINT_FORM)?;
        if port == 0 {
            return Err(PORT_ZERO);
        }
        // A name whose last label is a number is a mistyped IPv4 address (RFC 1123, section 2.1).
        let last = host.rsplit('.').next().unwrap_or_default();
        let named = host.len() <= 253
            && host.split('.').all(|label| is_dns_label(&label.to_ascii_lowercase()))
            && !last.bytes().all(|byte| byte.is_ascii_digit());
        if !named {
            return Err(ENDPOINT_FORM);
        }
        Ok(Self::Name { host: host.to_ascii_lowercase(), port })
    }
}

/// Lower-case letters, digits and inner hyphens, 1 to 63 characters (RFC 1123).
pub(crate) fn is_dns_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_have_units() {
        assert_eq!("33kbit".parse(), Ok(Rate::from_kbit(33)));
        assert_eq!("200mbit".parse(), Ok(Rate::from_bits_per_second(200_000_000)));
        assert_eq!("1.5 gbit".parse(), Ok(Rate::from_kbit(1_500_000)));
        assert_eq!("8bit".parse(), Ok(Rate::from_bits_per_second(8)));
        for wrong in ["33", "33kb", "kbit", "-1mbit", "1..5mbit", "1.5bit", "99999999999gbit", ""] {
            assert_eq!(wrong.parse::<Rate>(), Err(RATE_FORM), "{wrong}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7_200)));
        for wrong in ["10", "10sec", "s", "1h30m", "-1s"] {
            assert_eq!(parse_duration(wrong), Err(DURATION_FORM), "{wrong}");
        }
        assert_eq!(format_duration(Duration::from_secs(7_440)), "124m");
        assert_eq!(format_duration(Duration::from_micros(2_500)), "2.5ms");
    }

    #[test]
    fn port_ranges_are_ordered() {
        assert_eq!(parse_ports("40000-59999"), Ok(40_000..=59_999));
        assert_eq!(parse_ports("53"), Ok(53..=53));
        assert_eq!(parse_ports("5-4"), Err(PORTS_REVERSED));
        assert_eq!(parse_ports("0-4"), Err(PORT_ZERO));
        assert_eq!(parse_ports("1-70000"), Err(PORTS_FORM));
    }

    #[test]
    fn listeners_are_addresses_or_follow_the_interface() {
        assert_eq!("auto:4710".parse(), Ok(Listen::Auto { ipv6: false, port: 4710 }));
        assert_eq!("auto6:4710".parse(), Ok(Listen::Auto { ipv6: true, port: 4710 }));
        let address = "[2001:db8::1]:4710";
        assert_eq!(address.parse::<Listen>().unwrap().to_string(), address);
        assert_eq!("192.0.2.1".parse::<Listen>(), Err(LISTEN_FORM));
        assert_eq!("192.0.2.1:0".parse::<Listen>(), Err(PORT_ZERO));
        assert_eq!("0.0.0.0:4710".parse::<Listen>(), Err(LISTEN_UNSPECIFIED));
    }

    #[test]
    fn endpoints_are_addresses_or_names() {
        let name = Endpoint::Name { host: "gw.example.net".into(), port: 4710 };
        assert_eq!("GW.example.net:4710".parse(), Ok(name));
        assert_eq!("198.51.100.256:4710".parse::<Endpoint>(), Err(ENDPOINT_FORM));
        assert_eq!("198.51.100.1".parse::<Endpoint>(), Err(ENDPOINT_FORM));
        assert_eq!("224.0.0.1:4710".parse::<Endpoint>(), Err(ENDPOINT_USELESS));
        assert_eq!("a b:4710".parse::<Endpoint>(), Err(ENDPOINT_FORM));
    }

    proptest! {
        #[test]
        fn quantities_are_read_as_they_are_written(n in 0..=u64::MAX / 1_000) {
            let rate = Rate::from_bits_per_second(n);
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
            let duration = Duration::from_millis(n);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }
}
