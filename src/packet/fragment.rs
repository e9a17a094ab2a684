//! IPv4 fragmentation (RFC 791 section 3.2), for packets that allow it and a path that needs it.
//!
//! Routers never fragment IPv6.

use super::Headers;
use super::checksum::{self, put};
use crate::telemetry::DropReason;

const HEADER_LEN: usize = 20;
const MAX_HEADER_LEN: usize = 60;
const LEN: usize = 2;
const FLAGS_AND_OFFSET: usize = 6;
const MORE: u16 = 0x2000;
/// Options with this bit are in every fragment.
const COPIED: u8 = 0x80;

/// Splits one packet. Its checksums must be complete; it may be a fragment already.
#[derive(Clone, Debug)]
pub struct Fragmenter<'p> {
    packet: &'p [u8],
    header_len: usize,
    /// The header of all fragments but the first: only the options that are to be copied.
    later_header: [u8; MAX_HEADER_LEN],
    later_header_len: usize,
    /// Payload bytes in each fragment but the last.
    size: usize,
    /// Position of the first fragment, and whether more follow the last one.
    offset: usize,
    more: bool,
    count: usize,
}

impl<'p> Fragmenter<'p> {
    /// Prepares to split the packet in `frame` into fragments of at most `mtu` bytes.
    ///
    /// # Errors
    /// [`DropReason::TooBig`] when it is longer than `mtu` and may not be fragmented (DF is set, or
    /// IPv6): the caller owes an ICMP error.
    pub fn new(frame: &'p [u8], headers: &Headers, mtu: usize) -> Result<Self, DropReason> {
        let packet = frame.get(..headers.total_len as usize).ok_or(DropReason::Malformed)?;
        let header_len = usize::from(headers.l4);
        let payload = packet.len() - header_len;
        let fits = packet.len() <= mtu;
        if !fits && (headers.dont_fragment || headers.is_ipv6()) {
            return Err(DropReason::TooBig);
        }
        let size = if fits { payload.max(1) } else { mtu.saturating_sub(header_len) & !7 };
        if size == 0 {
            return Err(DropReason::TooBig);
        }
        let (later_header, later_header_len) = later_header(&packet[..header_len]);
        Ok(Self {
            packet,
            header_len,
            later_header,
            later_header_len,
            size,
            offset: headers.fragment.map_or(0, |fragment| usize::from(fragment.offset)),
            more: headers.fragment.is_some_and(|fragment| fragment.more),
            count: payload.div_ceil(size).max(1),
        })
    }

    /// How many fragments come out; one is the packet as it was.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Length of fragment `index` with its header; zero beyond the last one.
    pub fn fragment_len(&self, index: usize) -> usize {
        self.parts(index).map_or(0, |(header, payload)| header.len() + payload.len())
    }

    /// Writes fragment `index` to the beginning of `out` and returns its length. Zero when there is
    /// no such fragment or `out` is too small.
    pub fn write(&self, index: usize, out: &mut [u8]) -> usize {
        let Some((header, payload)) = self.parts(index) else { return 0 };
        let len = header.len() + payload.len();
        let Some(out) = out.get_mut(..len) else { return 0 };
        out[..header.len()].copy_from_slice(header);
        out[header.len()..].copy_from_slice(payload);
        if self.count > 1 {
            let offset = (self.offset + index * self.size) / 8;
            let more = self.more || index + 1 < self.count;
            put(out, LEN, len as u16);
            put(out, FLAGS_AND_OFFSET, offset as u16 | if more { MORE } else { 0 });
            checksum::fill_ipv4(&mut out[..header.len()]);
        }
        len
    }

    fn parts(&self, index: usize) -> Option<(&[u8], &'p [u8])> {
        if index >= self.count {
            return None;
        }
        let payload = &self.packet[self.header_len..];
        let start = index * self.size;
        let payload = payload.get(start..payload.len().min(start + self.size))?;
        let header = match index {
            0 => &self.packet[..self.header_len],
            _ => &self.later_header[..self.later_header_len],
        };
        Some((header, payload))
    }
}

