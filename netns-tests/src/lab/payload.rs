//! The recognisable content that laboratory servers send: every line carries a marker, so that a
//! capture can search for plaintext, and a number, so that a receiver can verify it.

use std::io::{self, Read, Write};

/// Occurs every 40 bytes of payload.
pub const MARKER: &[u8] = b"rongate-lab-plaintext";

const LINES: usize = 4096;
const LINE: usize = 40;

/// One period of the endless payload.
pub struct Payload(Vec<u8>);

impl Default for Payload {
    fn default() -> Self {
        let mut block = Vec::with_capacity(LINES * LINE);
        for line in 0..LINES {
            block.extend_from_slice(MARKER);
            block.extend_from_slice(format!(" {line:016x} \n").as_bytes());
        }
        debug_assert_eq!(block.len(), LINES * LINE);
        Self(block)
    }
}

impl Payload {
    /// Writes the first `length` bytes.
    pub fn write(&self, mut to: impl Write, mut length: u64) -> io::Result<()> {
        while length > 0 {
            let part = usize::try_from(length).unwrap_or(usize::MAX).min(self.0.len());
            to.write_all(&self.0[..part])?;
            length -= part as u64;
        }
        Ok(())
    }

    /// Reads to the end; returns the length, or an error at the first byte that is not as written.
    pub fn verify(&self, mut from: impl Read) -> io::Result<u64> {
        let mut buffer = vec![0; 64 * 1024];
        let mut at = 0_u64;
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                return Ok(at);
            }
            let mut rest = &buffer[..read];
            while !rest.is_empty() {
                let start = (at % self.0.len() as u64) as usize;
                let part = rest.len().min(self.0.len() - start);
                if rest[..part] != self.0[start..start + part] {
                    let text = format!("wrong content within {part} bytes after byte {at}");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                rest = &rest[part..];
                at += part as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_verified() {
        let payload = Payload::default();
        let mut bytes = Vec::new();
        payload.write(&mut bytes, 400_003).unwrap();
        assert_eq!(payload.verify(bytes.as_slice()).unwrap(), 400_003);
        assert!(bytes[..1400].windows(MARKER.len()).any(|window| window == MARKER));
        bytes[300_000] ^= 1;
        assert!(payload.verify(bytes.as_slice()).is_err());
        // A line lost from the middle must show too.
        bytes[300_000] ^= 1;
        bytes.drain(4000..4040);
        assert!(payload.verify(bytes.as_slice()).is_err());
    }
}
