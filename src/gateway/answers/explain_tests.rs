use super::*;
use crate::gateway::kernel::test_site;
use crate::gateway::node_config::tests::from_site;
use crate::time::WallClock;

const SITE: [&str; 2] = [
    "uplinks: [{ name: isp1, interface: wan0, listen: \"auto:4710\" }]
lan: { interfaces: [lan0], networks: [10.1.0.0/16, \"fd00:1::/64\"] }
",
    "classes:
  - { name: research, match: { source: [10.1.7.0/24] }, only: { uplinks: [isp1] } }
  - { name: voice, match: { protocol: udp, dscp: ef, destination_ports: [5004] } }
  - { name: label, match: { flow_label: 0x12345 } }
  - { name: pings, match: { protocol: icmp } }
  - { name: lan, match: { interface: [lan0] } }
  - { name: default }
",
];

/// What is said of a packet that nobody sent yet.
fn explained(text: &str, packet: &PacketFields) -> Result<Explanation, String> {
    let (config, facts) = test_site(&SITE);
    let now = Instant::from_micros(1);
    let node = Node::new(from_site(&config, &facts), [7; 32], now, WallClock(1));
    let scene = Scene { config: &config, local: vec![None], nat_log_lost: 0 };
    explain(&node, now, &scene, text, packet)
}

fn answer<'e>(explanation: &'e Explanation, question: &str) -> &'e str {
    let step = explanation.steps.iter().find(|step| step.question == question);
    step.map_or("", |step| step.answer.as_str())
}

/// The class, without its quotes.
fn class(text: &str, packet: &PacketFields) -> String {
    let explanation = explained(text, packet).unwrap();
    answer(&explanation, "class").split('`').nth(1).unwrap().to_owned()
}

fn from(address: &str) -> PacketFields {
    PacketFields { from: Some(address.parse().unwrap()), ..PacketFields::default() }
}

#[test]
fn what_is_known_of_a_packet_decides_about_its_class() {
    let anything = PacketFields::default();
    assert_eq!(class("10.2.0.5", &anything), "default");
    assert_eq!(class("10.2.0.5", &from("10.1.7.9")), "research");
    assert_eq!(class("10.2.0.5", &from("10.1.0.9")), "lan");
    let protocol = |name: &str| Some(name.to_owned());
    let voice = PacketFields {
        protocol: protocol("udp"),
        destination_port: Some(5_004),
        dscp: Some(46),
        ..anything.clone()
    };
    assert_eq!(class("10.2.0.5", &voice), "voice");
    assert_eq!(class("10.2.0.5", &PacketFields { dscp: None, ..voice.clone() }), "default");
    let other = PacketFields { destination_port: None, source_port: Some(5_004), ..voice };
    assert_eq!(class("10.2.0.5", &other), "default");
    let marked = PacketFields { flow_label: Some(0x1_2345), ..anything.clone() };
    assert_eq!(class("fd00:2::5", &marked), "label");
    assert_eq!(class("fd00:2::5", &anything), "default");
    let ping = PacketFields { protocol: protocol("icmp"), ..anything };
    assert_eq!([class("10.2.0.5", &ping), class("fd00:2::5", &ping)], ["pings"; 2]);
}

#[test]
fn a_flow_takes_marks_and_nothing_else() {
    let flow = "udp 10.1.0.9:4000 10.2.0.5:5004";
    let marked = PacketFields { dscp: Some(46), ..PacketFields::default() };
    assert_eq!(class(flow, &PacketFields::default()), "lan");
    assert_eq!(class(flow, &marked), "voice");
    assert_eq!(answer(&explained(flow, &marked).unwrap(), "packet"), "code point 46");
    let why = explained(flow, &from("10.1.7.9")).unwrap_err();
    assert_eq!(why, "a flow says its protocol, its source and its ports itself");
}

#[test]
fn what_is_assumed_is_said() {
    let own = explained("10.2.0.5", &PacketFields::default()).unwrap();
    let said = answer(&own, "packet");
    assert!(said.starts_with("one of this router itself (10.77.0.1)"), "{said}");
    let research = explained("10.2.0.5", &from("10.1.7.9")).unwrap();
    assert_eq!(answer(&research, "packet"), "from 10.1.7.9");
    assert_eq!(answer(&research, "rule"), "of class `research`: only uplinks isp1");
    let packet = PacketFields {
        protocol: Some("udp".to_owned()),
        destination_port: Some(7),
        interface: Some("lan0".to_owned()),
        ..from("10.1.0.1")
    };
    let lan = explained("10.2.0.5", &packet).unwrap();
    assert_eq!(answer(&lan, "packet"), "from 10.1.0.1 behind lan0, udp, to port 7");
    let flow = explained("tcp 10.1.0.9:4000 10.2.0.5:80", &PacketFields::default()).unwrap();
    assert_eq!(answer(&flow, "packet"), "", "it says all itself");
}

#[test]
fn what_no_packet_has_is_refused() {
    let none = PacketFields::default;
    for (to, packet, why) in [
        ("10.2.0.5", PacketFields { flow_label: Some(1), ..none() }, "no flow labels"),
        ("fd00:2::5", PacketFields { flow_label: Some(1 << 20), ..none() }, "no flow label:"),
        ("10.2.0.5", PacketFields { dscp: Some(64), ..none() }, "no code point"),
        ("10.2.0.5", PacketFields { source_port: Some(1), ..none() }, "ports are those"),
        ("10.2.0.5", PacketFields { protocol: Some("x".into()), ..none() }, "unknown protocol"),
        ("10.2.0.5", from("fd00:1::5"), "different families"),
        ("10.2.0.5", PacketFields { interface: Some("x".into()), ..none() }, "behind it"),
        ("utah", none(), "expected an address"),
    ] {
        let error = explained(to, &packet).unwrap_err();
        assert!(error.contains(why), "{to} {packet:?}: {error}");
    }
}
