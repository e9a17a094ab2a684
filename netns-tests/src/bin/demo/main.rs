//! `demo`: the overlay of the RON paper's Figure 2 on real gateways and hosts, with a failure.
//!
//! The outer process makes the laboratory's namespaces and watches over them; the inner one, process
//! 1 in there, is the demonstration. Whatever happens to either, the kernel removes everything.

mod acts;
mod figure2;
mod outage;
mod outer;
mod screen;
mod strip;
mod tools;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use netns_tests::lab::process::tail;
use netns_tests::lab::programs::{find_gateway, find_program};
use netns_tests::lab::{Lab, enter};

use outer::Leash;
use screen::{Screen, Tone};

/// Four sites of the RON paper, their gateways, unmodified hosts, an outage, a way to the Internet.
///
/// Everything runs in network namespaces of its own and goes with this program. The exit status is
/// 0 only if all that is claimed at the end was seen to be so.
#[derive(Parser)]
#[command(name = "demo")]
struct Cli {
    /// Leave everything running after the summary, until Ctrl-C, and say how to look around.
    #[arg(long)]
    keep: bool,
    /// Use a user namespace even as root.
    #[arg(long)]
    rootless: bool,
    /// The inner side.
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = if cli.inside { inside(&cli) } else { outer::run(cli.keep, cli.rootless) };
    match result {
        Ok(code) => code,
        Err(error) => {
            Screen::new().put(Tone::Bad, &format!("error: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn inside(cli: &Cli) -> Result<ExitCode> {
    outer::accept_signals()?;
    let leash = Leash::new();
    enter::prepare()?;
    let mut screen = Screen::new();
    let mut stage = acts::Stage::default();
    let played = acts::play(&mut screen, &mut stage);
    if let Err(error) = &played {
        screen.put(Tone::Bad, &format!("\nThe demonstration stopped: {error:#}\n"));
        for (file, text) in enter::logs() {
            if file.ends_with("gateway.log") && !text.trim().is_empty() {
                screen.put(Tone::Dim, &format!("--- end of {file}\n{}\n", tail(&text, 12)));
            }
        }
    }
    let good = screen.summary() && played.is_ok();
    if let (true, Some(lab)) = (cli.keep, &stage.lab) {
        keep(&screen, lab, cli.rootless, &leash)?;
    }
    drop(stage);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says how to look around, and waits until the outer process closes our input.
fn keep(screen: &Screen, lab: &Lab, rootless: bool, leash: &Leash) -> Result<()> {
    let first = leash.first()?;
    let in_user_namespace =
        rootless || std::env::var_os(enter::ROOTLESS).is_some() || !outer::real_root();
    let user = if in_user_namespace { "-U --preserve-credentials " } else { "" };
    let (rongate, emulator) = (find_gateway()?, find_program("wan-emulator")?);
    let (rongate, emulator) = (rongate.display(), emulator.display());
    let control = lab.wan()?.socket().display();
    screen.put(Tone::Bold, "\nIt keeps running. Look around from another terminal:\n");
    let lines = [
        format!("demo() {{ nsenter -t {first} {user}-m -p -n \"$@\"; }}"),
        format!("rongate={rongate}"),
        "demo $rongate status --control /run/lab/mit/control.sock".into(),
        "demo $rongate paths --control /run/lab/mediaone/control.sock".into(),
        "demo $rongate explain 10.4.0.11 --control /run/lab/mit/control.sock".into(),
        "demo ip netns exec mit-h1 ping 10.4.0.11          (arosnet's host)".into(),
        "demo ip netns exec mediaone-h1 curl 203.0.113.80/whoami".into(),
        "demo ls /run/lab/mit                              (configuration, key, log)".into(),
        format!("cut() {{ demo {emulator} \\\n    set --control {control} --both \"$@\"; }}"),
        "cut mit-internet2 utah-internet2 '{down: true}'   (and false to heal it)".into(),
    ];
    for line in lines {
        screen.line(Tone::Plain, &line);
    }
    let namespaces: Vec<&str> = lab.namespaces().collect();
    for (number, names) in namespaces.chunks(7).enumerate() {
        let lead = if number == 0 { "namespaces:" } else { "           " };
        screen.line(Tone::Dim, &format!("{lead} {}", names.join(" ")));
    }
    screen.put(Tone::Bold, "Ctrl-C ends it.\n");
    leash.wait();
    Ok(())
}
