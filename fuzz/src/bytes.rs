//! Bytes as decisions.

/// Takes decisions from the front of some bytes; at their end all are zero.
#[derive(Debug)]
pub struct Bytes<'d>(pub &'d [u8]);

impl<'d> Bytes<'d> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub fn u16(&mut self) -> u16 {
        u16::from(self.u8()) << 8 | u16::from(self.u8())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.u8()) % end.max(1)
    }

    /// At most so many.
    pub fn take(&mut self, len: usize) -> &'d [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// As many as the next byte says.
    pub fn some(&mut self) -> &'d [u8] {
        let len = usize::from(self.u8());
        self.take(len)
    }

    pub fn rest(&mut self) -> &'d [u8] {
        self.take(usize::MAX)
    }
}
