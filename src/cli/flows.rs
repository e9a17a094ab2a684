//! `rongate flows`.

use clap::Args;

use super::output::{count, span, via};
use super::table::Table;
use super::{Gateway, Outcome, control_client};
use crate::gateway::status::{FLOWS_LIMIT_MAX, FlowList, Request};

/// List the flows of a gateway, with class, egress and path
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  rongate flows
  rongate flows --limit 1000 --offset 1000
  rongate flows --limit 10000 --json | jq -r '.flows[] | select(.egress == \"utah\") | .source'")]
pub(super) struct Arguments {
    #[command(flatten)]
    gateway: Gateway,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = limit)]
    limit: usize,
    /// Skip so many first
    #[arg(long, value_name = "N", default_value_t = 0)]
    offset: usize,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

fn limit(text: &str) -> Result<usize, String> {
    let wrong = || format!("use 1 to {FLOWS_LIMIT_MAX}");
    text.parse().ok().filter(|n| (1..=FLOWS_LIMIT_MAX).contains(n)).ok_or_else(wrong)
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let request = Request::Flows { limit: arguments.limit, offset: arguments.offset };
    control_client::show(&arguments.gateway, &request, arguments.json, render)
}

fn render(list: &FlowList) -> String {
    let mut table = Table::new(&[
        "PROTO",
        "SOURCE",
        "DESTINATION",
        "CLASS",
        "EGRESS",
        "VIA",
        ">PACKETS",
        ">BYTES",
        ">AGE",
        ">IDLE",
    ]);
    for flow in &list.flows {
        table.row([
            flow.protocol.clone(),
            flow.source.clone(),
            flow.destination.clone(),
            flow.class.clone(),
            flow.egress.clone(),
            via(flow.via.as_deref()).to_owned(),
            count(flow.packets),
            count(flow.bytes),
            span(Some(flow.age_s)),
            span(Some(flow.idle_s)),
        ]);
    }
    let shown = list.flows.len() as u64;
    let mut text = table.render();
    if shown < list.total {
        text += &format!("{shown} of {} flows, from number {}\n", list.total, list.offset);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::status::FlowStatus;

    #[test]
    fn a_part_of_the_table_says_so() {
        let flow = FlowStatus {
            protocol: "tcp".into(),
            source: "10.1.0.5:40000".into(),
            destination: "203.0.113.80:80".into(),
            class: "default".into(),
            egress: "utah".into(),
            via: None,
            packets: 12,
            bytes: 34_567,
            age_s: 75.0,
            idle_s: 0.04,
        };
        let list = FlowList { total: 3, offset: 2, flows: vec![flow] };
        let expected = "\
PROTO  SOURCE          DESTINATION      CLASS    EGRESS  VIA     PACKETS  BYTES    AGE  IDLE
tcp    10.1.0.5:40000  203.0.113.80:80  default  utah    direct       12  34.6k  1m15s  0.0s
1 of 3 flows, from number 2
";
        assert_eq!(render(&list), expected);
    }

    #[test]
    fn the_limit_is_bounded() {
        assert_eq!(limit("10000"), Ok(10_000));
        assert!(limit("10001").is_err() && limit("0").is_err() && limit("many").is_err());
    }
}
