//! The exit's outside addresses as the kernel may see them.
//!
//! The NAT knows the real outside addresses. They are the uplinks' and so the kernel's own, and it
//! takes no packet with such a source from the TUN, and gives none with such a destination to it.
//! Between the TUN and the uplink they therefore have other, internal ones, which rules in the
//! kernel exchange without state (`mode: rewrite`). Here they are put on and taken off.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::Node;
use crate::packet::{Headers, Vnet, rewrite};
use crate::telemetry::DropReason;

/// Where an IPv4 header has its source.
const SOURCE: std::ops::Range<usize> = 12..16;

/// Internal and real outside addresses, in pairs that differ.
#[derive(Debug, Default)]
pub(super) struct Aliases(Vec<(Ipv4Addr, Ipv4Addr)>);

impl Aliases {
    fn outside(&self, internal: Ipv4Addr) -> Option<Ipv4Addr> {
        self.0.iter().find(|pair| pair.0 == internal).map(|pair| pair.1)
    }

    fn internal(&self, outside: Ipv4Addr) -> Option<Ipv4Addr> {
        self.0.iter().find(|pair| pair.1 == outside).map(|pair| pair.0)
    }

    fn set(&mut self, internal: Ipv4Addr, outside: Ipv4Addr) {
        self.0.retain(|pair| pair.0 != internal);
        if internal != outside {
            self.0.push((internal, outside));
        }
    }

    /// The headers with the real address as the destination.
    pub(super) fn seen_outside(&self, mut headers: Headers) -> Headers {
        if let IpAddr::V4(destination) = headers.destination
            && let Some(outside) = self.outside(destination)
        {
            headers.destination = outside.into();
        }
        headers
    }

    /// A frame from the kernel gets the real address as its destination.
    pub(super) fn take_off(
        &self,
        frame: &mut [u8],
        headers: &mut Headers,
        vnet: &Vnet,
    ) -> Result<(), DropReason> {
        let IpAddr::V4(destination) = headers.destination else { return Ok(()) };
        let Some(outside) = self.outside(destination) else { return Ok(()) };
        rewrite::set_destination(frame, headers, vnet, outside.into(), None)?;
        headers.destination = outside.into();
        Ok(())
    }

    /// A frame for the kernel gets the internal address as its source. The headers may be those of
    /// the frame before it was translated.
    pub(super) fn put_on(
        &self,
        frame: &mut [u8],
        headers: &Headers,
        vnet: &Vnet,
    ) -> Result<(), DropReason> {
        let Some(&[a, b, c, d]) = frame.get(SOURCE) else { return Ok(()) };
        let internal = self.internal(Ipv4Addr::new(a, b, c, d)).filter(|_| !headers.is_ipv6());
        let Some(internal) = internal else { return Ok(()) };
        rewrite::set_source(frame, headers, vnet, internal.into(), None)
    }
}

impl Node {
    /// Destinations that users of our exit may not reach, from now on.
    pub fn set_exit_denied(&mut self, denied: Vec<IpNet>) {
        if let Some(exit) = &mut self.exit {
            exit.denied = denied;
        }
    }

    /// Says which real address an address of the exit's pool stands for from now on; none when its
    /// uplink has no address at present: then new mappings get other addresses, as far as there are
    /// any. False when there is no such address in the pool, or another one stands for the same.
    pub fn set_outside(&mut self, internal: Ipv4Addr, outside: Option<Ipv4Addr>) -> bool {
        let Some(exit) = &mut self.exit else { return false };
        let old = exit.aliases.outside(internal).unwrap_or(internal);
        let new = outside.unwrap_or(old);
        if !exit.nat.rename(old.into(), new.into()) {
            return false;
        }
        exit.nat.set_usable(new.into(), outside.is_some());
        exit.aliases.set(internal, new);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing::{Sample, Upper, assert_checksums};

    #[test]
    fn addresses_are_exchanged_with_their_checksums_and_others_stay() {
        let internal: Ipv4Addr = "100.64.1.1".parse().unwrap();
        let outside: Ipv4Addr = "192.0.2.17".parse().unwrap();
        let mut aliases = Aliases::default();
        aliases.set(internal, outside);
        let mut sample = Sample::new(false, Upper::Udp, b"some data");
        sample.source = outside.into();
        let mut packet = sample.bytes();
        let headers = Headers::parse(&packet).unwrap();
        let before = headers.destination;
        aliases.put_on(&mut packet, &headers, &Vnet::default()).unwrap();
        assert_checksums(&packet);
        let after = Headers::parse(&packet).unwrap();
        assert_eq!((after.source, after.destination), (internal.into(), before));

        let mut sample = Sample::new(false, Upper::Udp, b"some data");
        sample.destination = internal.into();
        let mut packet = sample.bytes();
        let mut headers = Headers::parse(&packet).unwrap();
        aliases.take_off(&mut packet, &mut headers, &Vnet::default()).unwrap();
        assert_checksums(&packet);
        assert_eq!(Headers::parse(&packet).unwrap().destination, IpAddr::from(outside));

        let mut packet = Sample::new(false, Upper::Udp, b"x").bytes();
        let untouched = packet.clone();
        let mut headers = Headers::parse(&packet).unwrap();
        aliases.take_off(&mut packet, &mut headers, &Vnet::default()).unwrap();
        aliases.put_on(&mut packet, &headers, &Vnet::default()).unwrap();
        assert_eq!(packet, untouched);
        aliases.set(internal, internal);
        assert_eq!(aliases.outside(internal), None);
    }
}
