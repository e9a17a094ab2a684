//! `rongate doctor`.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Outcome, output};
use crate::config;
use crate::gateway::doctor::{Finding, Severity, examine};

/// Look for what keeps a gateway from working on this host: firewall, kernel, addresses, ports
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  rongate doctor --config /etc/rongate/mit.yaml
  rongate doctor --config mit.yaml --all        what is fine, too

Nothing is changed. Each finding is one line: `wrong` keeps the gateway from working and makes the
exit status 1; `doubtful` may be meant so.")]
pub(super) struct Arguments {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Tell what is fine, too
    #[arg(long)]
    all: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let config = config::load(&arguments.config)?;
    let findings = examine(&config)?;
    output::write(&render(&findings, arguments.all))?;
    let wrong = findings.iter().filter(|f| f.severity == Severity::Wrong).count();
    if wrong > 0 {
        return Err(Failure::Fault(anyhow::anyhow!("{wrong} of the findings must be mended")));
    }
    Ok(())
}

fn render(findings: &[Finding], all: bool) -> String {
    let mut text = String::new();
    let mut shown: Vec<_> =
        findings.iter().filter(|f| all || f.severity > Severity::Fine).collect();
    shown.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    for Finding { severity, what } in shown {
        let word = match severity {
            Severity::Fine => "fine",
            Severity::Doubtful => "doubtful",
            Severity::Wrong => "wrong",
        };
        text += &format!("{word:8}  {what}\n");
    }
    if text.is_empty() {
        text.push_str("fine      nothing was found\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first_and_what_is_fine_only_if_asked_for() {
        let finding = |severity, what: &str| Finding { severity, what: what.into() };
        let all = [
            finding(Severity::Fine, "a"),
            finding(Severity::Doubtful, "b"),
            finding(Severity::Wrong, "c"),
        ];
        assert_eq!(render(&all, false), "wrong     c\ndoubtful  b\n");
        assert_eq!(render(&all, true), "wrong     c\ndoubtful  b\nfine      a\n");
        assert_eq!(render(&all[..1], false), "fine      nothing was found\n");
    }
}
