//! `rongate metric`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::output::{span, via};
use super::table::Table;
use super::{Gateway, Outcome, control_client};
use crate::config::parse_duration;
use crate::gateway::status::{AppValueList, Request};

/// Give paths values for classes with `metric: app`, the lowest being the best
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  rongate metric set utah 12.5                       the direct paths to utah, for a minute
  rongate metric set utah --via aros 3 --ttl 10m     the one through aros
  rongate metric clear utah --via aros
  rongate metric list --json

Repeat a value before it expires. Where no usable path has one, latency decides.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Give a path a value
    Set {
        #[command(flatten)]
        path: PathArguments,
        /// The value, 0 or greater
        value: f64,
        /// How long it holds: 1s to 24h
        #[arg(long, default_value = "60s", value_name = "TIME", value_parser = ttl)]
        ttl: Duration,
    },
    /// Take a value back
    Clear {
        #[command(flatten)]
        path: PathArguments,
    },
    /// Show the values that are in force
    List {
        #[command(flatten)]
        gateway: Gateway,
        /// Print a JSON document
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
struct PathArguments {
    #[command(flatten)]
    gateway: Gateway,
    /// The peer that the path leads to
    peer: String,
    /// The relay that it goes through; without it, the direct path
    #[arg(long, value_name = "PEER", conflicts_with = "uplink")]
    via: Option<String>,
    /// The uplink that the direct path begins on; without it, all
    #[arg(long, value_name = "NAME")]
    uplink: Option<String>,
    /// Print the values then in force as a JSON document
    #[arg(long)]
    json: bool,
}

fn ttl(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let (path, value, ttl) = match &arguments.command {
        Command::List { gateway, json } => {
            return control_client::show(gateway, &Request::Metrics, *json, render);
        }
        Command::Set { path, value, ttl } => (path, Some(*value), *ttl),
        Command::Clear { path } => (path, None, Duration::ZERO),
    };
    let request = Request::SetMetric {
        peer: path.peer.clone(),
        via: path.via.clone(),
        uplink: path.uplink.clone(),
        value,
        ttl_s: ttl.as_secs_f64(),
    };
    control_client::show(&path.gateway, &request, path.json, render)
}

fn render(list: &AppValueList) -> String {
    let mut table = Table::new(&["PEER", "VIA", "UPLINK", ">VALUE", ">EXPIRES"]);
    for value in &list.values {
        table.row([
            value.peer.clone(),
            via(value.via.as_deref()).to_owned(),
            value.uplink.clone().unwrap_or_else(|| "-".into()),
            value.value.to_string(),
            span(Some(value.expires_s)),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::status::AppValueStatus;

    #[test]
    fn values_have_lines() {
        let value = AppValueStatus {
            peer: "utah".into(),
            via: Some("aros".into()),
            value: 12.5,
            expires_s: 59.0,
            ..Default::default()
        };
        let shown = render(&AppValueList { values: vec![value] });
        let expected = "PEER  VIA   UPLINK  VALUE  EXPIRES\nutah  aros  -        12.5      59s\n";
        assert_eq!(shown, expected);
    }
}
