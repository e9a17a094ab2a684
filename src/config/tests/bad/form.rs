//! The form of a file: its YAML, its keys, the shape and the units of values, what must be there.

use super::*;

const THE_FORM_OF_THE_FILE: &[Case] = &[
    (
        "  name: mit\n",
        "  name: [mit\n",
        "3:19: this is not valid YAML: illegal placement of ':' indicator",
    ),
    (
        "  name: mit\n",
        "\tname: mit\n",
        "2:2: this is not valid YAML: tabs disallowed within this context (block indentation) (indent with spaces)",
    ),
    ("", "---\nnode: {}", "28:1: a second document begins here: keep one in a file"),
    (
        "name: mit",
        "name: &mit mit",
        "2:9: node.name: anchors and aliases (`&`, `*`) are not supported: write the value out, or quote it if it begins with that character",
    ),
    (
        "name: mit",
        "name: !!str mit",
        "2:9: node.name: tags (`!`) are not supported: remove it, or quote the value",
    ),
    (
        "name: mit",
        "name: *mit",
        "2:9: this is not valid YAML: while parsing node, found unknown anchor",
    ),
    ("", "? [a]\n: b", "27:3: a key must be a plain word"),
    (
        "",
        "log: [[[[[[[[[[[[[[[[[[[[x]]]]]]]]]]]]]]]]]]]]",
        "27:22: log[0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0]: nested too deeply",
    ),
];

#[test]
fn the_form_of_the_file() {
    check(THE_FORM_OF_THE_FILE);
}

const UNKNOWN_AND_DUPLICATE_KEYS: &[Case] = &[
    ("  name: mit\n", "  nmae: mit\n", "2:3: node.nmae: unknown key: did you mean `name`?"),
    (
        "",
        "frobnicate: 1",
        "27:1: frobnicate: unknown key: possible here are `node`, `control`, `http`, `tun`, `lan`, `uplinks`, `egress`, `relay`, `peers`, `classes`, `internet`, `probing`, `routing`, `flows`, `nat`, `nat_log`, `tunnel`, `log`",
    ),
    ("", "eggress: {enabled: true}", "27:1: eggress: unknown key: did you mean `egress`?"),
    (
        "    networks: [10.2",
        "    network: [10.2",
        "21:5: peers[0].network: unknown key: did you mean `networks`?",
    ),
    ("", "node: {name: x}", "27:1: node: the key is given twice, first in line 1"),
    (
        "  name: mit\n",
        "  name: mit\n  name: mit\n",
        "3:3: node.name: the key is given twice, first in line 2",
    ),
    (
        "    egress: true\n",
        "    egress: true\n    egress: false\n",
        "23:5: peers[0].egress: the key is given twice, first in line 22",
    ),
];

#[test]
fn unknown_and_duplicate_keys() {
    check(UNKNOWN_AND_DUPLICATE_KEYS);
}

const VALUES_OF_THE_WRONG_SHAPE: &[Case] = &[
    ("name: mit", "name: [mit]", "2:9: node.name: expected one value, found a list"),
    ("name: mit", "name: {first: mit}", "2:9: node.name: expected one value, found a section"),
    (
        "[10.77.0.1/24]",
        "{v4: 10.77.0.1/24}",
        "5:12: tun.address: expected a list (each entry begins with `-`), found a section",
    ),
    (
        "enabled: true",
        "enabled: yes",
        "14:12: egress.enabled: expected `true` or `false`, found `yes`",
    ),
    (
        "enabled: true",
        "enabled: 'true'",
        "14:12: egress.enabled: expected `true` or `false`, found `true`",
    ),
    (
        "lan:\n  interfaces: [lan0]\n  networks: [10.1.0.0/16]",
        "lan: lan0",
        "6:6: lan: expected a section of `key: value` lines, found `lan0`",
    ),
    ("", "flows: {max: 1k}", "27:14: flows.max: expected a whole number without unit, found `1k`"),
    (
        "",
        "routing: {margin: 10%}",
        "27:19: routing.margin: expected a number without unit, found `10%`",
    ),
];

#[test]
fn values_of_the_wrong_shape() {
    check(VALUES_OF_THE_WRONG_SHAPE);
}

const WHAT_MUST_BE_THERE: &[Case] = &[
    (
        "node:\n  name: mit\n  private_key_file: mit.key\n",
        "",
        "1:1: node: is missing: a section with `name` and `private_key_file`",
    ),
    (
        "  name: mit\n  private_key_file: mit.key\n",
        "",
        "1:1: node: is missing: a section with `name` and `private_key_file`",
    ),
    (
        "tun:\n  address: [10.77.0.1/24]\n",
        "",
        "1:1: tun.address: is missing: write this node's address inside the overlay, like `10.77.0.1/24`",
    ),
    (
        "[10.77.0.1/24]",
        "[]",
        "5:12: tun.address: the list is empty: write this node's address inside the overlay, like `10.77.0.1/24`",
    ),
    (
        "uplinks:\n  - name: isp1\n    interface: wan0\n    listen: 192.0.2.1:4710\n",
        "",
        "1:1: uplinks: is missing: list at least one, with `name`, `interface` and `listen`",
    ),
    (
        "uplinks:\n  - name: isp1\n    interface: wan0\n    listen: 192.0.2.1:4710\n",
        "uplinks: []\n",
        "9:10: uplinks: the list is empty: list at least one, with `name`, `interface` and `listen`",
    ),
    (
        "  - name: isp1\n    interface: wan0\n",
        "  - name: isp1\n",
        "10:5: uplinks[0].interface: is missing: name the network interface, like `eth0`",
    ),
    (
        "    public_key: AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\n",
        "",
        "23:5: peers[1].public_key: is missing: write what `rongate pubkey` prints on the peer",
    ),
    (
        "    address: [10.77.0.3]\n",
        "",
        "23:5: peers[1].address: is missing: write its address inside the overlay, like `10.77.0.2`",
    ),
    (
        "",
        "http: {}",
        "27:7: http.listen: is missing: write where the status page listens, like `127.0.0.1:9477`",
    ),
    (
        "",
        "classes: []",
        "27:10: classes: the list is empty: write at least one class, or remove the key",
    ),
    (
        "",
        "tunnel: {suites: []}",
        "27:18: tunnel.suites: the list is empty: keep at least one suite, or remove the key",
    ),
    (
        "",
        "classes: [{name: a, match: {source: []}}, {name: b}]",
        "27:37: classes[0].match.source: the list is empty and nothing can match: fill it, or remove the key",
    ),
];

