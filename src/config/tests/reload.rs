//! What differs between two files.

use super::*;

fn diff(from: &str, to: &str) -> Vec<(String, bool)> {
    let (old, new) = (parse(BASE).unwrap(), parse(&changed(from, to)).unwrap());
    old.diff(&new).0.into_iter().map(|change| (change.key, change.needs_restart)).collect()
}

#[test]
fn equal_files_have_no_difference() {
    assert_eq!(diff("name: mit", "name: 'mit'  # the same"), []);
}

#[test]
fn keys_that_a_reload_applies_are_told_from_the_rest() {
    assert_eq!(diff("", "log: debug"), [("log".into(), false)]);
    let classes = ("classes".to_owned(), false);
    assert_eq!(diff("", "classes: [{name: a, metric: loss}]"), [classes]);
    assert_eq!(diff("", "relay: {rate: 1mbit}"), [("relay.rate".into(), false)]);
    assert_eq!(diff("", "routing: {margin: 0.2}"), [("routing".into(), false)]);
    assert_eq!(diff("", "routing: {backoff: {base: 6s}}"), [("routing".into(), false)]);
    assert_eq!(
        diff("    networks: [10.2.0.0/16]", "    networks: [10.2.0.0/16]\n    relay: true"),
        [("peers.utah.relay".into(), false)]
    );
    let endpoints = ("peers.utah.endpoints".to_owned(), true);
    assert_eq!(diff("198.51.100.1:4710", "198.51.100.9:4710"), [endpoints]);
    assert_eq!(diff("10.1.0.0/16", "10.9.0.0/16"), [("lan.networks".into(), true)]);
    assert_eq!(
        diff("enabled: true", "enabled: false"),
        [("egress.enabled".into(), true), ("internet.via".into(), false),]
    );
}

#[test]
fn peers_are_compared_by_name() {
    assert_eq!(
        diff("name: aros", "name: mediaone"),
        [
            ("egress.for".into(), true),
            ("peers.aros".into(), true),
            ("peers.mediaone".into(), true),
            ("relay.for".into(), false),
        ]
    );
}

/// The sections of the peers in the other order, with everything that refers to peers by name.
#[test]
fn the_order_of_peers_is_no_difference() {
    let rest = "\
relay: {for: [utah, aros]}
internet: {via: [local, utah]}
classes:
- {name: a, match: {dscp: ef}, only: {relays: [aros], exits: [utah]}, avoid: {peers: [utah]}}
- {name: b}
";
    let old = parse(&format!("{BASE}{rest}")).unwrap();
    let (head, peers) = BASE.split_once("peers:\n").unwrap();
    let second = peers.find("  - name: aros").unwrap();
    let swapped = format!("{head}peers:\n{}{}{rest}", &peers[second..], &peers[..second]);
    let new = parse(&swapped).unwrap();
    assert_ne!(new.classes, old.classes, "they refer to other places");
    let (changes, aligned) = old.diff(&new);
    assert_eq!(changes, []);
    assert_eq!(aligned, old);
    let (changes, aligned) = old.diff(&parse(&swapped.replace("[aros]", "[utah]")).unwrap());
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(aligned.classes[0].only.relays, Some(vec![crate::id::PeerIndex(0)]));
}
