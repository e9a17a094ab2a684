//! Processes of the laboratory: bounded runs of tools, and long-running ones with a log.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{clock, sys};

/// What a bounded run left behind.
#[derive(Debug)]
pub struct Finished {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Everything it wrote to standard output.
    pub stdout: String,
    /// Everything it wrote to standard error.
    pub stderr: String,
    /// Time from start to end.
    pub elapsed: Duration,
}

impl Finished {
    /// Turns every exit status but 0 into an error that shows the output.
    pub fn success(self) -> Result<Self> {
        ensure!(
            self.status.success(),
            "`{}` ended with {}\n{}{}",
            self.command,
            describe(self.status),
            self.stdout,
            self.stderr
        );
        Ok(self)
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".into(),
    }
}

/// The command line as a reader would type it.
pub fn command_line(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

fn memory_file() -> Result<File> {
    Ok(memfd_create("output", MFdFlags::MFD_CLOEXEC)?.into())
}

fn contents(mut file: File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Runs `command` to its end, at most for `limit`; past that it is killed and the result an error.
///
/// A nonzero exit status is not an error here; see [`Finished::success`].
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    run_with_input(command, "", limit)
}

/// Like [`run`], with `input` on standard input.
pub fn run_with_input(command: &mut Command, input: &str, limit: Duration) -> Result<Finished> {
    let line = command_line(command);
    let (stdin, stdout, stderr) = (memory_file()?, memory_file()?, memory_file()?);
    std::io::Write::write_all(&mut &stdin, input.as_bytes())?;
    (&stdin).rewind()?;
    command.stdin(stdin).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let start = clock::now();
    let mut child = sys::die_with_parent(command).spawn().with_context(|| format!("run {line}"))?;
    let ended = wait_at_most(&mut child, start + limit)?;
    if ended.is_none() {
        child.kill()?;
    }
    let status = child.wait()?;
    let finished = Finished {
        command: line,
        status,
        stdout: contents(stdout)?,
        stderr: contents(stderr)?,
        elapsed: start.elapsed(),
    };
    if ended.is_none() {
        bail!(
            "`{}` did not end within {limit:?}\n{}{}",
            finished.command,
            finished.stdout,
            finished.stderr
        );
    }
    Ok(finished)
}

fn wait_at_most(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if clock::now() >= deadline {
            return Ok(None);
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// A process that runs beside the scenario. Killed, by its pid, when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints is appended to the file `log`.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        command.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file);
        let child = sys::die_with_parent(command)
            .spawn()
            .with_context(|| format!("start {name}: {}", command_line(command)))?;
        Ok(Self { name: name.into(), child, log: log.into() })
    }

    /// The name given at the start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything printed up to this moment.
    pub fn log_text(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The exit status, once it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Fails, with the end of the log, if the process has ended.
    pub fn ensure_running(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended with {}; its last words:\n{}",
                self.name,
                describe(status),
                tail(&self.log_text(), 30)
            ),
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)
            .with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Closes its standard input and waits for its end, at most for `limit`.
    pub fn close_input(&mut self, limit: Duration) -> Result<ExitStatus> {
        drop::<Option<ChildStdin>>(self.child.stdin.take());
        self.wait(limit)
    }

    /// Asks it to end (SIGTERM) and waits; an error if it does not within `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }

    /// Waits for its end; an error if it does not come within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        wait_at_most(&mut self.child, clock::now() + limit)?.with_context(|| {
            format!("{} still runs after {limit:?}:\n{}", self.name, tail(&self.log_text(), 30))
        })
    }

    /// Kills it at once (SIGKILL), as a crash or the OOM killer would, and reaps it.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.kill();
    }
}

/// The last `lines` lines of `text`.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_bounded_and_shows_its_output() {
        let mut endless = Command::new("sh");
        endless.args(["-c", "echo started; exec sleep 60"]);
        let error = run(&mut endless, Duration::from_millis(200)).unwrap_err().to_string();
        assert!(error.contains("did not end") && error.contains("started"), "{error}");
    }

    #[test]
    fn input_and_both_outputs_are_carried() {
        let mut command = Command::new("sh");
        command.args(["-c", "cat; echo bad >&2; exit 3"]);
        let end = run_with_input(&mut command, "hello", Duration::from_secs(5)).unwrap();
        assert_eq!((end.stdout.as_str(), end.stderr.as_str()), ("hello", "bad\n"));
        assert!(end.success().unwrap_err().to_string().contains("exit status 3"));
    }

    #[test]
    fn tail_keeps_the_end() {
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a", 5), "a");
    }
}