#[test]
fn what_must_be_there() {
    check(WHAT_MUST_BE_THERE);
}

const FIGURES_AND_UNITS: &[Case] = &[
    (
        "",
        "probing: {budget: 33}",
        "27:19: probing.budget: `33`: not a rate: write a number with its unit `bit`, `kbit`, `mbit` or `gbit` (per second), like `200mbit`",
    ),
    (
        "",
        "probing: {budget: 1gbit}",
        "27:19: probing.budget: `1gbit` is out of bounds: use 1kbit to 100mbit",
    ),
    (
        "",
        "routing: {hold_down: 5}",
        "27:22: routing.hold_down: `5`: not a duration: write a number with its unit `ms`, `s`, `m` or `h`, like `250ms` or `5m`",
    ),
    (
        "",
        "routing: {hold_down: 5min}",
        "27:22: routing.hold_down: `5min`: not a duration: write a number with its unit `ms`, `s`, `m` or `h`, like `250ms` or `5m`",
    ),
    (
        "",
        "routing: {margin: 1.5}",
        "27:19: routing.margin: 1.5 is out of bounds: use a fraction from 0 to 0.9",
    ),
    (
        "",
        "routing: {least_loss: 0, margin_jitter: 11, smoothing: 10ms}",
        "27:23: routing.least_loss: 0 is out of bounds: use a fraction from 0.0001 to 0.5\n\
         27:41: routing.margin_jitter: 11 is out of bounds: use 0 to 10\n\
         27:56: routing.smoothing: `10ms` is out of bounds: use 100ms to 1m",
    ),
    (
        "",
        "routing: {backoff: {base: 10s, factor: 0, longest: 5s, forget: 1m}}",
        "27:40: routing.backoff.factor: 0 is out of bounds: use 1 to 100\n\
         27:52: routing.backoff.longest: `5s` is out of bounds: use 10s to 24h\n\
         27:64: routing.backoff.forget: `1m` is out of bounds: use 2m to 24h",
    ),
    (
        "",
        "routing: {backoff: 5s}",
        "27:20: routing.backoff: expected a section of `key: value` lines, found `5s`",
    ),
    ("", "nat: {udp: 30s}", "27:12: nat.udp: `30s` is out of bounds: use 2m to 168h"),
    (
        "",
        "nat: {udp_ports: ['53'], forwards: [{port: 80, to: '10.2.0.5:80'}, {to: '10.2.0.5:80'}]}",
        "27:19: nat.udp_ports[0]: `53`: not a port with its time: write both, like `53 30s`\n\
         27:44: nat.forwards[0].port: 80 is not the NAT's: outside mode `routed` use 40000 to 59999\n\
         27:68: nat.forwards[1].port: is missing: write the outside port",
    ),
    (
        "",
        "nat: {forwards: [{port: 40001, address: 9.9.9.9, to: '192.0.2.200:80'}]}",
        "27:41: nat.forwards[0].address: `9.9.9.9`: not an address of `egress.pool`\n\
         27:54: nat.forwards[0].to: `192.0.2.200:80`: no network of ours or of a peer has this address",
    ),
    (
        "",
        "nat: {filtering: adress}",
        "27:18: nat.filtering: unknown value `adress`: did you mean `address`?",
    ),
    ("", "nat: {max: 0}", "27:12: nat.max: 0 is out of bounds: use 1 to 4194304"),
    (
        "",
        "flows: {max: 100, max_per_host: 200}",
        "27:33: flows.max_per_host: 200 is out of bounds: use 1 to 100",
    ),
    (
        "",
        "tunnel: {suites: [aes-128-gcm]}",
        "27:19: tunnel.suites[0]: unknown value `aes-128-gcm`: did you mean `aes-256-gcm`?",
    ),
    (
        "",
        "log: verbose",
        "27:6: log: unknown level `verbose`: possible here are `off`, `error`, `warn`, `info`, `debug`, `trace`",
    ),
    ("", "log: info,rongate=inf", "27:6: log: unknown level `inf`: did you mean `info`?"),
    (
        "",
        "http: {listen: localhost}",
        "27:16: http.listen: `localhost`: not an address with a port: write one like `127.0.0.1:9477`",
    ),
    (
        "",
        "control: {socket: mit.sock}",
        "27:19: control.socket: `mit.sock` is not an absolute path: begin it with `/`",
    ),
    (
        "",
        "probing: {budget: 33 kbit}\nrelay: {rate: 1 mbps}",
        "28:15: relay.rate: `1 mbps`: not a rate: write a number with its unit `bit`, `kbit`, `mbit` or `gbit` (per second), like `200mbit`",
    ),
];

#[test]
fn figures_and_units() {
    check(FIGURES_AND_UNITS);
}
