//! What differs between two files.

use super::*;

fn diff(from: &str, to: &str) -> Vec<(String, bool)> {
    let (old, new) = (parse(BASE).unwrap(), parse(&changed(from, to)).unwrap());
    old.diff(&new).into_iter().map(|change| (change.key, change.needs_restart)).collect()
}

#[test]
fn equal_files_have_no_difference() {
    assert_eq!(diff("name: mit", "name: 'mit'  # the same"), []);
}

#[test]
fn keys_that_a_reload_applies_are_told_from_the_rest() {
    assert_eq!(diff("", "log: debug"), [("log".into(), false)]);
    let endpoints = ("peers.utah.endpoints".to_owned(), true);
    assert_eq!(diff("198.51.100.1:4710", "198.51.100.9:4710"), [endpoints]);
    assert_eq!(diff("10.1.0.0/16", "10.9.0.0/16"), [("lan.networks".into(), true)]);
    assert_eq!(
        diff("enabled: true", "enabled: false"),
        [("egress.enabled".into(), true), ("internet.via".into(), true),]
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
            ("relay.for".into(), true),
        ]
    );
    let (old, mut new) = (parse(BASE).unwrap(), parse(BASE).unwrap());
    new.peers.swap(0, 1);
    let exits = vec![Exit::Local, Exit::Peer(crate::id::PeerIndex(1))];
    new.internet = InternetVia::Ordered(exits);
    assert_eq!(old.diff(&new), [], "the order of peers is no difference");
}
