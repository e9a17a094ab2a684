//! What the gateway keeps on disk: its lock, and how far its handshake timestamps have come.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::time::WallClock;

/// How far ahead of use the timestamp on disk runs, so that it need not be written each time.
const RESERVE: Duration = Duration::from_secs(600);

/// How often a lock that is held is asked for, and the pause between.
const LOCK_TRIES: u32 = 25;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The state directory of one gateway, locked.
pub(crate) struct StateDir {
    dir: PathBuf,
    node: String,
    _lock: Flock<File>,
}

impl StateDir {
    /// Creates `dir` if need be and locks it for the gateway `node`.
    pub(crate) fn open(dir: &Path, node: &str) -> anyhow::Result<Self> {
        create_dir(dir).with_context(|| {
            format!("cannot create the state directory {} (node.state_dir)", dir.display())
        })?;
        let path = dir.join(format!("{node}.lock"));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match lock_patiently(file) {
            Ok(lock) => Ok(Self { dir: dir.to_owned(), node: node.to_owned(), _lock: lock }),
            Err(Errno::EWOULDBLOCK) => {
                bail!("another gateway named `{node}` is running: it holds {}", path.display())
            }
            Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    /// Where the record of the kernel set-up lies.
    pub(crate) fn kernel_record(&self) -> PathBuf {
        self.dir.join(format!("{}.kernel.json", self.node))
    }

    /// The greatest calendar time that a predecessor may have put into a handshake.
    pub(crate) fn wall_floor(&self) -> anyhow::Result<WallClock> {
        let path = self.timestamp_file();
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map(WallClock).map_err(|_| {
                anyhow::anyhow!("{} does not hold a number; remove it", path.display())
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(WallClock(0)),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Keeps what lets another thread extend the reservation.
    pub(crate) fn timestamp_keeper(&self) -> TimestampKeeper {
        TimestampKeeper { path: self.timestamp_file(), reserved: WallClock(0) }
    }

    fn timestamp_file(&self) -> PathBuf {
        self.dir.join(format!("{}.timestamp", self.node))
    }
}

/// Takes the lock. One that is held is asked for again a few times: a command that a killed
/// predecessor was about to start may hold it for an instant longer.
fn lock_patiently(mut file: File) -> Result<Flock<File>, Errno> {
    for _ in 0..LOCK_TRIES {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Err((back, Errno::EWOULDBLOCK)) => file = back,
            other => return other.map_err(|(_, error)| error),
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Err(Errno::EWOULDBLOCK)
}

/// Keeps the timestamp on disk ahead of those in use.
pub(crate) struct TimestampKeeper {
    path: PathBuf,
    reserved: WallClock,
}

impl TimestampKeeper {
    /// Makes sure that calendar times up to a few minutes after `wall` are reserved.
    pub(crate) fn reserve(&mut self, wall: WallClock) -> io::Result<()> {
        let reserve = RESERVE.as_nanos() as u64;
        if self.reserved.0 >= wall.0.saturating_add(reserve / 2) {
            return Ok(());
        }
        let next = WallClock(wall.0.saturating_add(reserve));
        write_whole(&self.path, format!("{}\n", next.0).as_bytes())?;
        self.reserved = next;
        Ok(())
    }
}

/// Replaces a file so that a reader sees the old content or the new, never a part.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(content)?;
    file.sync_data()?;
    fs::rename(&part, path)
}

/// Creates a directory with its parents, private to us where it is new.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.as_os_str().is_empty() || dir.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_gateway_of_the_same_name_is_refused_and_another_name_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::open(dir.path(), "mit").unwrap();
        let error = StateDir::open(dir.path(), "mit").err().unwrap().to_string();
        assert!(error.contains("another gateway named `mit` is running"), "{error}");
        assert!(StateDir::open(dir.path(), "utah").is_ok());
        drop(first);
        assert!(StateDir::open(dir.path(), "mit").is_ok());
    }

    #[test]
    fn a_lock_that_a_dying_predecessor_still_holds_is_awaited() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::open(dir.path(), "mit").unwrap();
        let dying = std::thread::spawn(move || {
            std::thread::sleep(LOCK_PAUSE * 3);
            drop(first);
        });
        StateDir::open(dir.path(), "mit").unwrap();
        dying.join().unwrap();
    }

    #[test]
    fn the_floor_is_ahead_of_every_timestamp_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path(), "mit").unwrap();
        assert_eq!(state.wall_floor().unwrap(), WallClock(0));
        let mut keeper = state.timestamp_keeper();
        for second in 0..2_000 {
            let wall = WallClock(second * 1_000_000_000);
            keeper.reserve(wall).unwrap();
            assert!(state.wall_floor().unwrap() > wall);
        }
        fs::write(state.timestamp_file(), "rubbish").unwrap();
        assert!(state.wall_floor().is_err());
    }
}
