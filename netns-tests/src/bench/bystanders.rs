//! What else the machine does while a sample is taken.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::cpu;
use crate::lab::clock;

const INTERVAL: Duration = Duration::from_millis(250);
/// Threads of the kernel: they work for whoever causes it (`PF_KTHREAD`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Adds up, four times a second, the processor time of processes that do not descend from ours.
/// What began and ended between two looks is missed.
#[derive(Debug)]
pub(crate) struct Bystanders {
    total: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A moment from which on to count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since {
    ticks: u64,
    at: Instant,
}

impl Bystanders {
    /// Begins to watch.
    pub(crate) fn watch() -> Self {
        let (total, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (sum, end) = (total.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let mut last = foreign_ticks(std::process::id());
            while !end.load(Ordering::Relaxed) {
                thread::sleep(INTERVAL);
                let now = foreign_ticks(std::process::id());
                sum.fetch_add(growth(&last, &now), Ordering::Relaxed);
                last = now;
            }
        });
        Self { total, stop, thread: Some(thread) }
    }

    /// Now.
    pub(crate) fn mark(&self) -> Since {
        Since { ticks: self.total.load(Ordering::Relaxed), at: clock::now() }
    }

    /// The share of all processors that others had since then, from 0 to 1.
    pub(crate) fn share(&self, since: Since) -> f64 {
        let ticks = self.total.load(Ordering::Relaxed) - since.ticks;
        let processors = thread::available_parallelism().map_or(1, usize::from) as f64;
        let available = since.at.elapsed().as_secs_f64() * processors * cpu::ticks_per_second();
        if available > 0.0 { ticks as f64 / available } else { 0.0 }
    }
}

impl Drop for Bystanders {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The ticks of every process that is neither the kernel's nor a descendant of `own`.
fn foreign_ticks(own: u32) -> BTreeMap<u32, u64> {
    let mut all = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        // It may have ended in between.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let fields = cpu::stat_fields(&stat);
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        if let (Some(parent), Some(flags), Some(ticks)) =
            (number(1), number(6), cpu::ticks_of(&fields))
            && flags & KERNEL_THREAD == 0
        {
            all.insert(pid, (parent as u32, ticks));
        }
    }
    let descends = |mut pid: u32| {
        while pid != own {
            let Some(&(parent, _)) = all.get(&pid) else { return false };
            pid = parent;
        }
        true
    };
    let foreign = all.iter().filter(|(pid, _)| !descends(**pid));
    foreign.map(|(&pid, &(_, ticks))| (pid, ticks)).collect()
}

fn growth(last: &BTreeMap<u32, u64>, now: &BTreeMap<u32, u64>) -> u64 {
    // Nobody uses more than this between two looks; what was overlooked before counts as new.
    let most = (INTERVAL.as_secs_f64() * 2.0 * cpu::ticks_per_second()) as u64;
    let grown = |(pid, ticks): (&u32, &u64)| ticks.saturating_sub(*last.get(pid).unwrap_or(&0));
    now.iter().map(grown).map(|ticks| ticks.min(most)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_processes_are_not_foreign() {
        let own = std::process::id();
        let foreign = foreign_ticks(own);
        assert!(!foreign.contains_key(&own));
        assert!(foreign_ticks(u32::MAX).contains_key(&own));
    }

    #[test]
    fn what_processes_used_between_two_looks_is_added_up() {
        let last = BTreeMap::from([(1, 10), (2, 20)]);
        let now = BTreeMap::from([(1, 15), (3, 4)]);
        assert_eq!(growth(&last, &now), 9);
    }
}
