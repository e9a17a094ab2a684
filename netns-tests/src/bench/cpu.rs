//! What processes have used.

use std::fs;

use anyhow::{Context, Result};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Clock ticks in a second, the unit of `/proc/PID/stat`.
pub(crate) fn ticks_per_second() -> f64 {
    sysconf(SysconfVar::CLK_TCK).ok().flatten().map_or(100.0, |ticks| ticks as f64)
}

/// The fields of `/proc/PID/stat` behind the command's name: the state is field 0.
pub(crate) fn stat_fields(stat: &str) -> Vec<&str> {
    stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect())
}

/// User and system time of a process in ticks, with all its threads.
pub(crate) fn ticks_of(fields: &[&str]) -> Option<u64> {
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// Seconds of processor time that each process has used, with all its threads, those that ended
/// included.
pub(crate) fn seconds(pids: &[u32]) -> Result<Vec<f64>> {
    let of = |&pid: &u32| {
        let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?));
        let time = clock.and_then(clock_gettime).with_context(|| format!("process {pid}"))?;
        Ok(time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
    };
    pids.iter().map(of).collect()
}

/// Resident memory of a process in megabytes.
pub(crate) fn resident_mb(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_blanks_and_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 9 0 0 0 120 34 0 0 20 0 3 0 100 0 0";
        assert_eq!(ticks_of(&stat_fields(stat)), Some(154));
        assert_eq!(ticks_of(&stat_fields("damaged")), None);
    }

    #[test]
    fn our_own_use_can_be_read() {
        let own = std::process::id();
        assert!(seconds(&[own]).unwrap()[0] >= 0.0);
        assert!(resident_mb(own).unwrap() > 0.1);
    }
}
