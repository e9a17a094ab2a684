//! What a node does for others and for its hosts: exits, relays, classes, policy.

use super::*;

const EXITS_AND_RELAYS: &[Case] = &[
    (
        "40000-59999",
        "59999-40000",
        "15:10: egress.ports: `59999-40000`: the port range is reversed: write the lower port first",
    ),
    (
        "40000-59999",
        "40000:59999",
        "15:10: egress.ports: `40000:59999`: not a port range: write `FIRST-LAST` or one port, like `40000-59999`",
    ),
    (
        "40000-59999",
        "1000-2000",
        "15:10: egress.ports: `1000-2000` has ports below 1024, which servers of this router may use: begin at 1024 or higher",
    ),
    (
        "40000-59999",
        "0-2000",
        "15:10: egress.ports: `0-2000`: port 0 does not exist: use 1 to 65535",
    ),
    (
        "40000-59999",
        "4000-5000",
        "15:10: egress.ports: `4000-5000` has port 4710 in it, at which uplink `isp1` listens: keep them apart",
    ),
    (
        "  ports: 40000-59999",
        "  mode: nat",
        "15:9: egress.mode: unknown value `nat`: possible here are `rewrite`, `routed`, `masquerade`",
    ),
    (
        "  ports: 40000-59999",
        "  mode: routed",
        "14:3: egress.pool: is missing: mode `routed` needs the outside addresses that are routed to this router",
    ),
    (
        "  ports: 40000-59999",
        "  pool: []",
        "15:9: egress.pool: the list is empty: write at least one network, or remove the key",
    ),
    (
        "  ports: 40000-59999",
        "  pool: ['fe80::/64']",
        "15:10: egress.pool[0]: `fe80::/64`: no hosts can be in this special range (unspecified, loopback, link-local, multicast)",
    ),
    (
        "  ports: 40000-59999",
        "  pool: [192.0.2.1/32]",
        "15:9: egress.pool: `192.0.2.1/32` holds the address of uplink `isp1`, which belongs to the kernel: choose other addresses; in mode `rewrite` internal ones, like `100.64.1.1/32`",
    ),
    (
        "  ports: 40000-59999",
        "  pool: [100.64.1.0/31]",
        "15:9: egress.pool: 2 addresses are too many: in mode `rewrite` each stands for an outside address, and the uplinks have 1; a single one, like `100.64.1.1/32`, goes with the default route",
    ),
    (
        "  ports: 40000-59999",
        "  pool: [100.64.1.1/32]\n  outside: [192.0.2.1, 192.0.2.5]",
        "16:12: egress.outside: 2 addresses, but `egress.pool` has 1: write as many there, internal ones like `100.64.1.1/32`",
    ),
    (
        "  ports: 40000-59999",
        "  pool: [100.64.1.0/31]\n  outside: [192.0.2.1, '2001:db8::1']",
        "16:24: egress.outside[1]: `2001:db8::1`: not an IPv4 address: write one of an uplink's interface, like `192.0.2.1`",
    ),
    (
        "  ports: 40000-59999",
        "  mode: masquerade\n  outside: [192.0.2.1]",
        "16:12: egress.outside: only mode `rewrite` exchanges addresses: remove the key",
    ),
    (
        "  ports: 40000-59999",
        "  pool: [100.64.0.0/16]\n  mode: masquerade",
        "14:3: egress.pool: 65536 addresses are too many: at most 4096",
    ),
    (
        "192.0.2.1:4710",
        "'[2001:db8::1]:4710'",
        "14:12: egress.enabled: the exit is for IPv4, but no uplink is IPv4: add one, or use mode `routed`\n19:16: peers[0].endpoints: all are IPv4, but every uplink here is IPv6: add an endpoint or an uplink of the other family\n25:16: peers[1].endpoints: all are IPv4, but every uplink here is IPv6: add an endpoint or an uplink of the other family",
    ),
    (
        "  ports: 40000-59999",
        "  for: [uta]",
        "15:9: egress.for[0]: there is no peer `uta`: did you mean `utah`?",
    ),
    ("  ports: 40000-59999", "  for: [utah, utah]", "15:15: egress.for[1]: `utah` is listed twice"),
    (
        "",
        "relay: {for: [berkeley]}",
        "27:15: relay.for[0]: there is no peer `berkeley`: possible here are `utah`, `aros`",
    ),
    (
        "",
        "relay: {rate: 200}",
        "27:15: relay.rate: `200`: not a rate: write a number with its unit `bit`, `kbit`, `mbit` or `gbit` (per second), like `200mbit`",
    ),
    (
        "",
        "relay: {rate: 200mb}",
        "27:15: relay.rate: `200mb`: not a rate: write a number with its unit `bit`, `kbit`, `mbit` or `gbit` (per second), like `200mbit`",
    ),
    (
        "",
        "internet: {via: [local, mit]}",
        "27:25: internet.via[1]: there is no peer `mit`: possible here are `utah`, `aros`, `local`",
    ),
    (
        "",
        "internet: {via: [aros]}",
        "27:18: internet.via[0]: peer `aros` may not be an exit: set `peers[1].egress: true`",
    ),
    ("", "internet: {via: [local, local]}", "27:25: internet.via[1]: `local` is listed twice"),
    (
        "",
        "internet: {servers: ['tcp 10.9.0.5:443']}",
        "27:22: internet.servers[0]: `tcp 10.9.0.5:443`: not in one of `lan.networks`",
    ),
    (
        "",
        "internet: {servers: ['10.1.0.5:443']}",
        "27:22: internet.servers[0]: `10.1.0.5:443`: not a protocol and an endpoint: write `tcp 10.1.0.5:443`",
    ),
    (
        "",
        "internet: {nat64: 64:ff9b::/95}",
        "27:19: internet.nat64: `64:ff9b::/95`: the length must be 32, 40, 48, 56, 64 or 96 (RFC 6052)",
    ),
    (
        "",
        "internet: {nat64: 10.0.0.0/8}",
        "27:19: internet.nat64: `10.0.0.0/8`: not an IPv6 network: write one like `64:ff9b::/96`, or `off`",
    ),
    (
        "",
        "nat: {prefixes: [{inside: 'fd00:9::/48', outside: '2001:db8::/48'}]}",
        "27:17: nat.prefixes: `tun.address` has no IPv6 address: IPv6 would go past the tunnel; add one\n27:27: nat.prefixes[0].inside: `fd00:9::/48`: no network of a peer has all of this prefix",
    ),
    (
        "",
        "nat: {prefixes: [{inside: 'fd00:9::/72', outside: '2001:db8::/48'}]}",
        "27:17: nat.prefixes: `tun.address` has no IPv6 address: IPv6 would go past the tunnel; add one\n27:27: nat.prefixes[0].inside: `fd00:9::/72`: not an IPv6 prefix of 64 bits or less: write one like `fd00:2::/48`",
    ),
    (
        "",
        "nat: {prefixes: [{inside: 'fd00:9::/48'}]}",
        "27:17: nat.prefixes: `tun.address` has no IPv6 address: IPv6 would go past the tunnel; add one\n27:18: nat.prefixes[0].outside: is missing: write an IPv6 prefix, like `fd00:2::/48`",
    ),
    (
        "",
        "internet: {via_ipv6: [utah]}",
        "27:22: internet.via_ipv6: `tun.address` has no IPv6 address: IPv6 would go past the tunnel; add one",
    ),
    (
        "",
        "internet: {via: [auto, utah]}",
        "27:18: internet.via[0]: `auto` stands alone: write `via: auto`, or list exits by name",
    ),
    (
        "  enabled: true\n  ports: 40000-59999",
        "  enabled: false\ninternet:\n  via: [local]",
        "16:9: internet.via[0]: `local` is no exit here: set `egress.enabled: true`, with `for: []` to keep it to yourself",
    ),
];

