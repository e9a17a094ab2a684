//! `node`: name, keys, state.

use std::path::PathBuf;

use super::{absolute_path, required};
use crate::config::de::At;
use crate::config::fault::Faults;
use crate::config::key::{KeyFileError, KeySource};
use crate::config::raw::RawConfig;
use crate::config::types::{NodeSection, Secret};
use crate::config::units::is_dns_label;

pub(super) fn node(
    raw: &At<RawConfig>,
    keys: &dyn KeySource,
    faults: &mut Faults,
) -> Option<NodeSection> {
    let Some(section) = &raw.value.node else {
        faults.missing(raw.position, "node", "a section with `name` and `private_key_file`");
        return None;
    };
    let raw = &section.value;
    let what = "write the name of this node, unique in the overlay";
    let name =
        required(section, &raw.name, "name", what, faults).and_then(|at| node_name(at, faults));
    let what = "write the path of the file that `rongate keygen --out FILE` made";
    let private_key = required(section, &raw.private_key_file, "private_key_file", what, faults)
        .and_then(|at| key_file(at, keys, faults));
    let preshared_key = raw.preshared_key_file.as_ref().map(|at| key_file(at, keys, faults));
    let state_dir = match &raw.state_dir {
        Some(at) => absolute_path(at, faults),
        None => Some(PathBuf::from("/var/lib/rongate")),
    };
    let (private_key, preshared_key) =
        (private_key?, preshared_key.map_or(Some(None), |k| k.map(Some))?);
    let public_key = private_key.public_key();
    let path = |at: &Option<At<String>>| at.as_ref().map(|at| at.value.clone());
    Some(NodeSection {
        name: name?,
        private_key_file: path(&raw.private_key_file)?,
        preshared_key_file: path(&raw.preshared_key_file),
        id: public_key.node_id(),
        public_key,
        private_key,
        preshared_key,
        state_dir: state_dir?,
    })
}

/// Words that stand for something else where a node is named.
const RESERVED: [&str; 2] = ["local", "auto"];

/// The name of this node or of a peer.
pub(super) fn node_name(at: &At<String>, faults: &mut Faults) -> Option<String> {
    if !is_dns_label(&at.value) {
        let message = format!(
            "`{}` is not a DNS label: use 1 to 63 lower-case letters, digits and hyphens, \
             no hyphen at either end",
            at.value.escape_debug()
        );
        faults.at(at, message);
        return None;
    }
    if RESERVED.contains(&at.value.as_str()) {
        faults.at(
            at,
            format!(
                "`{}` has a meaning of its own in `internet.via`: choose another name",
                at.value
            ),
        );
        return None;
    }
    Some(at.value.clone())
}

fn key_file(at: &At<String>, keys: &dyn KeySource, faults: &mut Faults) -> Option<Secret> {
    let text = match keys.read(&at.value) {
        Ok(text) => text,
        Err(error @ KeyFileError::NotFound { .. }) => {
            let make = "make one with `rongate keygen --out FILE`; a path is relative to this file";
            faults.at(at, format!("{error}: {make}"));
            return None;
        }
        Err(error) => {
            faults.at(at, error.to_string());
            return None;
        }
    };
    match Secret::from_base64(&text) {
        Ok(secret) if !secret.is_trivial() => Some(secret),
        Ok(_) | Err(_) => {
            let message = format!(
                "the file `{}` holds no key: expected 44 characters of base64 (32 bytes), as \
                 `rongate keygen` writes them",
                at.value
            );
            faults.at(at, message);
            None
        }
    }
}
