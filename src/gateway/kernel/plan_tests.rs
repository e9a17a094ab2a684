use zeroize::Zeroizing;

use super::*;
use crate::config::{KeyFileError, KeySource};
use crate::gateway::kernel::{conflict, missing_interface, outside_pairs};
use crate::io::netlink::{Address, Interface};

struct Key;

impl KeySource for Key {
    fn read(&self, _file: &str) -> Result<Zeroizing<String>, KeyFileError> {
        Ok(Zeroizing::new("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=".to_owned()))
    }
}

const BASE: &str = "
node: { name: mit, private_key_file: mit.key }
tun: { name: ron0, address: [10.77.0.1/24] }
peers:
  - name: utah
    public_key: \"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\"
    endpoints: [\"198.51.100.1:4710\", \"[2001:db8::2]:4710\"]
    egress: true
    address: [10.77.0.2]
    networks: [10.2.0.0/16]
";

const ONE_UPLINK: &str = "
uplinks: [{ name: isp1, interface: wan0, listen: \"192.0.2.1:4710\" }]
";

const LAN: &str = "
lan: { interfaces: [lan0], networks: [10.1.0.0/16], bypass: [172.16.0.0/12] }
";

pub(in crate::gateway) fn config(parts: &[&str]) -> Config {
    let text = format!("{BASE}{}", parts.concat());
    Config::parse(&text, "mit.yaml", &Key).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

pub(in crate::gateway) fn facts() -> HostFacts {
    let names = ["lo", "lan0", "wan0", "wan1"];
    let interfaces = names.iter().zip(1..).map(|(name, index)| Interface {
        index,
        name: (*name).to_owned(),
        mtu: if *name == "lo" { 65_536 } else { 1_500 },
        up: true,
        loopback: *name == "lo",
    });
    let addresses = [
        ("lo", "127.0.0.1/8"),
        ("lan0", "10.1.0.1/24"),
        ("wan0", "192.0.2.1/24"),
        ("wan1", "203.0.113.5/24"),
    ];
    let address = |(interface, network): &(&str, &str)| Address {
        interface: (*interface).to_owned(),
        network: network.parse().unwrap(),
        usable: *interface != "lo",
    };
    let default = |gateway: &str, interface: &str, metric| Route {
        gateway: Some(gateway.parse().unwrap()),
        interface: Some(interface.to_owned()),
        metric,
        mtu: None,
        protocol: 3,
        ..route(default_net(false), MAIN_TABLE)
    };
    HostFacts {
        interfaces: interfaces.collect(),
        addresses: addresses.iter().map(address).collect(),
        main_routes: vec![default("192.0.2.254", "wan0", 0), default("203.0.113.1", "wan1", 10)],
    }
}

#[test]
fn a_site_without_exit_gets_routes_to_its_peers_and_keeps_its_hosts_default() {
    let config = config(&[ONE_UPLINK, LAN, "internet: { via: [] }\n"]);
    assert_eq!(
        plan(&config, &facts()).to_string(),
        "\
sysctl net/ipv4/ip_forward = 1
sysctl net/ipv4/conf/ron0/rp_filter = 2
route 10.2.0.0/16 dev ron0 src 10.77.0.1
route unreachable 10.77.0.0/24 metric 4294967295
route unreachable 10.2.0.0/16 metric 4294967295
"
    );
}

#[test]
fn replies_to_connections_from_outside_are_marked_where_the_default_is_taken_over() {
    let config = config(&[ONE_UPLINK, LAN, "internet: { via: [utah] }\n"]);
    assert_eq!(
        plan(&config, &facts()).nft_body,
        "	chain mark_replies {
		type filter hook prerouting priority -140; policy accept;
		iifname \"ron0\" ct state new ct mark set ct mark or 0x10000000
		iifname { \"lan0\" } ct direction reply ct mark and 0x10000000 == 0 meta mark set 0x4711
	}
"
    );
}

#[test]
fn hosts_are_taken_over_except_to_local_and_bypassed_networks() {
    let config = config(&[ONE_UPLINK, LAN, "internet: { via: [utah] }\n"]);
    let text = plan(&config, &facts()).to_string();
    let shown: Vec<_> =
        text.lines().filter(|line| line.starts_with("rule") || line.contains("4710")).collect();
    assert_eq!(
        shown,
        [
            "route default dev ron0 table 4710",
            "route unreachable default table 4710 metric 4294967295",
            "rule pref 4700 fwmark 0x4711 lookup main",
            "rule pref 4709 iif lan0 to 10.1.0.0/16 lookup main",
            "rule pref 4709 iif lan0 to 172.16.0.0/12 lookup main",
            "rule pref 4709 iif lan0 to 203.0.113.0/24 lookup main",
            "rule pref 4710 iif lan0 lookup 4710",
        ]
    );
}

#[test]
fn with_on_failure_direct_nothing_outlives_the_gateway_but_harmless_rules() {
    let lan = "lan: { interfaces: [lan0], networks: [10.1.0.0/16], on_failure: direct }\n";
    let config = config(&[ONE_UPLINK, lan]);
    let routes = plan(&config, &facts()).routes;
    assert!(routes.iter().all(|route| route.kind == RouteKind::Unicast), "{routes:?}");
}

#[test]
fn each_of_several_uplinks_sends_from_its_own_address_by_its_own_router() {
    let two = "
uplinks:
  - { name: isp1, interface: wan0, listen: \"192.0.2.1:4710\" }
  - { name: isp2, interface: wan1, listen: \"auto:4710\" }
";
    let config = config(&[two]);
    let text = plan(&config, &facts()).to_string();
    let shown: Vec<_> =
        text.lines().filter(|l| l.starts_with("rule") || l.contains("table")).collect();
    assert_eq!(
        shown,
        [
            "route default via 192.0.2.254 dev wan0 table 4711",
            "route default via 203.0.113.1 dev wan1 table 4712",
            "rule pref 4701 from 192.0.2.1/32 lookup main suppress_prefixlength 0",
            "rule pref 4702 from 192.0.2.1/32 lookup 4711",
            "rule pref 4701 from 203.0.113.5/32 lookup main suppress_prefixlength 0",
            "rule pref 4702 from 203.0.113.5/32 lookup 4712",
        ]
    );
    let mut facts = facts();
    facts.addresses.pop();
    assert_eq!(uplink_address(&config.uplinks[1], &facts), None);
    assert_eq!(plan(&config, &facts).rules.len(), 2, "an uplink without address waits");
}

#[test]
fn the_exit_rewrites_between_pool_and_uplink() {
    let egress = "egress: { enabled: true, pool: [100.64.1.1/32], ports: 40000-59999 }\n";
    let config = config(&[ONE_UPLINK, egress]);
    let plan = plan(&config, &facts());
    let text = plan.to_string();
    for line in [
        "sysctl net/ipv4/ip_forward = 1",
        "sysctl net/ipv4/ip_local_reserved_ports += 40000-59999",
        "route 100.64.1.1/32 dev ron0 mtu 1500",
        "route unreachable 100.64.1.1/32 metric 4294967295",
        "iifname \"ron0\" ip saddr { 100.64.1.1/32 } notrack return",
        "ip daddr 192.0.2.1 goto exit_in_0",
        "ip protocol { 6, 17, 136 } th dport 40000-59999 notrack ip daddr set 100.64.1.1",
        "icmp type { echo-reply, timestamp-reply, info-reply, address-mask-reply } @th,32,16 \
         40000-59999 notrack ip daddr set 100.64.1.1",
        "oifname \"wan0\" ip saddr 100.64.1.1 ip saddr set 192.0.2.1 return",
        "ip saddr 100.64.1.1 ip saddr set 192.0.2.1 return",
        "@th,68,4 5 @th,136,8 1 @th,256,16 40000-59999 notrack ip daddr set 100.64.1.1",
        "@th,68,4 7 @th,136,8 { 6, 17, 136 } @th,288,16 40000-59999 notrack ip daddr set \
         100.64.1.1",
    ] {
        assert!(text.lines().any(|l| l.trim() == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("@th,160,32 0xc0000201 goto exit_quotes_0"), "{text}");
}

const TWO_UPLINKS: &str = "
uplinks:
  - { name: isp1, interface: wan0, listen: \"192.0.2.1:4710\" }
  - { name: isp2, interface: wan1, listen: \"auto:4710\" }
";

#[test]
fn each_of_several_pool_addresses_leaves_by_its_own_uplink() {
    let egress = "egress: { enabled: true, pool: [100.64.1.0/31] }\n";
    let config = config(&[TWO_UPLINKS, egress]);
    let text = plan(&config, &facts()).to_string();
    for line in [
        "rule pref 4702 from 100.64.1.0/32 lookup 4711",
        "rule pref 4702 from 100.64.1.1/32 lookup 4712",
        "route 192.0.2.0/24 dev wan0 table 4711",
        "route 203.0.113.0/24 dev wan1 table 4712",
        "ip daddr 192.0.2.1 goto exit_in_0",
        "ip daddr 203.0.113.5 goto exit_in_1",
        "ip saddr 100.64.1.0 ip saddr set 192.0.2.1 return",
        "ip saddr 100.64.1.1 ip saddr set 203.0.113.5 return",
    ] {
        assert!(text.lines().any(|l| l.trim() == line), "{line} is not in\n{text}");
    }
    // One that lost its address sends nothing with its internal one.
    let mut facts = facts();
    facts.addresses.pop();
    let text = plan(&config, &facts).to_string();
    assert!(text.contains("ip saddr 100.64.1.1 counter drop"), "{text}");
    assert!(!text.contains("goto exit_in_1") && !text.contains("from 100.64.1.1/32"), "{text}");
}

#[test]
fn outside_addresses_may_be_named_and_belong_to_the_uplink_that_has_them() {
    let egress = "egress: { enabled: true, pool: [100.64.1.0/31], \
                  outside: [203.0.113.5, 203.0.113.6] }\n";
    let config = config(&[TWO_UPLINKS, egress]);
    let pairs = outside_pairs(&config, &facts());
    let shown: Vec<_> = pairs.iter().map(|p| (p.internal.to_string(), p.outside)).collect();
    let there = Some("203.0.113.5".parse().unwrap());
    assert_eq!(shown, [("100.64.1.0".to_owned(), there), ("100.64.1.1".to_owned(), None)]);
}

#[test]
fn a_single_pool_address_stands_for_that_of_the_default_route() {
    let egress = "egress: { enabled: true }\n";
    let config = config(&[TWO_UPLINKS, egress]);
    let outside = |facts: &HostFacts| outside_pairs(&config, facts)[0].outside;
    assert_eq!(outside(&facts()), Some("192.0.2.1".parse().unwrap()));
    let mut facts = facts();
    facts.main_routes.remove(0);
    assert_eq!(outside(&facts), Some("203.0.113.5".parse().unwrap()));
    let text = plan(&config, &facts).to_string();
    assert!(text.contains("oifname \"wan0\" ip saddr 100.64.1.1 ip saddr set 192.0.2.1 return"));
    assert!(text.contains("\t\tip saddr 100.64.1.1 ip saddr set 203.0.113.5 return"), "{text}");
}

#[test]
fn masquerade_and_routed_leave_the_addresses_to_others() {
    let with = |mode: &str| {
        let egress = format!("egress: {{ enabled: true, mode: {mode}, pool: [100.64.1.0/30] }}\n");
        plan(&config(&[ONE_UPLINK, &egress]), &facts())
    };
    let masquerade = with("masquerade").nft_body;
    assert!(masquerade.contains("oifname { \"wan0\" } ip saddr { 100.64.1.0/30 } masquerade"));
    let routed = with("routed").nft_body;
    assert!(routed.contains("ip daddr { 100.64.1.0/30 } notrack") && !routed.contains("set"));
}

#[test]
fn the_mtu_leaves_room_for_the_tunnel_and_stays_above_the_ipv6_minimum() {
    let v4 = config(&[ONE_UPLINK]);
    let mut facts = facts();
    assert_eq!(tun_mtu(&v4, &facts), 1_392);
    facts.interfaces[2].mtu = 1_300;
    assert_eq!(tun_mtu(&v4, &facts), 1_280);
    facts.interfaces[2].mtu = 1_500;
    let v6 = "uplinks: [{ name: isp1, interface: wan0, listen: \"[2001:db8::1]:4710\" }]\n";
    assert_eq!(tun_mtu(&config(&[v6]), &facts), 1_372);
}

#[test]
fn routes_that_would_draw_packets_away_are_found_and_our_own_are_not() {
    let config = config(&[ONE_UPLINK]);
    let mut facts = facts();
    assert_eq!(conflict(&config, &facts), None);
    let more_specific = |protocol| Route {
        interface: Some("wan0".to_owned()),
        protocol,
        ..route("10.2.7.0/24".parse().unwrap(), MAIN_TABLE)
    };
    facts.main_routes.push(more_specific(PROTOCOL));
    assert_eq!(conflict(&config, &facts), None);
    facts.main_routes.push(more_specific(4));
    assert_eq!(
        conflict(&config, &facts).unwrap(),
        "the network 10.2.0.0/16 of peer `utah` conflicts with the route `10.2.7.0/24 dev wan0` \
         of this host: remove the route or change the network"
    );
}

#[test]
fn a_missing_interface_is_named_with_its_key() {
    let config = config(&[ONE_UPLINK, LAN]);
    let mut facts = facts();
    assert_eq!(missing_interface(&config, &facts), None);
    facts.interfaces.retain(|interface| interface.name != "lan0");
    assert_eq!(
        missing_interface(&config, &facts).unwrap(),
        "there is no interface `lan0` (lan.interfaces)"
    );
}
