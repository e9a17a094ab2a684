//! The emulator as a child process.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::control::Control;
use super::report::Report;
use super::scenario::Scenario;
use super::sys;

/// How long the emulator may take to make its interfaces.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it may take to end when asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A running emulator. Dropping it ends the process; it also ends when this process dies.
#[derive(Debug)]
pub struct WanEmulator {
    child: Child,
    /// Its end of file tells the child that we are gone.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    folder: PathBuf,
    control: Control,
}

impl WanEmulator {
    /// Starts the `wan-emulator` that lies beside this executable and waits until all interfaces
    /// are there. `WAN_EMULATOR_BIN` names another.
    pub fn spawn(scenario: &Scenario) -> Result<Self> {
        Self::spawn_program(&find_program()?, scenario)
    }

    /// Starts `program` and waits until all interfaces are there.
    pub fn spawn_program(program: &Path, scenario: &Scenario) -> Result<Self> {
        scenario.validate()?;
        let folder = make_folder()?;
        let text = serde_yaml::to_string(scenario)?;
        let file = folder.join("scenario.yaml");
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        let socket = folder.join("control.sock");
        let mut child = Command::new(program)
            .arg("run")
            .arg(&file)
            .arg("--control")
            .arg(&socket)
            .arg("--until-eof")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let control = Control::new(socket);
        let mut emulator = Self { child, stdin, stdout, folder, control };
        emulator.wait_until_ready()?;
        Ok(emulator)
    }

    /// Changes and reads the running emulation.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the emulation and returns its report; an invalid run is an error.
    pub fn finish(mut self) -> Result<Report> {
        let report = self.stop()?;
        ensure!(report.valid, "invalid run: {}", report.problems.join("; "));
        Ok(report)
    }

    /// Ends the emulation and returns its report, valid or not.
    pub fn stop(&mut self) -> Result<Report> {
        drop(self.stdin.take());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).context("reading the report")?;
        self.wait(STOP_TIMEOUT)?;
        serde_json::from_str(&rest).with_context(|| format!("the emulator's last words: `{rest}`"))
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        if !sys::readable_within(self.stdout.get_ref(), READY_TIMEOUT) {
            bail!("the WAN emulator did not become ready");
        }
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("reading from the WAN emulator")?;
        ensure!(line.contains("\"ready\":true"), "the WAN emulator failed to start; see above");
        Ok(())
    }

    fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let steps = timeout.as_millis() / 5;
        for _ in 0..steps {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("the WAN emulator did not end")
    }
}

impl Drop for WanEmulator {
    fn drop(&mut self) {
        drop(self.stdin.take());
        if self.wait(Duration::from_millis(500)).is_err() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// The `wan-emulator` beside this executable, or one folder up (tests lie in `deps/`).
fn find_program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("WAN_EMULATOR_BIN") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("where is this program?")?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("wan-emulator"))
        .find(|path| path.is_file())
        .with_context(|| format!("no wan-emulator near {}: build it first", own.display()))
}

fn make_folder() -> Result<PathBuf> {
    let template = std::env::temp_dir().join("wan-emulator-XXXXXX");
    nix::unistd::mkdtemp(&template).with_context(|| format!("cannot make {}", template.display()))
}
