//! Bad files and what is said about them, word by word.

use super::*;

/// What is replaced by what in [`BASE`], and the message; each of its lines begins with the name
/// of the file, which is left out here.
type Case = (&'static str, &'static str, &'static str);

fn check(cases: &[Case]) {
    let mut wrong = String::new();
    for (from, to, expected) in cases {
        let message = match parse(&changed(from, to)) {
            Ok(_) => "valid".to_owned(),
            Err(error) => error.to_string().replace("mit.yaml:", "").replace("\n ", "\n"),
        };
        if message.trim_start() != *expected {
            wrong += &format!("`{from}` -> `{to}`:\n{message}\nbut expected:\n{expected}\n\n");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

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

const NAMES_ARE_LABELS_AND_UNIQUE: &[Case] = &[
    (
        "name: mit",
        "name: Mit_1",
        "2:9: node.name: `Mit_1` is not a DNS label: use 1 to 63 lower-case letters, digits and hyphens, no hyphen at either end",
    ),
    (
        "name: mit",
        "name: local",
        "2:9: node.name: `local` has a meaning of its own in `internet.via`: choose another name",
    ),
    (
        "name: aros",
        "name: auto",
        "23:11: peers[1].name: `auto` has a meaning of its own in `internet.via`: choose another name",
    ),
    (
        "name: aros",
        "name: utah",
        "23:11: peers[1].name: the name `utah` is taken by `peers[0].name`",
    ),
    ("name: aros", "name: mit", "23:11: peers[1].name: the name `mit` is taken by `node.name`"),
    (
        "name: isp1",
        "name: ISP 1",
        "10:11: uplinks[0].name: `ISP 1` is not a usable name: use 1 to 63 lower-case letters, digits and hyphens",
    ),
    (
        "    listen: 192.0.2.1:4710\n",
        "    listen: 192.0.2.1:4710\n  - {name: isp1, interface: wan1, listen: '192.0.2.9:4710'}\n",
        "13:12: uplinks[1].name: the name `isp1` is taken by `uplinks[0]`",
    ),
    (
        "",
        "classes: [{name: a, match: {dscp: ef}}, {name: a}]",
        "27:48: classes[1].name: the name `a` is taken by `classes[0].name`",
    ),
];

#[test]
fn names_are_labels_and_unique() {
    check(NAMES_ARE_LABELS_AND_UNIQUE);
}

const KEY_FILES_AND_PUBLIC_KEYS: &[Case] = &[
    (
        "mit.key",
        "other.key",
        "3:21: node.private_key_file: there is no file `/etc/rongate/other.key`: make one with `rongate keygen --out FILE`; a path is relative to this file",
    ),
    (
        "mit.key",
        "open.key",
        "3:21: node.private_key_file: others may access the file `/etc/rongate/open.key` (mode 0644): run `chmod 600 /etc/rongate/open.key`, and make a new key if somebody may have read it",
    ),
    (
        "mit.key",
        "root.key",
        "3:21: node.private_key_file: cannot read the file `/etc/rongate/root.key`: Permission denied",
    ),
    (
        "mit.key",
        "short.key",
        "3:21: node.private_key_file: the file `short.key` holds no key: expected 44 characters of base64 (32 bytes), as `rongate keygen` writes them",
    ),
    (
        "mit.key",
        "pem.key",
        "3:21: node.private_key_file: the file `pem.key` holds no key: expected 44 characters of base64 (32 bytes), as `rongate keygen` writes them",
    ),
    (
        "mit.key",
        "zero.key",
        "3:21: node.private_key_file: the file `zero.key` holds no key: expected 44 characters of base64 (32 bytes), as `rongate keygen` writes them",
    ),
    (
        "mit.key\n",
        "mit.key\n  preshared_key_file: none.psk\n",
        "4:23: node.preshared_key_file: there is no file `/etc/rongate/none.psk`: make one with `rongate keygen --out FILE`; a path is relative to this file",
    ),
    (
        "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
        "AgIC",
        "24:17: peers[1].public_key: `AgIC`: not a key: expected 44 characters of base64 (32 bytes), as printed by `rongate pubkey`",
    ),
    (
        "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
        "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=",
        "24:17: peers[1].public_key: the same key as `peers[0].public_key`: each node has its own",
    ),
    (
        "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
        "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=",
        "24:17: peers[1].public_key: this is the key of this node itself: remove the entry, or correct it",
    ),
    (
        "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
        "EZQAAAAAAAADAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\n    address: [10.77.0.4]\n  - {name: b, address: 10.77.0.9, public_key: svUAAAAAAAADAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=}\n  - name: c\n    public_key: AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
        "26:47: peers[2].public_key: its node id 8f05a278 is also that of `peers[1].public_key`: make a new key for one of them",
    ),
];

#[test]
fn key_files_and_public_keys() {
    check(KEY_FILES_AND_PUBLIC_KEYS);
}

const ADDRESSES_HAVE_ONE_PLACE: &[Case] = &[
    (
        "[10.77.0.1/24]",
        "[10.77.0.1]",
        "5:13: tun.address[0]: `10.77.0.1` is not an address with a prefix length: write one like `10.77.0.1/24`",
    ),
    (
        "[10.77.0.1/24]",
        "[10.77.0.0/24]",
        "5:13: tun.address[0]: `10.77.0.0/24` is the network, not an address in it: write the node's own",
    ),
    (
        "[10.77.0.1/24]",
        "[127.0.0.1/8]",
        "5:13: tun.address[0]: `127.0.0.1/8` is in a special range: choose a unicast address",
    ),
    (
        "[10.77.0.2]",
        "[10.77.0.2/24]",
        "20:15: peers[0].address[0]: `10.77.0.2/24` has a prefix length: write `10.77.0.2`; what lies behind the peer goes into `networks`",
    ),
    (
        "[10.77.0.2]",
        "[10.77.0.256]",
        "20:15: peers[0].address[0]: `10.77.0.256` is not an address: write one like `10.77.0.2`",
    ),
    (
        "[10.77.0.2]",
        "['ff02::1']",
        "20:15: peers[0].address[0]: `ff02::1` is in a special range: choose a unicast address",
    ),
    (
        "[10.2.0.0/16]",
        "[10.2.0.0]",
        "21:16: peers[0].networks[0]: `10.2.0.0` has no prefix length: write `10.2.0.0/32` for this one address",
    ),
    (
        "[10.2.0.0/16]",
        "[10.2.0.5/16]",
        "21:16: peers[0].networks[0]: `10.2.0.5/16` has bits set behind its prefix: write `10.2.0.0/16`",
    ),
    (
        "[10.2.0.0/16]",
        "[10.2.0.0/33]",
        "21:16: peers[0].networks[0]: `10.2.0.0/33`: not a network: write `ADDRESS/LENGTH`, like `10.1.0.0/16`",
    ),
    (
        "[10.2.0.0/16]",
        "[0.0.0.0/0]",
        "21:16: peers[0].networks[0]: `0.0.0.0/0`: the default route is not a network of hosts; the way to the Internet is `internet.via`",
    ),
    (
        "[10.2.0.0/16]",
        "[169.254.0.0/16]",
        "21:16: peers[0].networks[0]: `169.254.0.0/16`: no hosts can be in this special range (unspecified, loopback, link-local, multicast)",
    ),
    (
        "[10.2.0.0/16]",
        "[10.1.5.0/24]",
        "21:16: peers[0].networks[0]: `10.1.5.0/24` overlaps `10.1.0.0/16` of `lan.networks[0]` in line 8: an address can have one place only",
    ),
    (
        "[10.2.0.0/16]",
        "[10.2.0.0/16, 10.2.0.0/16]",
        "21:29: peers[0].networks[1]: `10.2.0.0/16` is taken by `peers[0].networks[0]` in line 21",
    ),
    (
        "[10.2.0.0/16]",
        "[10.77.0.0/25]",
        "21:16: peers[0].networks[0]: `10.77.0.0/25` overlaps `10.77.0.1` of `tun.address[0]` in line 5: an address can have one place only\n26:15: peers[1].address[0]: `10.77.0.3` overlaps `10.77.0.0/25` of `peers[0].networks[0]` in line 21: an address can have one place only",
    ),
    (
        "[10.77.0.3]",
        "[10.77.0.2]",
        "26:15: peers[1].address[0]: `10.77.0.2` is taken by `peers[0].address[0]` in line 20",
    ),
    (
        "[10.77.0.3]",
        "[10.77.0.1]",
        "26:15: peers[1].address[0]: `10.77.0.1` is taken by `tun.address[0]` in line 5",
    ),
    (
        "[10.77.0.3]",
        "[10.2.0.3]",
        "26:15: peers[1].address[0]: `10.2.0.3` overlaps `10.2.0.0/16` of `peers[0].networks[0]` in line 21: an address can have one place only",
    ),
    (
        "  ports: 40000-59999",
        "  pool: [10.1.9.0/24]\n  mode: routed",
        "15:10: egress.pool[0]: `10.1.9.0/24` overlaps `10.1.0.0/16` of `lan.networks[0]` in line 8: an address can have one place only",
    ),
    (
        "  networks: [10.1.0.0/16]",
        "  networks: [10.1.0.0/16]\n  bypass: [192.168.1.0]",
        "9:12: lan.bypass[0]: `192.168.1.0` has no prefix length: write `192.168.1.0/32` for this one address",
    ),
];

#[test]
fn addresses_have_one_place() {
    check(ADDRESSES_HAVE_ONE_PLACE);
}

const INTERFACES_UPLINKS_AND_ENDPOINTS: &[Case] = &[
    (
        "[lan0]",
        "[wan0]",
        "7:16: lan.interfaces[0]: the interface `wan0` has another use in `uplinks[0].interface`",
    ),
    (
        "[lan0]",
        "[ron0]",
        "5:3: tun.name: the default `ron0` is in use in `lan.interfaces[0]`: choose another",
    ),
    (
        "[lan0]",
        "[a-name-that-is-too-long]",
        "7:16: lan.interfaces[0]: `a-name-that-is-too-long` is not an interface name: 1 to 15 characters without space, `/` or `:`",
    ),
    (
        "tun:\n",
        "tun:\n  name: a/b\n",
        "5:9: tun.name: `a/b` is not an interface name: 1 to 15 characters without space, `/` or `:`",
    ),
    (
        "tun:\n",
        "tun:\n  mtu: 1200\n",
        "5:8: tun.mtu: 1200 is below 1280, where Linux removes IPv6: use 1280 or more, or `auto`",
    ),
    (
        "tun:\n",
        "tun:\n  mtu: 1500 bytes\n",
        "5:8: tun.mtu: `1500 bytes` is not an MTU: write `auto` or bytes without a unit, 1280 to 65535",
    ),
    (
        "listen: 192.0.2.1:4710",
        "listen: 192.0.2.1",
        "12:13: uplinks[0].listen: `192.0.2.1`: not a listening address: write `ADDRESS:PORT`, `[IPV6]:PORT`, or `auto:PORT` (`auto6:PORT`) to follow the interface's IPv4 (IPv6) address",
    ),
    (
        "listen: 192.0.2.1:4710",
        "listen: 0.0.0.0:4710",
        "12:13: uplinks[0].listen: `0.0.0.0:4710`: an unspecified address cannot be told from other uplinks: write the interface's address, or `auto:PORT`",
    ),
    (
        "listen: 192.0.2.1:4710",
        "listen: auto:0",
        "12:13: uplinks[0].listen: `auto:0`: port 0 does not exist: use 1 to 65535",
    ),
    (
        "listen: 192.0.2.1:4710",
        "listen: 224.0.0.1:4710",
        "12:13: uplinks[0].listen: `224.0.0.1:4710` is no address of an interface",
    ),
    (
        "listen: 192.0.2.1:4710",
        "listen: 10.2.0.1:4710",
        "12:13: uplinks[0].listen: `10.2.0.1:4710` lies in `10.2.0.0/16` of `peers[0].networks[0]`, which is routed into the overlay: the tunnel would run through itself",
    ),
    (
        "    listen: 192.0.2.1:4710\n",
        "    listen: 192.0.2.1:4710\n  - {name: isp2, interface: wan1, listen: '192.0.2.1:4710'}\n",
        "13:43: uplinks[1].listen: `192.0.2.1:4710` is taken by `uplinks[0]`",
    ),
    (
        "    listen: 192.0.2.1:4710\n",
        "    listen: 192.0.2.1:4710\n  - {name: i0, interface: w0, listen: 'auto:4710'}\n  - {name: i1, interface: w1, listen: 'auto:4710'}\n  - {name: i2, interface: w2, listen: 'auto:4710'}\n  - {name: i3, interface: w3, listen: 'auto:4710'}\n  - {name: i4, interface: w4, listen: 'auto:4710'}\n  - {name: i5, interface: w5, listen: 'auto:4710'}\n  - {name: i6, interface: w6, listen: 'auto:4710'}\n  - {name: i7, interface: w7, listen: 'auto:4710'}\n  - {name: i8, interface: w8, listen: 'auto:4710'}\n  - {name: i9, interface: w9, listen: 'auto:4710'}\n  - {name: i10, interface: w10, listen: 'auto:4710'}\n  - {name: i11, interface: w11, listen: 'auto:4710'}\n  - {name: i12, interface: w12, listen: 'auto:4710'}\n  - {name: i13, interface: w13, listen: 'auto:4710'}\n  - {name: i14, interface: w14, listen: 'auto:4710'}\n  - {name: i15, interface: w15, listen: 'auto:4710'}\n",
        "10:3: uplinks: 17 uplinks are too many: at most 16 are possible",
    ),
    (
        "203.0.113.1:4710",
        "203.0.113.1",
        "25:17: peers[1].endpoints[0]: `203.0.113.1`: not an endpoint: write `ADDRESS:PORT`, `[IPV6]:PORT` or `HOST.NAME:PORT`, like `198.51.100.1:4710`",
    ),
    (
        "203.0.113.1:4710",
        "203.0.113.1:0",
        "25:17: peers[1].endpoints[0]: `203.0.113.1:0`: port 0 does not exist: use 1 to 65535",
    ),
    (
        "203.0.113.1:4710",
        "0.0.0.0:4710",
        "25:17: peers[1].endpoints[0]: `0.0.0.0:4710`: nothing can be sent to this address: write the peer's unicast address",
    ),
    (
        "203.0.113.1:4710",
        "198.51.100.1:4710",
        "25:17: peers[1].endpoints[0]: `198.51.100.1:4710` is taken by `peers[0].endpoints[0]`",
    ),
    (
        "203.0.113.1:4710",
        "192.0.2.1:4710",
        "25:17: peers[1].endpoints[0]: `192.0.2.1:4710` is taken by `uplinks[0].listen`",
    ),
    (
        "203.0.113.1:4710",
        "10.2.0.1:4710",
        "25:17: peers[1].endpoints[0]: `10.2.0.1:4710` lies in `10.2.0.0/16` of `peers[0].networks[0]`, which is routed into the overlay: the tunnel would run through itself",
    ),
    (
        "203.0.113.1:4710",
        "[2001:db8::1]:4710",
        "25:16: peers[1].endpoints: all are IPv6, but every uplink here is IPv4: add an endpoint or an uplink of the other family",
    ),
];

#[test]
fn interfaces_uplinks_and_endpoints() {
    check(INTERFACES_UPLINKS_AND_ENDPOINTS);
}

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
#[test]
fn all_faults_are_shown_at_once_in_the_order_of_the_file() {
    let text = BASE
        .replace("name: mit", "nmae: mit")
        .replace("[10.77.0.1/24]", "{v4: 10.77.0.1}")
        .replace("[10.2.0.0/16]", "[10.1.0.0/16, 10.2.0.0]")
        .replace("enabled: true", "enabled: on");
    let error = parse(&format!("{text}log: loud\n")).unwrap_err();
    let shown: Vec<_> =
        error.faults.iter().map(|fault| (fault.position.line, fault.key.as_str())).collect();
    assert_eq!(
        shown,
        [
            (2, "node.nmae"),
            (5, "tun.address"),
            (14, "egress.enabled"),
            (21, "peers[0].networks[0]"),
            (21, "peers[0].networks[1]"),
            (27, "log"),
        ]
    );
    assert!(error.to_string().starts_with("mit.yaml:2:3: node.nmae: unknown key"), "{error}");
}

#[test]
fn any_text_is_refused_without_a_panic() {
    let mut text = BASE.to_owned();
    while text.pop().is_some() {
        let _ = parse(&text);
        let _ = parse(&format!("{text}}}"));
        let _ = parse(&format!("{text}: ["));
    }
}

proptest::proptest! {
    /// Pieces of configurations in any order, and with anything between them.
    #[test]
    fn no_text_makes_a_panic(
        pieces in proptest::collection::vec((0..BASE.len(), 0..40_usize, "[ \\n:,\\-\\[\\]{}#&*!|>'\"%@`a-z0-9~?\\t]{0,6}"), 0..12)
    ) {
        let text: String = pieces
            .iter()
            .map(|(start, len, between)| {
                BASE.get(*start..(start + len).min(BASE.len())).unwrap_or("").to_owned() + between
            })
            .collect();
        let _ = parse(&text);
        let _ = parse(&format!("{BASE}{text}"));
    }
}
