//! Reading control messages.

use super::*;

/// Reads the frames of a control body one by one; ends after the first error.
#[derive(Clone, Debug)]
pub struct ControlIter<'a> {
    rest: &'a [u8],
}

impl<'a> ControlIter<'a> {
    /// Reads `body`.
    pub const fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    fn next_frame(&mut self) -> Result<(u8, &'a [u8]), DropReason> {
        let (head, rest) =
            self.rest.split_first_chunk::<FRAME_HEADER_LEN>().ok_or(DropReason::BadControl)?;
        let len = usize::from(u16::from_be_bytes([head[1], head[2]]));
        let (body, rest) = rest.split_at_checked(len).ok_or(DropReason::BadControl)?;
        self.rest = rest;
        Ok((head[0], body))
    }
}

impl<'a> Iterator for ControlIter<'a> {
    type Item = Result<Control<'a>, DropReason>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            match self.next_frame().and_then(|(kind, body)| parse_body(kind, body)) {
                Ok(None) => {}
                Ok(Some(message)) => return Some(Ok(message)),
                Err(reason) => {
                    self.rest = &[];
                    return Some(Err(reason));
                }
            }
        }
        None
    }
}

fn parse_body(kind: u8, body: &[u8]) -> Result<Option<Control<'_>>, DropReason> {
    let known_len = match kind {
        PROBE => 12,
        PROBE_REPLY => 20,
        REPORT => REPORT_LEN,
        ADVERTISEMENT => ADVERTISEMENT_FIXED_LEN,
        ADVERTISEMENT_ACK => 13,
        PATH_CHALLENGE | PATH_RESPONSE => 8,
        MTU_PROBE | MTU_ACK | HEARD => 2,
        CLOSE | CLASS_REFUSED => 1,
        VOLLEY => 4,
        VOLLEY_REPORT => 9,
        _ => return Ok(None),
    };
    if body.len() < known_len {
        return Err(DropReason::BadControl);
    }
    let number64 = |at| u64::from_be_bytes(array(body, at));
    let number32 = |at| u32::from_be_bytes(array(body, at));
    let number16 = |at| u16::from_be_bytes(array(body, at));
    Ok(Some(match kind {
        PROBE => Control::Probe(Probe { seq: number32(0), sent_us: number64(4) }),
        PROBE_REPLY => Control::ProbeReply(ProbeReply {
            seq: number32(0),
            sent_us: number64(4),
            hold_us: number32(12),
            path: PathId(number16(16)),
            loss: number16(18),
        }),
        REPORT => Control::Report(Report::parse(array(body, 0))),
        ADVERTISEMENT => return parse_advertisement(body).map(Some),
        ADVERTISEMENT_ACK => Control::AdvertisementAck(AdvertisementAck {
            epoch: number64(0),
            seq: number32(8),
            part: body[12],
        }),
        PATH_CHALLENGE => Control::PathChallenge(number64(0)),
        PATH_RESPONSE => Control::PathResponse(number64(0)),
        MTU_PROBE => Control::MtuProbe(number16(0)),
        MTU_ACK => Control::MtuAck(number16(0)),
        CLASS_REFUSED => Control::ClassRefused(body[0]),
        HEARD => Control::Heard(PathId(number16(0))),
        VOLLEY => Control::Volley(Volley { seq: number16(0), index: body[2], count: body[3] }),
        VOLLEY_REPORT => Control::VolleyReport(VolleyReport {
            path: PathId(number16(0)),
            seq: number16(2),
            arrived: body[4],
            span_us: number32(5),
        }),
        _ => Control::Close(body[0]),
    }))
}

fn parse_advertisement(body: &[u8]) -> Result<Control<'_>, DropReason> {
    let entries = &body[ADVERTISEMENT_FIXED_LEN..];
    let head = Advertisement {
        epoch: u64::from_be_bytes(array(body, 0)),
        seq: u32::from_be_bytes(array(body, 8)),
        part: body[12],
        parts: body[13],
        flags: body[14],
        spare_relay_kbit: u32::from_be_bytes(array(body, 15)),
    };
    let count = entries.len() / ENTRY_LEN;
    if head.part >= head.parts
        || !entries.len().is_multiple_of(ENTRY_LEN)
        || count > ADVERTISEMENT_ENTRIES_MAX
    {
        return Err(DropReason::BadControl);
    }
    Ok(Control::Advertisement(head, Entries(entries)))
}
