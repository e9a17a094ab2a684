//! Applies nftables rulesets through the `nft` command: one text, one transaction.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// True when the command can be run.
pub(crate) fn is_installed() -> bool {
    Command::new("nft")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .stdin(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Applies `ruleset` as a whole or not at all.
pub(crate) fn apply(ruleset: &str) -> anyhow::Result<()> {
    hand_over(&["-f", "-"], ruleset)
}

fn hand_over(arguments: &[&str], ruleset: &str) -> anyhow::Result<()> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run `nft`: install nftables")?;
    if let Some(mut stdin) = child.stdin.take()
        && let Err(error) = stdin.write_all(ruleset.as_bytes())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(error).context("cannot hand rules to `nft`");
    }
    let output = child.wait_with_output().context("`nft` did not end")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`nft` refused the rules: {}", said.trim().lines().next().unwrap_or("no reason"));
    }
    Ok(())
}

/// Has the kernel look at `ruleset` without applying it.
pub(crate) fn check(ruleset: &str) -> anyhow::Result<()> {
    hand_over(&["-c", "-f", "-"], ruleset)
}

/// All chains there are, as `nft` writes them in JSON.
pub(crate) fn list_chains() -> anyhow::Result<serde_json::Value> {
    let output = Command::new("nft")
        .args(["-j", "list", "chains"])
        .stdin(Stdio::null())
        .output()
        .context("cannot run `nft`")?;
    serde_json::from_slice(&output.stdout).context("`nft` does not list chains")
}

/// True when `table` (family and name) is there.
pub(crate) fn has_table(table: &str) -> bool {
    let mut command = Command::new("nft");
    command.args(["list", "table"]).args(table.split(' '));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Makes `table` (family and name) hold exactly what `body` says, whatever was there.
pub(crate) fn replacement(table: &str, body: &str) -> String {
    format!("table {table} {{}}\ndelete table {table}\ntable {table} {{\n{body}}}\n")
}

/// Removes `table` if it is there.
pub(crate) fn removal(table: &str) -> String {
    format!("table {table} {{}}\ndelete table {table}\n")
}