/// The header without the options that only the first fragment has.
fn later_header(header: &[u8]) -> ([u8; MAX_HEADER_LEN], usize) {
    let mut later = [0; MAX_HEADER_LEN];
    let fixed = header.len().min(HEADER_LEN);
    later[..fixed].copy_from_slice(&header[..fixed]);
    let mut len = HEADER_LEN;
    let mut options = header.get(HEADER_LEN..).unwrap_or_default();
    if header.len() > MAX_HEADER_LEN {
        options = &[];
    }
    while let [kind, rest @ ..] = options {
        let option_len = match kind {
            0 => break,
            1 => 1,
            _ => rest.first().map_or(options.len(), |&len| usize::from(len.max(2))),
        };
        let Some(option) = options.get(..option_len) else { break };
        if kind & COPIED != 0 {
            later[len..len + option_len].copy_from_slice(option);
            len += option_len;
        }
        options = &options[option_len..];
    }
    let len = len.next_multiple_of(4);
    later[0] = 0x40 | (len / 4) as u8;
    (later, len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::testing::{Sample, Upper};

    fn split(packet: &[u8], mtu: usize) -> Result<Vec<Vec<u8>>, DropReason> {
        let fragmenter = Fragmenter::new(packet, &Headers::parse(packet)?, mtu)?;
        let fragments = (0..fragmenter.count()).map(|index| {
            let mut out = vec![0xaa; fragmenter.fragment_len(index)];
            assert_eq!(fragmenter.write(index, &mut out), out.len());
            assert_eq!(fragmenter.write(index, &mut [0; 7]), 0);
            out
        });
        Ok(fragments.collect())
    }

    /// Puts fragments together as a receiver would; panics when they leave a gap.
    fn reassemble(fragments: &[Vec<u8>]) -> Vec<u8> {
        let mut payload = vec![];
        for (i, bytes) in fragments.iter().enumerate() {
            let headers = Headers::parse(bytes).unwrap();
            assert!(checksum::ipv4_is_right(bytes, &headers));
            let fragment = headers.fragment.unwrap();
            assert_eq!(usize::from(fragment.offset), payload.len());
            assert_eq!((fragment.id, fragment.more), (7, i + 1 < fragments.len()));
            payload.extend_from_slice(&bytes[headers.l4.into()..]);
        }
        payload
    }

    fn fragmentable(len: usize) -> Vec<u8> {
        let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
        Sample { dont_fragment: false, ..Sample::udp(false, &data) }.bytes()
    }

    #[test]
    fn what_fits_is_left_alone_and_what_may_not_be_split_is_refused() {
        let packet = fragmentable(100);
        assert_eq!(split(&packet, packet.len()), Ok(vec![packet.clone()]));
        assert_eq!(split(&packet, 27), Err(DropReason::TooBig), "not even eight bytes");
        for ipv6 in [false, true] {
            let fixed = Sample::udp(ipv6, &[0; 200]).bytes();
            assert_eq!(split(&fixed, 100), Err(DropReason::TooBig));
        }
    }

    #[test]
    fn a_fragment_can_be_split_again() {
        let packet = fragmentable(1_000);
        let halves = split(&packet, 600).unwrap();
        let pieces: Vec<_> = halves.iter().flat_map(|half| split(half, 300).unwrap()).collect();
        assert_eq!(pieces.len(), 5);
        assert_eq!(reassemble(&pieces), packet[20..]);
    }

    #[test]
    fn only_copied_options_are_in_later_fragments() {
        // A record route (not copied), a NOP, a router alert (copied).
        let options = [7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0, 0];
        let mut packet = fragmentable(100);
        packet.splice(20..20, options);
        packet[0] = 0x48;
        let len = packet.len() as u16;
        put(&mut packet, 2, len);
        checksum::fill_ipv4(&mut packet[..32]);
        let fragments = split(&packet, 80).unwrap();
        assert_eq!(fragments.len(), 3);
        assert_eq!(fragments[0][20..32], options);
        for later in &fragments[1..] {
            assert_eq!((later[0], &later[20..24]), (0x46, &[148, 4, 0, 0][..]));
        }
        assert_eq!(reassemble(&fragments), packet[32..]);
    }

    #[test]
    fn broken_options_do_not_panic() {
        for options in [[0x82, 0, 0x82, 200], [0x94, 3, 1, 0x94], [0xff; 4], [1, 1, 1, 0x82]] {
            let mut packet = fragmentable(100);
            packet.splice(20..20, options);
            packet[0] = 0x46;
            let len = packet.len() as u16;
            put(&mut packet, 2, len);
            assert_eq!(split(&packet, 80).unwrap().len(), 2);
        }
    }

    proptest! {
        #[test]
        fn the_pieces_make_up_the_packet(len in 0..2_000usize, mtu in 28..1_500usize) {
            let packet = fragmentable(len);
            let fragments = split(&packet, mtu).unwrap();
            prop_assert!(fragments.iter().all(|fragment| fragment.len() <= mtu));
            if fragments.len() > 1 {
                prop_assert_eq!(reassemble(&fragments), &packet[20..]);
            } else {
                prop_assert_eq!(&fragments[0], &packet);
            }
        }

        #[test]
        fn damaged_packets_never_panic(
            damage in prop::collection::vec((0..40usize, any::<u8>()), 0..6),
            mtu in 0..200usize,
        ) {
            let mut packet = Sample::new(false, Upper::EchoReply, &[5; 150]).bytes();
            packet[6] = 0;
            for (at, byte) in damage {
                packet[at] = byte;
            }
            let _ = split(&packet, mtu);
        }
    }
}
