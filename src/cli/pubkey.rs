//! `rongate pubkey`.

use std::io::Read as _;

use anyhow::Context as _;
use clap::Args;
use zeroize::Zeroizing;

use super::{Outcome, output};
use crate::config::Secret;

/// Print the public key of the private key on stdin
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  rongate pubkey < mit.key
  rongate keygen | tee mit.key | rongate pubkey")]
pub(super) struct Arguments {}

/// A key has 45 bytes with its newline.
const INPUT_LEN_MAX: u64 = 4096;

pub(super) fn run(_arguments: &Arguments) -> Outcome {
    let mut text = Zeroizing::new(String::with_capacity(INPUT_LEN_MAX as usize));
    let mut input = std::io::stdin().lock().take(INPUT_LEN_MAX);
    input.read_to_string(&mut text).context("cannot read stdin")?;
    let secret = Secret::from_base64(&text).ok().context(
        "stdin holds no private key: expected 44 characters of base64 (32 bytes), as `rongate \
         keygen` writes them",
    )?;
    output::write(&format!("{}\n", secret.public_key()))
}
