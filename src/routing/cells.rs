//! What the nodes say of their links, packed: there is an entry for each ordered pair of nodes, at
//! each node.

use crate::metric::{LinkReport, Liveness, Loss};

/// A table of link reports without their jitter. One takes three bytes in rows without any loss and
/// without times of four seconds and more, and no more than six in any.
#[derive(Clone, Debug)]
pub(super) struct Cells {
    width: usize,
    /// 22 bits of microseconds, and 2 of liveness, of which 3 stands for a link that is not known.
    low: Vec<[u8; 3]>,
    /// One for each row.
    wide: Vec<Wide>,
}

/// What few rows need.
#[derive(Clone, Debug, Default)]
struct Wide {
    loss: Option<Box<[u16]>>,
    /// 8 more bits of microseconds.
    high: Option<Box<[u8]>>,
}

impl Cells {
    const NONE: [u8; 3] = [Self::UNKNOWN as u8, 0, 0];
    const UNKNOWN: u32 = 3;
    const LOW_BITS: u32 = 22;
    /// Without more bits this stands for the longest time there is, ...
    const LOW_MAX: u32 = (1 << Self::LOW_BITS) - 1;
    /// ... and so does this with them: 17 minutes and more, or not known.
    const LATENCY_MAX: u32 = u32::MAX >> 2;

    /// A table in which nothing is known.
    pub(super) fn new(rows: usize, width: usize) -> Self {
        let wide = vec![Wide::default(); rows];
        Self { width, low: vec![Self::NONE; rows * width], wide }
    }

    /// One entry; `None` for what is not known, and outside of the table.
    pub(super) fn get(&self, row: usize, column: usize) -> Option<LinkReport> {
        if column >= self.width {
            return None;
        }
        let [a, b, c] = *self.low.get(row * self.width + column)?;
        let word = u32::from_le_bytes([a, b, c, 0]);
        let state = match word & 3 {
            0 => Liveness::Up,
            1 => Liveness::Suspect,
            2 => Liveness::Down,
            _ => return None,
        };
        let wide = self.wide.get(row)?;
        let low = word >> 2;
        let latency = match &wide.high {
            Some(high) => u32::from(*high.get(column)?) << Self::LOW_BITS | low,
            None if low == Self::LOW_MAX => Self::LATENCY_MAX,
            None => low,
        };
        let latency_us = if latency == Self::LATENCY_MAX { u32::MAX } else { latency };
        let loss = wide.loss.as_ref().and_then(|loss| loss.get(column)).copied();
        Some(LinkReport { latency_us, jitter_us: 0, loss: Loss(loss.unwrap_or(0)), state })
    }

