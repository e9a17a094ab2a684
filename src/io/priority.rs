//! How eagerly the host runs the data path's thread.

use std::io;

/// Gives the calling thread the nice value `nice`, unless whoever started us has set one already.
/// Below zero it takes `CAP_SYS_NICE`.
#[expect(unsafe_code, reason = "no wrapper sets a thread's nice value")]
pub(crate) fn raise(nice: i32) -> io::Result<()> {
    // SAFETY: both calls take plain numbers; zero means the calling thread, of which Linux keeps
    // its own nice value. Nice values from -20 to -1 cannot be told from an error, but only zero
    // is of interest here.
    let result = unsafe {
        if libc::getpriority(libc::PRIO_PROCESS, 0) != 0 {
            return Ok(());
        }
        libc::setpriority(libc::PRIO_PROCESS, 0, nice)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The calling thread's nice value, field 19 of its `stat`.
    fn nice() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn of_one_thread_and_only_if_nobody_has_chosen_already() {
        let before = nice();
        let thread = std::thread::spawn(move || {
            raise(5).unwrap();
            let chosen = nice();
            assert_eq!(chosen, if before == 0 { 5 } else { before });
            raise(7).unwrap();
            assert_eq!(nice(), chosen);
        });
        thread.join().unwrap();
        assert_eq!(nice(), before);
    }
}