#[test]
fn exits_and_relays() {
    check(EXITS_AND_RELAYS);
}

const CLASSES_IN_ORDER: &[Case] = &[
    (
        "",
        "classes: [{name: a}, {name: b}]",
        "27:11: classes[0].match: is missing: without it the class takes all flows and those below it none: add a `match`, or move the class to the end",
    ),
    (
        "",
        "classes: [{name: a, match: {dscp: ef}}]",
        "27:28: classes[0].match: the last class must take what no other did: remove its `match`, or add a class without one behind it",
    ),
    (
        "",
        "classes: [{name: a, match: {}}, {name: b}]",
        "27:28: classes[0].match: the section is empty: write a condition, or remove it to match all",
    ),
    (
        "",
        "classes: [{name: a, metric: speed}]",
        "27:29: classes[0].metric: unknown value `speed`: possible here are `latency`, `loss`, `throughput`, `app`",
    ),
    (
        "",
        "classes: [{name: a, redundancy: 4}]",
        "27:33: classes[0].redundancy: 4 is out of bounds: use 1 to 2",
    ),
    (
        "",
        "classes: [{name: a, match: {protocol: upd}}, {name: b}]",
        "27:39: classes[0].match.protocol: unknown protocol `upd`: did you mean `udp`? (or write its number)",
    ),
    (
        "",
        "classes: [{name: a, match: {protocol: 256}}, {name: b}]",
        "27:39: classes[0].match.protocol: `256`: not a protocol number: use 0 to 255",
    ),
    (
        "",
        "classes: [{name: a, match: {dscp: 64}}, {name: b}]",
        "27:35: classes[0].match.dscp: `64` is not a DSCP: use a name like `ef`, `af41` or `cs1`, or 0 to 63",
    ),
    (
        "",
        "classes: [{name: a, match: {protocol: icmp, destination_ports: [7]}}, {name: b}]",
        "27:64: classes[0].match.destination_ports: this protocol has no ports: remove the condition, or use `tcp` or `udp`",
    ),
    (
        "",
        "classes: [{name: a, match: {source_ports: [9-7]}}, {name: b}]",
        "27:44: classes[0].match.source_ports[0]: `9-7`: the port range is reversed: write the lower port first",
    ),
];

