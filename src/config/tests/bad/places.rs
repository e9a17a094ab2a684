//! Who and where: names, keys, addresses, interfaces, uplinks.

use super::*;

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

#[test]
fn more_links_to_a_peer_than_are_measured_are_refused() {
    let told = |uplinks: usize, endpoints: &[&str]| {
        let more: String = (2..=uplinks)
            .map(|n| format!("  - {{name: isp{n}, interface: wan{n}, listen: 'auto:4710'}}\n"))
            .collect();
        let text = changed("egress:\n  enabled", &format!("{more}egress:\n  enabled"));
        let list = endpoints.join("', '");
        let told = parse(&text.replace("198.51.100.1:4710", &list)).map_err(|e| e.to_string());
        told.err().unwrap_or_default()
    };
    let ports: Vec<_> = (4_710..4_719).map(|port| format!("198.51.100.1:{port}")).collect();
    let ports: Vec<_> = ports.iter().map(String::as_str).collect();
    let other_family = ["[2001:db8::1]:4710", "[2001:db8::1]:4711"];
    assert_eq!(told(8, &ports[..8]), "", "64 links");
    assert_eq!(told(8, &[&ports[..8], &other_family[..]].concat()), "", "they make no link");
    let refused = "mit.yaml:26:16: peers[0].endpoints: 72 links, one for each of them and each uplink \
        here of its family, are too many: at most 64 to one peer are possible";
    assert_eq!(told(8, &ports).trim_end(), refused);
    let named = [&ports[..8], &["utah.example.net:4710"]].concat();
    assert_eq!(told(8, &named).trim_end(), refused, "whatever the name stands for");
}
