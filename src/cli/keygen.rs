//! `rongate keygen`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::{Outcome, output, tell};
use crate::config::Secret;

/// Make a new key: the identity of a node, or a secret that an overlay shares
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  rongate keygen --out mit.key        a private key; its public key is printed
  rongate keygen --out overlay.psk    a pre-shared key; ignore what is printed
  rongate keygen > mit.key            the same without care for the file's permissions

The public key goes into the configuration of all peers, the file into `node.private_key_file`.")]
pub(super) struct Arguments {
    /// File for the private key, made with mode 0600; one that exists is never overwritten.
    /// Without it the private key goes to stdout and the public key to stderr
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let mut secret = Secret([0; 32]);
    getrandom::fill(&mut secret.0).context("the system has no randomness")?;
    let public = secret.public_key();
    let Some(path) = &arguments.out else {
        tell(&format!("public key: {public}"));
        output::write(&secret.to_base64())?;
        return output::write("\n");
    };
    write_new(path, &secret)?;
    output::write(&format!("{public}\n"))
}

/// Writes a key file that nobody else could read at any time.
fn write_new(path: &Path, secret: &Secret) -> anyhow::Result<()> {
    let shown = path.display();
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = match file {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            anyhow::bail!("{shown} exists, and keys are never overwritten: choose another name");
        }
        file => file.with_context(|| format!("cannot make {shown}"))?,
    };
    let text = secret.to_base64();
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all());
    if let Err(error) = written {
        // Half a key is worse than none; that it cannot be removed either adds nothing.
        let _ = std::fs::remove_file(path);
        return Err(error).with_context(|| format!("cannot write {shown}"));
    }
    Ok(())
}
