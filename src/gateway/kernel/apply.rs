//! Makes the kernel match a plan, remembers what was done, undoes it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use serde::{Deserialize, Serialize};

use super::plan::{KernelPlan, Sysctl, SysctlValue, preference};
use crate::io::netlink::{Netlink, Route, Rule};
use crate::io::{files, nft, sysctl};

/// What is, or may be, in the kernel because of us.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    /// Which run of which network namespace it is about; it says nothing about another.
    host: String,
    routes: Vec<Route>,
    rules: Vec<Rule>,
    /// The nftables table, if there is one.
    nft_table: Option<String>,
    /// Parameters with their values before us.
    originals: BTreeMap<String, String>,
}

/// The kernel set-up of one gateway, ours or its predecessor's.
pub(crate) struct KernelSetup {
    netlink: Netlink,
    path: PathBuf,
    record: Record,
    applied: KernelPlan,
    /// The kernel has all of `applied` and nothing else of ours; false after an attempt that failed.
    is_whole: bool,
}

impl KernelSetup {
    /// Takes over what a predecessor that did not end cleanly left, as its record at `path` says.
    pub(crate) fn adopt(mut netlink: Netlink, path: PathBuf) -> anyhow::Result<Self> {
        let host = host_identity();
        let mut record = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Record>(&bytes).unwrap_or_else(|error| {
                log::warn!("{} is damaged ({error}): leftovers may remain", path.display());
                Record::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Record::default(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        if record.host != host {
            record = Record { host, ..Record::default() };
        } else if record.routes.len() + record.rules.len() > 0 {
            log::info!("the last run did not end cleanly; taking over its routes and rules");
        }
        let rules = netlink.rules().context("cannot list the policy rules")?;
        for rule in rules.iter().filter(|rule| preference::OURS.contains(&rule.preference)) {
            if !record.rules.contains(rule) {
                log::warn!("a rule that is not ours stands among ours: `{rule}`");
            }
        }
        Ok(Self { netlink, path, record, applied: KernelPlan::default(), is_whole: false })
    }

    /// For looking at the host.
    pub(crate) fn netlink(&mut self) -> &mut Netlink {
        &mut self.netlink
    }

    /// Makes the kernel match `plan`: first adds, then removes. After an error some of it may be done;
    /// the plan before, applied again, takes that back.
    pub(crate) fn apply(&mut self, plan: &KernelPlan) -> anyhow::Result<()> {
        if self.is_whole && *plan == self.applied {
            return self.assert_again();
        }
        let was_whole = std::mem::replace(&mut self.is_whole, false);
        let stale_routes = missing_from(&self.record.routes, &plan.routes);
        let stale_rules = missing_from(&self.record.rules, &plan.rules);
        // Recorded before it is done: whoever comes after a crash may undo too much, never too
        // little.
        self.record.routes = [&plan.routes[..], &stale_routes].concat();
        self.record.rules = [&plan.rules[..], &stale_rules].concat();
        let stale_table = self.record.nft_table.clone();
        if !plan.nft_body.is_empty() {
            self.record.nft_table = Some(plan.nft_table.clone());
        }
        for sysctl in &plan.sysctls {
            self.remember(&sysctl.name);
        }
        self.save()?;

        self.set_sysctls(&plan.sysctls)?;
        for route in &plan.routes {
            self.netlink.add_route(route).map_err(|error| refused("route", route, error))?;
        }
        let same_table = self.applied.nft_body == plan.nft_body;
        let same_table = same_table && self.applied.nft_table == plan.nft_table;
        if !(was_whole && same_table) {
            self.apply_nft(plan, stale_table)?;
        }
        for rule in &plan.rules {
            self.netlink.add_rule(rule).map_err(|error| refused("rule", rule, error))?;
        }

        for rule in &stale_rules {
            self.netlink.delete_rule(rule).map_err(|error| refused("stale rule", rule, error))?;
        }
        for route in &stale_routes {
            let result = self.netlink.delete_route(route);
            result.map_err(|error| refused("stale route", route, error))?;
        }
        self.record.routes.clone_from(&plan.routes);
        self.record.rules.clone_from(&plan.rules);
        self.applied.clone_from(plan);
        self.is_whole = true;
        self.save()
    }

    /// Puts back what others removed: network managers and firewall scripts like to clean up.
    fn assert_again(&mut self) -> anyhow::Result<()> {
        for route in &self.applied.routes {
            self.netlink.add_route(route).map_err(|error| refused("route", route, error))?;
        }
        for rule in &self.applied.rules {
            self.netlink.add_rule(rule).map_err(|error| refused("rule", rule, error))?;
        }
        let KernelPlan { nft_table, nft_body, .. } = &self.applied;
        if !nft_body.is_empty() && !nft::has_table(nft_table) {
            log::warn!("the nftables table `{nft_table}` was removed; it is back");
            nft::apply(&nft::replacement(nft_table, nft_body))?;
        }
        Ok(())
    }

    /// True when a predecessor's routes and rules were found.
    pub(crate) fn has_leftovers(&self) -> bool {
        self.applied == KernelPlan::default() && !self.record.routes.is_empty()
    }

    /// Removes everything. Goes on after an error and tells the first one.
    pub(crate) fn undo(&mut self) -> anyhow::Result<()> {
        let mut first_error = None;
        let mut note = |error: anyhow::Error| {
            log::warn!("while undoing: {error:#}");
            first_error.get_or_insert(error);
        };
        for rule in &std::mem::take(&mut self.record.rules) {
            if let Err(error) = self.netlink.delete_rule(rule) {
                note(refused("rule", rule, error));
            }
        }
        if let Some(table) = self.record.nft_table.take()
            && let Err(error) = nft::apply(&nft::removal(&table))
        {
            note(error);
        }
        for route in &std::mem::take(&mut self.record.routes) {
            if let Err(error) = self.netlink.delete_route(route) {
                note(refused("route", route, error));
            }
        }
        for (name, value) in std::mem::take(&mut self.record.originals) {
            match sysctl::write(&name, &value) {
                Ok(()) => {}
                // It went with its interface.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => note(anyhow!(error).context(format!("cannot restore {name}"))),
            }
        }
        self.applied = KernelPlan::default();
        self.is_whole = false;
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                note(anyhow!(error).context(format!("cannot remove {}", self.path.display())));
            }
            _ => {}
        }
        first_error.map_or(Ok(()), Err)
    }

    fn apply_nft(&mut self, plan: &KernelPlan, stale: Option<String>) -> anyhow::Result<()> {
        let mut ruleset = String::new();
        if let Some(stale) = stale.filter(|s| *s != plan.nft_table || plan.nft_body.is_empty()) {
            ruleset.push_str(&nft::removal(&stale));
        }
        if plan.nft_body.is_empty() {
            self.record.nft_table = None;
        } else {
            ruleset.push_str(&nft::replacement(&plan.nft_table, &plan.nft_body));
        }
        if ruleset.is_empty() { Ok(()) } else { nft::apply(&ruleset) }
    }

    fn set_sysctls(&mut self, sysctls: &[Sysctl]) -> anyhow::Result<()> {
        for Sysctl { name, value } in sysctls {
            let Ok(current) = sysctl::read(name) else {
                log::warn!("there is no kernel parameter {name}");
                continue;
            };
            let original = self.record.originals.get(name).unwrap_or(&current);
            let wanted = match value {
                SysctlValue::Set(value) => value.clone(),
                SysctlValue::Change { from, to } if *from == current => to.clone(),
                SysctlValue::Change { .. } => continue,
                SysctlValue::Append(value) if original.is_empty() => value.clone(),
                SysctlValue::Append(value) => format!("{original},{value}"),
            };
            if wanted == current {
                continue;
            }
            if let Err(error) = sysctl::write(name, &wanted) {
                if !matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::EROFS)) {
                    return Err(error).with_context(|| format!("cannot set {name} to {wanted}"));
                }
                log::warn!("{name} is {current}, should be {wanted}, and we may not change it");
            }
        }
        Ok(())
    }

    /// Keeps the value that a parameter had before the first of us.
    fn remember(&mut self, name: &str) {
        if !self.record.originals.contains_key(name)
            && let Ok(value) = sysctl::read(name)
        {
            self.record.originals.insert(name.to_owned(), value);
        }
    }

    fn save(&self) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(&self.record)?;
        files::write_whole(&self.path, &bytes)
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn refused(what: &str, item: &impl std::fmt::Display, error: io::Error) -> anyhow::Error {
    match error.raw_os_error() {
        Some(libc::EPERM) => {
            anyhow!("changing routes and rules is not permitted: run as root or with CAP_NET_ADMIN")
        }
        _ => anyhow!(error).context(format!("the kernel refused the {what} `{item}`")),
    }
}

fn missing_from<T: PartialEq + Clone>(old: &[T], new: &[T]) -> Vec<T> {
    old.iter().filter(|item| !new.contains(item)).cloned().collect()
}

/// Names this boot and this network namespace.
fn host_identity() -> String {
    let boot = sysctl::read("kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::metadata("/proc/thread-self/ns/net").map(|m| m.ino()).unwrap_or_default();
    format!("{boot}/{namespace}")
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
