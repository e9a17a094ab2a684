//! Writing control messages.

use super::*;

/// Writes control messages one after the other into a buffer.
#[derive(Debug)]
pub struct ControlWriter<'b> {
    buffer: &'b mut [u8],
    len: usize,
}

impl<'b> ControlWriter<'b> {
    /// Writes from the start of `buffer`.
    pub const fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// Bytes written.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True when nothing was written.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a message. False, and nothing written, when there is no room.
    #[must_use]
    pub fn push(&mut self, message: &Control<'_>) -> bool {
        let mut body = [0; ADVERTISEMENT_FIXED_LEN + 1];
        let mut tail: &[u8] = &[];
        let (kind, len) = match message {
            Control::Padding(len) => return self.pad(*len),
            Control::Probe(probe) => {
                (PROBE, put(&mut body, &[&probe.seq.to_be_bytes(), &probe.sent_us.to_be_bytes()]))
            }
            Control::ProbeReply(reply) => return self.push_reply(reply),
            Control::Report(report) => (REPORT, put(&mut body, &[&report.emit()])),
            Control::Advertisement(head, entries) => {
                tail = entries.0;
                (ADVERTISEMENT, put_advertisement(&mut body, head))
            }
            Control::AdvertisementAck(ack) => {
                let fields: [&[u8]; 3] =
                    [&ack.epoch.to_be_bytes(), &ack.seq.to_be_bytes(), &[ack.part]];
                (ADVERTISEMENT_ACK, put(&mut body, &fields))
            }
            Control::PathChallenge(token) => {
                (PATH_CHALLENGE, put(&mut body, &[&token.to_be_bytes()]))
            }
            Control::PathResponse(token) => {
                (PATH_RESPONSE, put(&mut body, &[&token.to_be_bytes()]))
            }
            Control::MtuProbe(size) => (MTU_PROBE, put(&mut body, &[&size.to_be_bytes()])),
            Control::MtuAck(size) => (MTU_ACK, put(&mut body, &[&size.to_be_bytes()])),
            Control::Close(reason) => (CLOSE, put(&mut body, &[&[*reason]])),
            Control::ClassRefused(tag) => (CLASS_REFUSED, put(&mut body, &[&[*tag]])),
            Control::Volley(volley) => (
                VOLLEY,
                put(&mut body, &[&volley.seq.to_be_bytes(), &[volley.index, volley.count]]),
            ),
            Control::VolleyReport(report) => return self.push_volley_report(report),
            Control::Heard(path) => (HEARD, put(&mut body, &[&path.0.to_be_bytes()])),
        };
        self.frame(kind, &body[..len], tail.len(), |place| place.copy_from_slice(tail))
    }

    /// Appends one part of an advertisement. False, and nothing written, when there is no room or
    /// there are more than [`ADVERTISEMENT_ENTRIES_MAX`] entries.
    #[must_use]
    pub fn push_advertisement(
        &mut self,
        head: &Advertisement,
        entries: &[AdvertisementEntry],
    ) -> bool {
        if entries.len() > ADVERTISEMENT_ENTRIES_MAX {
            return false;
        }
        let mut body = [0; ADVERTISEMENT_FIXED_LEN + 1];
        let len = put_advertisement(&mut body, head);
        self.frame(ADVERTISEMENT, &body[..len], entries.len() * ENTRY_LEN, |place| {
            for (place, entry) in place.chunks_exact_mut(ENTRY_LEN).zip(entries) {
                place.copy_from_slice(&entry.emit());
            }
        })
    }

    /// Makes the body exactly `total` bytes long. False when it is longer already, or only one or
    /// two bytes shorter (a frame has at least three).
    #[must_use]
    pub fn pad_to(&mut self, total: usize) -> bool {
        if self.len == total {
            return true;
        }
        let len = total.checked_sub(self.len + FRAME_HEADER_LEN);
        len.and_then(|len| u16::try_from(len).ok()).is_some_and(|len| self.pad(len))
    }

    fn pad(&mut self, len: u16) -> bool {
        self.frame(PADDING, &[], usize::from(len), |place| place.fill(0))
    }

    fn push_reply(&mut self, reply: &ProbeReply) -> bool {
        let mut body = [0; ADVERTISEMENT_FIXED_LEN + 1];
        let fields: [&[u8]; 5] = [
            &reply.seq.to_be_bytes(),
            &reply.sent_us.to_be_bytes(),
            &reply.hold_us.to_be_bytes(),
            &reply.path.0.to_be_bytes(),
            &reply.loss.to_be_bytes(),
        ];
        let len = put(&mut body, &fields);
        self.frame(PROBE_REPLY, &body[..len], 0, |_| {})
    }

    fn push_volley_report(&mut self, report: &VolleyReport) -> bool {
        let mut body = [0; 9];
        let fields: [&[u8]; 4] = [
            &report.path.0.to_be_bytes(),
            &report.seq.to_be_bytes(),
            &[report.arrived],
            &report.span_us.to_be_bytes(),
        ];
        let len = put(&mut body, &fields);
        self.frame(VOLLEY_REPORT, &body[..len], 0, |_| {})
    }

    fn frame(
        &mut self,
        kind: u8,
        body: &[u8],
        tail_len: usize,
        write_tail: impl FnOnce(&mut [u8]),
    ) -> bool {
        let body_len = body.len() + tail_len;
        let end = self.len + FRAME_HEADER_LEN + body_len;
        let (Ok(length), Some(place)) =
            (u16::try_from(body_len), self.buffer.get_mut(self.len..end))
        else {
            return false;
        };
        place[0] = kind;
        place[1..3].copy_from_slice(&length.to_be_bytes());
        let (fixed, tail) = place[FRAME_HEADER_LEN..].split_at_mut(body.len());
        fixed.copy_from_slice(body);
        write_tail(tail);
        self.len = end;
        true
    }
}

fn put(body: &mut [u8], fields: &[&[u8]]) -> usize {
    let mut at = 0;
    for field in fields {
        body[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    }
    at
}

fn put_advertisement(body: &mut [u8], head: &Advertisement) -> usize {
    put(
        body,
        &[
            &head.epoch.to_be_bytes(),
            &head.seq.to_be_bytes(),
            &[head.part, head.parts, head.flags],
            &head.spare_relay_kbit.to_be_bytes(),
        ],
    )
}
