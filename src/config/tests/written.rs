//! What a configuration prints is read back as the same configuration.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::example::{EXAMPLE, all_keys, written_keys};
use super::*;

fn as_yaml(config: &Config) -> String {
    serde_yaml::to_string(config).unwrap()
}

/// The file, as it is printed; asserts that both forms give the same configuration.
#[track_caller]
fn round_trip(text: &str) -> String {
    let config = parse(text).unwrap_or_else(|error| panic!("{error}"));
    let yaml = as_yaml(&config);
    let again = parse(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    assert_eq!(again, config, "{yaml}");
    assert_eq!(as_yaml(&again), yaml);
    // JSON is YAML too.
    let json = serde_json::to_string_pretty(&config).unwrap();
    assert_eq!(parse(&json).unwrap_or_else(|error| panic!("{error}\n{json}")), config);
    yaml
}

const MINIMAL: &str = "\
node: {name: mit, private_key_file: mit.key}
tun: {address: 10.77.0.1/24}
uplinks: [{name: isp1, interface: wan0, listen: 'auto6:4710'}]
peers: []
";

#[test]
fn the_example_comes_back_with_every_key() {
    let yaml = round_trip(EXAMPLE);
    let (mut known, mut written) = (BTreeSet::new(), BTreeSet::new());
    all_keys(&[], &mut known);
    let root = tree::parse(&yaml, &mut Faults::default()).unwrap();
    written_keys(&root, "", &mut written);
    assert_eq!(written, known);
}

#[test]
fn sections_and_keys_are_in_the_order_of_the_manual() {
    let sections = |text: &str| -> Vec<String> {
        let keys = text.lines().filter(|line| line.starts_with(|c: char| c.is_alphabetic()));
        keys.map(|line| line.split(':').next().unwrap().to_owned()).collect()
    };
    assert_eq!(sections(&round_trip(EXAMPLE)), sections(EXAMPLE));
}

#[test]
fn defaults_are_filled_in() {
    let yaml = round_trip(MINIMAL);
    for line in [
        "  private_key_file: mit.key",
        "  state_dir: /var/lib/rongate",
        "  socket: /run/rongate/mit.sock",
        "  mtu: auto",
        "  listen: auto6:4710",
        "  enabled: false",
        "  rate: unlimited",
        "peers: []",
        "  via: []",
        "  budget: 33kbit",
        "  smoothing: 2s",
        "  margin: 0.1",
        "    longest: 2m",
        "  tcp_established: 124m",
        "  - chacha20-poly1305",
        "log: info",
    ] {
        assert!(yaml.lines().any(|written| written == line), "{line} is missing in\n{yaml}");
    }
    assert!(!yaml.contains("http"), "{yaml}");
    assert!(!yaml.contains("preshared_key_file"), "{yaml}");
}

#[test]
fn names_are_resolved() {
    let yaml = round_trip(BASE);
    assert!(yaml.contains("  via:\n  - local\n  - utah\n"), "{yaml}");
    assert!(yaml.contains("  for:\n  - utah\n  - aros\n  rate: unlimited\n"), "{yaml}");
}

#[test]
fn no_secret_is_printed() {
    let text = changed(
        "private_key_file: mit.key",
        "private_key_file: mit.key\n  preshared_key_file: overlay.psk",
    );
    let config = parse(&text).unwrap();
    for text in [round_trip(&text), serde_json::to_string(&config).unwrap()] {
        assert!(text.contains("overlay.psk"), "{text}");
        for secret in [Some(&config.node.private_key), config.node.preshared_key.as_ref()] {
            assert!(!text.contains(secret.unwrap().to_base64().as_str()), "{text}");
        }
    }
}

#[test]
fn unusual_values_come_back() {
    for extra in [
        "relay: {for: [], rate: 1.5mbit}\ninternet: {via: auto}",
        "internet: {via: []}\nrouting: {margin: 0, margin_latency: 0.5ms, hold_down: 0s, copies: 64kbit}",
        "routing: {smoothing: 0.5s, free_loss: 0, loss_penalty: 0ms, least_loss: 0.5, margin_jitter: 0,\
         \x20margin_loss: 0.02, margin_throughput: 0.5, backoff: {base: 0s, factor: 1, longest: 1h,\
         \x20forget: 2h}}",
        "tunnel: {suites: chacha20-poly1305}\nlog: 'off,rongate::routing=debug'",
        "nat_log: {file: /var/log/x.log, syslog: '192.0.2.9:514'}",
        "nat_log: {syslog: /dev/log}",
        "http: {listen: '[::1]:9477'}\nflows: {max: 9}\nnat: {max: 7, udp: 2.5m}",
        "nat: {tcp_per_host: 9, rate_per_host: 3, udp_ports: [53 30s, 123 1m], parity: false,\
         \x20mapping: address, filtering_tcp: address-and-port, reuse: when_full, refusal: silent,\
         \x20unsolicited: silent, bypass: 203.0.113.0/28, quarantine: 0s,\
         \x20forwards: [{port: 40001, to: '10.2.0.5:80', address: 100.64.1.1}]}",
        "classes:\n\
         - {name: no, match: {protocol: 1, dscp: cs0, source: '10.1.0.0/16'}, set_dscp: 63}\n\
         - {name: '1e5', match: {protocol: icmp}, set_dscp: default}\n\
         - {name: '0', match: {protocol: 132, source_ports: 53, destination_ports: [1-9, 10]}}\n\
         - {name: 'null', metric: loss, redundancy: 2}",
        "classes:\n\
         - {name: a, match: {flow_label: 74565, interface: [lan0]}, only: {relays: []}}\n\
         - {name: b, match: {dscp: 1}, only: {peers: [aros, utah], exits: []}, tag: 255}\n\
         - {name: c, match: {dscp: 2}, avoid: {exits: [utah, local], peers: aros}, priority: low}\n\
         - {name: d, metric: app, multipath: true, group: source, rate: 1.5mbit}\n\
         relay: {refuse: [d, a]}",
    ] {
        round_trip(&format!("{BASE}{extra}\n"));
    }
    for (from, to) in [
        ("  enabled: true", "  enabled: false"),
        (
            "  ports: 40000-59999",
            "  ports: 1024\n  mode: masquerade\n  for: []\n  deny: ['2001:db8::/32']",
        ),
        ("  ports: 40000-59999", "  mode: routed\n  pool: 203.0.113.64/26\n  allow: 10.0.0.0/8"),
        ("  ports: 40000-59999", "  pool: 100.64.1.0/31\n  outside: [192.0.2.1, 192.0.2.9]"),
        ("interfaces: [lan0]", "interfaces: ['0', '~', 'a#b', '1.0']\n  on_failure: direct"),
        (
            "address: [10.77.0.1/24]",
            "address: [10.77.0.1/24, 'fd77::1/64']\n  mtu: 1400\n  name: 'null'",
        ),
        ("endpoints: ['203.0.113.1:4710']", "endpoints: [aros.example.net:1, '192.0.2.9:2']"),
        ("endpoints: ['203.0.113.1:4710']", "endpoints: []"),
    ] {
        round_trip(&changed(from, to));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_names_and_figures_come_back(
        name in "[a-z0-9]([a-z0-9-]{0,9}[a-z0-9])?",
        interface in "[!-~&&[^/:%\"'\\\\]]{3,15}",
        margin in 0.0..=0.9_f64,
        hold_down in 0..=60_000_u64,
        kbit in 1..=100_000_u64,
        bits in 1..=u64::MAX / 1_000,
    ) {
        prop_assume!(!["local", "auto", "utah", "aros"].contains(&name.as_str()));
        prop_assume!(!["wan0", "ron0", "all", "default"].contains(&interface.as_str()));
        let text = changed("name: mit", &format!("name: '{name}'"))
            .replace("interfaces: [lan0]", &format!("interfaces: ['{interface}']"))
            + &format!(
                "routing: {{margin: {margin}, hold_down: {hold_down}ms}}\n\
                 probing: {{budget: {kbit}kbit}}\n\
                 relay: {{rate: {bits}bit}}\n"
            );
        round_trip(&text);
    }
}
