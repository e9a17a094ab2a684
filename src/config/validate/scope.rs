//! `classes[].only` and `classes[].avoid`: peers, relays, uplinks and exits by name.

use super::classes::Known;
use super::exit::exit_point;
use super::items;
use crate::config::de::At;
use crate::config::fault::Faults;
use crate::config::raw::{RawScope, Texts};
use crate::flow::Scope;
use crate::id::{PeerIndex, UplinkIndex};

/// What flows are confined to. Without relays they go directly, without exits not to the Internet;
/// without peers or uplinks they could go nowhere.
pub(super) fn only(
    section: Option<&At<RawScope>>,
    known: &Known<'_>,
    faults: &mut Faults,
) -> Scope {
    let Some(section) = section else { return Scope::default() };
    let raw = &section.value;
    for list in [&raw.peers, &raw.uplinks].into_iter().flatten() {
        if list.value.is_empty() {
            faults.at(list, "the list is empty and nothing is left: fill it, or remove the key");
        }
    }
    scope(section, known, faults)
}

/// What flows must not use.
pub(super) fn avoid(
    section: Option<&At<RawScope>>,
    known: &Known<'_>,
    faults: &mut Faults,
) -> Scope {
    let Some(section) = section else { return Scope::default() };
    let raw = &section.value;
    for list in [&raw.peers, &raw.relays, &raw.uplinks, &raw.exits].into_iter().flatten() {
        if list.value.is_empty() {
            faults.at(list, "the list is empty and avoids nothing: fill it, or remove the key");
        }
    }
    if let Some(at) = &raw.uplinks
        && at.value.len() >= known.uplinks.len()
    {
        faults.at(at, "no uplink is left: leave one out");
    }
    scope(section, known, faults)
}

fn scope(section: &At<RawScope>, known: &Known<'_>, faults: &mut Faults) -> Scope {
    let raw = &section.value;
    if *raw == RawScope::default() {
        faults.at(
            section,
            "the section is empty: name peers, relays, uplinks or exits, or remove it",
        );
    }
    let peer = |at: &At<String>, faults: &mut Faults| known.names.resolve(at, &[], faults);
    Scope {
        peers: list(&raw.peers, faults, peer),
        relays: list::<PeerIndex>(&raw.relays, faults, peer),
        uplinks: list(&raw.uplinks, faults, |at, faults| uplink(at, known, faults)),
        exits: list(&raw.exits, faults, |at, faults| {
            exit_point(at, known.names, known.local_exit, faults)
        }),
    }
}

/// The entries in ascending order, without those that are listed twice.
fn list<T: Ord + Copy>(
    list: &Texts,
    faults: &mut Faults,
    read: impl Fn(&At<String>, &mut Faults) -> Option<T>,
) -> Option<Vec<T>> {
    list.as_ref()?;
    let mut found = Vec::new();
    for at in items(list) {
        let Some(item) = read(at, faults) else { continue };
        if found.contains(&item) {
            faults.at(at, format!("`{}` is listed twice", at.value));
        } else {
            found.push(item);
        }
    }
    found.sort_unstable();
    Some(found)
}

fn uplink(at: &At<String>, known: &Known<'_>, faults: &mut Faults) -> Option<UplinkIndex> {
    let names = || known.uplinks.iter().flatten().map(|uplink| uplink.name.as_str());
    let named = |uplink: &Option<_>| {
        uplink.as_ref().is_some_and(|u: &crate::config::types::Uplink| u.name == at.value)
    };
    let found = known.uplinks.iter().position(named);
    if found.is_none() {
        let value = at.value.escape_debug();
        faults.at(at, format!("there is no uplink `{value}`: {}", super::hint(&at.value, names)));
    }
    found.and_then(|index| u8::try_from(index).ok()).map(UplinkIndex)
}