#[test]
fn classes_in_order() {
    check(CLASSES_IN_ORDER);
}

const POLICY: &[Case] = &[
    (
        "",
        "classes: [{name: a, only: {}}]",
        "27:27: classes[0].only: the section is empty: name peers, relays, uplinks or exits, or remove it",
    ),
    (
        "",
        "classes: [{name: a, only: {relays: [utha]}}]",
        "27:37: classes[0].only.relays[0]: there is no peer `utha`: did you mean `utah`?",
    ),
    (
        "",
        "classes: [{name: a, only: {peers: []}}]",
        "27:35: classes[0].only.peers: the list is empty and nothing is left: fill it, or remove the key",
    ),
    (
        "",
        "classes: [{name: a, avoid: {relays: []}}]",
        "27:37: classes[0].avoid.relays: the list is empty and avoids nothing: fill it, or remove the key",
    ),
    (
        "",
        "classes: [{name: a, avoid: {uplinks: [isp1]}}]",
        "27:38: classes[0].avoid.uplinks: no uplink is left: leave one out",
    ),
    (
        "",
        "classes: [{name: a, only: {uplinks: [isp9]}}]",
        "27:38: classes[0].only.uplinks[0]: there is no uplink `isp9`: did you mean `isp1`?",
    ),
    (
        "",
        "classes: [{name: a, only: {exits: [utah, utah]}}]",
        "27:42: classes[0].only.exits[1]: `utah` is listed twice",
    ),
    (
        "",
        "classes: [{name: a, match: {flow_label: 0x100000}}, {name: b}]",
        "27:41: classes[0].match.flow_label: `0x100000`: not a flow label: use 0 to 1048575, or 0x0 to 0xfffff",
    ),
    (
        "",
        "classes: [{name: a, match: {interface: wan0}}, {name: b}]",
        "27:40: classes[0].match.interface: `wan0`: not one of `lan.interfaces`: only their hosts can be told apart",
    ),
    (
        "",
        "classes: [{name: a, tag: 2, match: {dscp: ef}}, {name: b}]",
        "27:49: classes[1].tag: 2 is the tag of class `a` (by default a class's place in the list): use another one",
    ),
    (
        "",
        "classes: [{name: a, priority: urgent}]",
        "27:31: classes[0].priority: unknown value `urgent`: possible here are `high`, `normal`, `low`",
    ),
    (
        "",
        "classes: [{name: bulk}]\nrelay: {refuse: [blk]}",
        "28:18: relay.refuse[0]: there is no class `blk`: did you mean `bulk`?",
    ),
];

#[test]
fn policy() {
    check(POLICY);
}
