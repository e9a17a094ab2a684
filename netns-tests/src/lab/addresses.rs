//! The address plan.
//!
//! Everything has a number, and every address follows from it, so a scenario reads without a table:
//!
//! | what | IPv4 | IPv6 |
//! |---|---|---|
//! | LAN of site *n* | `10.n.0.0/16`, gateway `.0.1`, hosts `.0.11`, `.0.12` ... | `fd00:n::/64`, `::1`, `::11` ... |
//! | overlay address of site *n* | `10.77.0.n/24` | `fd77::n/64` |
//! | uplinks 1 and 2 of site *n* | `192.0.2.x/29`, `198.51.100.x/29`, x = *8n*+1 | `2001:db8:n:u::1/64` |
//! | routed to site *n* by uplink 1 | | `2001:db8:n:100::/56` |
//! | uplink 3 of site *n* | `203.0.113.x/30`, x = 128 + *4n*+1 | `2001:db8:n:3::1/64` |
//! | Internet | router `203.0.113.1`, servers `203.0.113.80`, `.81` ... | `2001:db8:80::80` ... |

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// Addresses of the site with a given number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan(pub u8);

impl Plan {
    /// The LAN's IPv4 network.
    pub fn lan4(self) -> Ipv4Net {
        Ipv4Net::new_assert(Ipv4Addr::new(10, self.0, 0, 0), 16)
    }

    /// The LAN's IPv6 network.
    pub fn lan6(self) -> Ipv6Net {
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, self.decimal(), 0, 0, 0, 0, 0, 0), 64)
    }

    /// The gateway's addresses in the LAN.
    pub fn gateway(self) -> (Ipv4Addr, Ipv6Addr) {
        let v6 = Ipv6Addr::new(0xfd00, self.decimal(), 0, 0, 0, 0, 0, 1);
        (Ipv4Addr::new(10, self.0, 0, 1), v6)
    }

    /// The addresses of host 1, 2 ...
    pub fn host(self, number: u8) -> (Ipv4Addr, Ipv6Addr) {
        let last = 0x10 + u16::from(number);
        let v6 = Ipv6Addr::new(0xfd00, self.decimal(), 0, 0, 0, 0, 0, last);
        (Ipv4Addr::new(10, self.0, 0, 10 + number), v6)
    }

    /// The node's addresses inside the overlay.
    pub fn overlay(self) -> (Ipv4Addr, Ipv6Addr) {
        let v6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, self.decimal());
        (Ipv4Addr::new(10, 77, 0, self.0), v6)
    }

    /// The addresses of uplink 0, 1, 2, with their networks.
    pub fn uplink(self, index: usize) -> (Ipv4Net, Ipv6Net) {
        let last = self.0 * 8 + 1;
        let v4 = match index {
            0 => Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, last), 29),
            1 => Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, last), 29),
            _ => Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 128 + self.0 * 4 + 1), 30),
        };
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, self.decimal(), index as u16 + 1, 0, 0, 0, 1);
        (v4, Ipv6Net::new_assert(v6, 64))
    }

    /// The IPv6 network that the first provider routes to the site.
    pub fn delegated(self) -> Ipv6Net {
        let net = Ipv6Addr::new(0x2001, 0xdb8, self.decimal(), 0x100, 0, 0, 0, 0);
        Ipv6Net::new_assert(net, 56)
    }

    /// The number as it reads in an IPv6 address: 12 becomes 0x12.
    fn decimal(self) -> u16 {
        u16::from(self.0 / 10) * 16 + u16::from(self.0 % 10)
    }
}

/// Address of Internet server 0, 1 ...
pub fn server_address(index: u8) -> (Ipv4Addr, Ipv6Addr) {
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0x80, 0, 0, 0, 0, 0x80 + u16::from(index));
    (Ipv4Addr::new(203, 0, 113, 80 + index), v6)
}

/// The Internet router's addresses on its WAN interface.
pub fn internet_router() -> (Ipv4Addr, Ipv6Addr) {
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0x80, 0xffff, 0, 0, 0, 1);
    (Ipv4Addr::new(203, 0, 113, 1), v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_from_numbers() {
        let plan = Plan(12);
        assert_eq!(plan.lan4().to_string(), "10.12.0.0/16");
        assert_eq!(plan.lan6().to_string(), "fd00:12::/64");
        assert_eq!(plan.host(2).0.to_string(), "10.12.0.12");
        assert_eq!(plan.host(2).1.to_string(), "fd00:12::12");
        assert_eq!(plan.uplink(1).0.to_string(), "198.51.100.97/29");
        assert_eq!(plan.uplink(1).1.to_string(), "2001:db8:12:2::1/64");
        assert_eq!(server_address(0).1.to_string(), "2001:db8:80::80");
    }
}
