//! Counts the instructions of a step with valgrind's callgrind.

use std::process::{Command, Stdio};

use super::steps::Step;

/// What the processor chooses: the cipher, and what the C library copies and compares with.
const LEFT_OUT: [&str; 12] = [
    "aws_lc",
    "aead_",
    "EVP_AEAD",
    "CRYPTO_",
    "gcm",
    "aesni",
    "aes_",
    "iv_len_12",
    "OPENSSL",
    "mem",
    "strlen",
    "_dl_",
];

/// True when valgrind is there.
pub(crate) fn is_possible() -> bool {
    let mut command = Command::new("valgrind");
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Instructions of our own code per unit.
pub(crate) fn instructions(step: &Step, runs: usize) -> Option<f64> {
    let program = std::env::current_exe().ok()?;
    let name = format!("callgrind-{}-{}", std::process::id(), step.name.replace([' ', ','], ""));
    let file = std::env::temp_dir().join(name);
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--toggle-collect=*measured_run*", "--compress-strings=no"])
        .args(["--compress-pos=no", "--quiet"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .args(["--count", step.name]);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
    let profile = std::fs::read_to_string(&file);
    let _ = std::fs::remove_file(&file);
    let total = status.success().then(|| own(&profile.unwrap_or_default()))?;
    (total > 0).then_some(total as f64 / (runs * step.per) as f64)
}

/// Sums what functions of ours spent themselves, from the profile's text: `fn=NAME`, then lines
/// `position cost`; the one behind `calls=` is the callee's.
fn own(profile: &str) -> u64 {
    let mut total = 0;
    let mut counts = false;
    let mut callee = false;
    for line in profile.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            counts = !LEFT_OUT.iter().any(|part| name.contains(part)) || name.contains("rongate");
        } else if line.starts_with("calls=") {
            callee = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '-' || c == '*')
        {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok());
            if counts && !callee {
                total += cost.unwrap_or(0);
            }
            callee = false;
        }
    }
    total
}
