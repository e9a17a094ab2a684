//! `rongate explain`.

use std::net::IpAddr;

use clap::Args;

use super::{Gateway, Outcome, control_client, paths};
use crate::config::{parse_dscp, parse_flow_label};
use crate::gateway::status::{Explanation, PacketFields, Request};

/// Say where packets go and why: for a destination, or for one flow
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  rongate explain 10.2.0.5
  rongate explain 10.2.0.5 --from 10.1.7.9 --protocol udp --to-port 5004 --dscp ef
  rongate explain fd00:2::5 --interface lan0 --flow-label 0x12345
  rongate explain tcp 10.1.0.5:40000 203.0.113.80:80

For a bare address the packet is one of the router itself: say what is known of a host's.")]
pub(super) struct Arguments {
    #[command(flatten)]
    gateway: Gateway,
    /// A destination address, or a flow as PROTOCOL SOURCE DESTINATION
    #[arg(required = true, num_args = 1..=3, value_name = "FLOW|ADDRESS")]
    subject: Vec<String>,
    #[command(flatten)]
    packet: Packet,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

/// What classes may match. All but the last two are for a bare address: a flow says them itself
#[derive(Args, Debug)]
#[command(next_help_heading = "Of the packet")]
struct Packet {
    /// Its source
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// The LAN interface that it comes in by: from a host behind it
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    interface: Option<String>,
    /// tcp, udp, sctp, icmp, or a protocol number
    #[arg(long)]
    protocol: Option<String>,
    /// Its source port
    #[arg(long, value_name = "PORT", requires = "protocol")]
    from_port: Option<u16>,
    /// Its destination port
    #[arg(long, value_name = "PORT", requires = "protocol")]
    to_port: Option<u16>,
    /// Its code point, as in `classes`: ef, af11, 0 to 63
    #[arg(long, value_name = "DSCP", value_parser = dscp)]
    dscp: Option<u8>,
    /// Its IPv6 flow label, 0x0 to 0xfffff
    #[arg(long, value_name = "LABEL", value_parser = flow_label)]
    flow_label: Option<u32>,
}

fn dscp(text: &str) -> Result<u8, String> {
    parse_dscp(text).ok_or_else(|| "use a name like `ef`, `af41` or `cs1`, or 0 to 63".to_owned())
}

fn flow_label(text: &str) -> Result<u32, String> {
    parse_flow_label(text).ok_or_else(|| "use 0 to 1048575, or 0x0 to 0xfffff".to_owned())
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let packet = &arguments.packet;
    let packet = PacketFields {
        from: packet.from,
        interface: packet.interface.clone(),
        protocol: packet.protocol.clone(),
        source_port: packet.from_port,
        destination_port: packet.to_port,
        dscp: packet.dscp,
        flow_label: packet.flow_label,
    };
    let request = Request::Explain { subject: arguments.subject.join(" "), packet };
    control_client::show(&arguments.gateway, &request, arguments.json, render)
}

fn render(explanation: &Explanation) -> String {
    let mut text = format!("{}\n", explanation.subject);
    let steps = &explanation.steps;
    let width = steps.iter().map(|step| step.question.chars().count()).max().unwrap_or(0);
    for step in steps {
        text += &format!("  {:width$}  {}\n", step.question, step.answer);
    }
    let metric = explanation.routing.as_ref().map_or("latency", |routing| routing.metric.as_str());
    if !explanation.candidates.is_empty() {
        text += &format!("\n{}", paths::candidates(metric, &explanation.candidates));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::status::ExplanationStep;

    #[test]
    fn the_steps_are_listed_in_order() {
        let step = |question: &str, answer: &str| ExplanationStep {
            question: question.into(),
            answer: answer.into(),
        };
        let explanation = Explanation {
            subject: "10.2.0.5".into(),
            steps: vec![step("destination", "in 10.2.0.0/16 of utah"), step("path", "direct")],
            ..Default::default()
        };
        let expected = "10.2.0.5\n  destination  in 10.2.0.0/16 of utah\n  path         direct\n";
        assert_eq!(render(&explanation), expected);
    }
}
