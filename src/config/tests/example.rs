//! `config.example.yaml` is the manual: it is read, it is complete, and it is true.

use std::collections::BTreeSet;

use super::*;
use crate::config::de::At;
use crate::config::raw::RawConfig;

pub(super) const EXAMPLE: &str = include_str!("../../../config.example.yaml");

#[test]
fn the_example_is_valid() {
    let config = parse(EXAMPLE).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.peers.len(), 2);
    assert_eq!(config.classes.len(), 4);
}

/// The keys of the section that `path` leads to, asked from serde; none if it is no section.
fn keys_of(path: &[String]) -> Option<Vec<String>> {
    let mut text = "no such key: 1".to_owned();
    for key in path.iter().rev() {
        text = match key.strip_suffix("[]") {
            Some(key) => format!("{key}: [{{{text}}}]"),
            None => format!("{key}: {{{text}}}"),
        };
    }
    let mut faults = Faults::default();
    let root = tree::parse(&text, &mut faults).unwrap();
    de::read::<At<RawConfig>>(&root, &mut faults).unwrap();
    let error = faults.into_error("");
    let message = &error.faults[0].message;
    let listed = message.strip_prefix("unknown key: possible here are ")?;
    Some(listed.split(", ").map(|key| key.trim_matches('`').to_owned()).collect())
}

/// The paths of all keys that there are, in the form `peers[].name`.
pub(super) fn all_keys(path: &[String], found: &mut BTreeSet<String>) {
    for key in keys_of(path).unwrap_or_default() {
        let inner = |key: String| [path, &[key]].concat();
        let as_list = inner(format!("{key}[]"));
        let as_section = inner(key.clone());
        if keys_of(&as_section).is_some() {
            all_keys(&as_section, found);
        } else if keys_of(&as_list).is_some() {
            all_keys(&as_list, found);
        }
        found.insert(as_section.join("."));
    }
}

/// The paths of the keys in a file, in the same form.
pub(super) fn written_keys(node: &tree::Node, path: &str, found: &mut BTreeSet<String>) {
    match &node.value {
        tree::Value::Map(entries) => {
            for entry in entries {
                let path = tree::join(path, &entry.key);
                found.insert(path.clone());
                written_keys(&entry.node, &path, found);
            }
        }
        tree::Value::List(items) => {
            for item in items {
                written_keys(item, &format!("{path}[]"), found);
            }
        }
        tree::Value::Null | tree::Value::Scalar { .. } => {}
    }
}

#[test]
fn the_example_has_every_key() {
    let (mut known, mut written) = (BTreeSet::new(), BTreeSet::new());
    all_keys(&[], &mut known);
    let root = tree::parse(EXAMPLE, &mut Faults::default()).unwrap();
    written_keys(&root, "", &mut written);
    assert!(known.len() > 70, "only {} keys were found: {known:?}", known.len());
    assert_eq!(written, known);
}

/// Every key has a comment above its first use that says what it is by default and whether a
/// reload applies it; and what it says about reloads is what `diff` does.
#[test]
fn the_example_says_what_a_reload_applies() {
    let mut told: BTreeSet<String> = BTreeSet::new();
    let mut comment = String::new();
    let mut section = String::new();
    for line in EXAMPLE.lines() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        if let Some(text) = trimmed.strip_prefix('#') {
            comment.push_str(text);
            continue;
        }
        let Some((key, _)) = trimmed.trim_start_matches("- ").split_once(':') else {
            comment.clear();
            continue;
        };
        if indent == 0 {
            section = key.to_owned();
        }
        let path = if indent == 0 { key.to_owned() } else { format!("{section}.{key}") };
        let documented = comment.contains("default: ") && comment.contains("; reload: ");
        if documented {
            let path = path.replace("peers.", "peers.utah.");
            let says_yes = comment.contains("reload: yes");
            assert_eq!(says_yes, diff::is_reloaded(&path), "{path}");
        }
        let has_sections = matches!(
            key,
            "node"
                | "control"
                | "http"
                | "tun"
                | "lan"
                | "egress"
                | "relay"
                | "internet"
                | "probing"
                | "routing"
                | "flows"
                | "nat"
                | "nat_log"
                | "tunnel"
        ) && indent == 0;
        let first = told.insert(path.clone());
        assert!(documented || has_sections || !first, "{path} has no default or reload");
        comment.clear();
    }
}

/// Our reading of YAML is the usual one: another reader gives the same, apart from the places.
#[test]
fn other_readers_agree() {
    fn flat(node: &tree::Node) -> serde_yaml::Value {
        match &node.value {
            tree::Value::Null => serde_yaml::Value::Null,
            tree::Value::Scalar { text, quoted: true } => text.as_str().into(),
            tree::Value::Scalar { text, quoted: false } => {
                serde_yaml::from_str(text).unwrap_or_else(|_| text.as_str().into())
            }
            tree::Value::List(items) => items.iter().map(flat).collect::<Vec<_>>().into(),
            tree::Value::Map(entries) => {
                let entries = entries.iter().map(|e| (e.key.as_str().into(), flat(&e.node)));
                serde_yaml::Value::Mapping(entries.collect())
            }
        }
    }
    for text in [EXAMPLE, BASE] {
        let root = tree::parse(text, &mut Faults::default()).unwrap();
        let theirs: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
        assert_eq!(flat(&root), theirs);
    }
}