    /// For each row what matters most of its link to `column`, unless it says that this does not
    /// work: the worse time of both ends, and whether both say that nothing is lost. One pass over
    /// the table is a good deal quicker than two look-ups for each.
    pub(super) fn working(&self, column: usize) -> impl Iterator<Item = Option<(u32, bool)>> + '_ {
        let here = self.wide.get(column);
        let back = self.low.get(column * self.width..).unwrap_or_default();
        let there = self.low.iter().skip(column).step_by(self.width.max(1));
        let rows = there.zip(back).zip(&self.wide).enumerate();
        rows.map(move |(row, ((there, back), wide))| {
            let [there, back] = [there, back].map(|[a, b, c]| u32::from_le_bytes([*a, *b, *c, 0]));
            if there & 3 != Liveness::Up as u32 {
                return None;
            }
            let is_long = wide.high.is_some() || here.is_some_and(|here| here.high.is_some());
            let loss = |wide: &Wide, at: usize| {
                wide.loss.as_ref().is_some_and(|loss| loss.get(at).is_some_and(|loss| *loss != 0))
            };
            let known = back & 3 != Self::UNKNOWN;
            let lossy = loss(wide, column) || known && here.is_some_and(|here| loss(here, row));
            let time = |word: u32, row, column| match word >> 2 {
                _ if is_long => self.get(row, column).map_or(0, |report| report.latency_us),
                Self::LOW_MAX => u32::MAX,
                low => low,
            };
            let there = time(there, row, column);
            let counts = known && back & 3 != Liveness::Down as u32;
            let latency = if counts { there.max(time(back, column, row)) } else { there };
            Some((latency, !lossy))
        })
    }

    /// Enters a report. True if the entry is another one now.
    pub(super) fn set(&mut self, row: usize, column: usize, report: LinkReport) -> bool {
        let latency = report.latency_us.min(Self::LATENCY_MAX);
        let kept = if latency == Self::LATENCY_MAX { u32::MAX } else { latency };
        let after = LinkReport { latency_us: kept, jitter_us: 0, ..report };
        let inside = column < self.width && row < self.wide.len();
        if !inside || self.get(row, column) == Some(after) {
            return false;
        }
        self.widen(row, latency, report.loss);
        let wide = &mut self.wide[row];
        if let Some(loss) = &mut wide.loss {
            loss[column] = report.loss.0;
        }
        let low = match &mut wide.high {
            Some(high) => {
                high[column] = (latency >> Self::LOW_BITS) as u8;
                latency & Self::LOW_MAX
            }
            None => latency.min(Self::LOW_MAX),
        };
        let [a, b, c, _] = (low << 2 | report.state as u32).to_le_bytes();
        self.low[row * self.width + column] = [a, b, c];
        true
    }

    /// Makes room in a row for a loss, or a long time, when it is the first.
    fn widen(&mut self, row: usize, latency: u32, loss: Loss) {
        let width = self.width;
        let wide = &mut self.wide[row];
        if loss != Loss::NONE {
            wide.loss.get_or_insert_with(|| vec![0; width].into());
        }
        if wide.high.is_none() && (Self::LOW_MAX..Self::LATENCY_MAX).contains(&latency) {
            let row = &self.low[row * width..(row + 1) * width];
            let long = |[a, b, c]: &[u8; 3]| {
                let low = u32::from_le_bytes([*a, *b, *c, 0]) >> 2;
                if low == Self::LOW_MAX { u8::MAX } else { 0 }
            };
            wide.high = Some(row.iter().map(long).collect());
        }
    }

    /// Nothing is known any more of a row.
    pub(super) fn forget(&mut self, row: usize) {
        self.low[row * self.width..(row + 1) * self.width].fill(Self::NONE);
        self.wide[row] = Wide::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROWS: usize = 3;
    const WIDTH: usize = 5;

    fn report() -> impl Strategy<Value = LinkReport> {
        let latency = prop_oneof![
            0..5_000_000_u32,
            Just(Cells::LOW_MAX - 1),
            Just(Cells::LOW_MAX),
            Just(Cells::LATENCY_MAX - 1),
            Just(Cells::LATENCY_MAX),
            any::<u32>(),
            Just(u32::MAX),
        ];
        let loss = prop_oneof![Just(0), Just(0), any::<u16>()];
        let state = prop_oneof![Just(Liveness::Up), Just(Liveness::Suspect), Just(Liveness::Down)];
        (latency, loss, state).prop_map(|(latency_us, loss, state)| LinkReport {
            latency_us,
            jitter_us: 0,
            loss: Loss(loss),
            state,
        })
    }

    proptest! {
        /// What was entered is what is found, whatever its neighbours are.
        #[test]
        fn nothing_is_lost_by_packing(
            steps in prop::collection::vec((0..ROWS, 0..WIDTH, prop::option::of(report())), 1..40),
        ) {
            let mut cells = Cells::new(ROWS, WIDTH);
            let mut model = [[None; WIDTH]; ROWS];
            for (row, column, report) in steps {
                match report {
                    Some(report) => {
                        let long = report.latency_us >= Cells::LATENCY_MAX;
                        let latency_us = if long { u32::MAX } else { report.latency_us };
                        let kept = Some(LinkReport { latency_us, ..report });
                        let changed = model[row][column] != kept;
                        prop_assert_eq!(cells.set(row, column, report), changed);
                        model[row][column] = kept;
                    }
                    None => {
                        cells.forget(row);
                        model[row] = [None; WIDTH];
                    }
                }
                for (column, back) in model.iter().enumerate() {
                    let works = |row: usize| {
                        let there = model[row][column].filter(|r| r.state == Liveness::Up)?;
                        let both = there.measured_worse(back[row]);
                        Some((both.latency_us, both.loss == Loss::NONE))
                    };
                    let expected: Vec<_> = (0..ROWS).map(works).collect();
                    prop_assert_eq!(cells.working(column).collect::<Vec<_>>(), expected);
                }
                for (row, expected) in model.iter().enumerate() {
                    for (column, expected) in expected.iter().enumerate() {
                        prop_assert_eq!(cells.get(row, column), *expected);
                    }
                }
            }
        }
    }

    #[test]
    fn rows_without_loss_take_three_bytes_and_strangers_none() {
        let mut cells = Cells::new(ROWS, WIDTH);
        let unknown = LinkReport { latency_us: u32::MAX, ..LinkReport::default() };
        assert!(cells.set(1, 1, unknown) && !cells.set(1, 1, unknown));
        assert!(cells.wide.iter().all(|wide| wide.loss.is_none() && wide.high.is_none()));
        assert!(!cells.set(1, WIDTH, unknown) && !cells.set(ROWS, 1, unknown));
        assert_eq!((cells.get(1, WIDTH), cells.get(ROWS, 0)), (None, None));
    }
}
