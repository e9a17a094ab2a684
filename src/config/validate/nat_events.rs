//! `nat_log`.

use super::{absolute_path, word_or};
use crate::config::fault::Faults;
use crate::config::raw::RawConfig;
use crate::config::types::{NatLogSection, SyslogService};

pub(super) fn nat_log(file: &RawConfig, faults: &mut Faults) -> NatLogSection {
    let Some(section) = file.nat_log.as_ref().map(|section| &section.value) else {
        return NatLogSection::default();
    };
    let syslog = section.syslog.as_ref().and_then(|at| {
        if at.value.starts_with('/') {
            return absolute_path(at, faults).map(SyslogService::Local);
        }
        let what = "neither the path of a socket nor an address with a port: write one like \
                    `/dev/log` or `192.0.2.9:514`";
        word_or(at, what, faults).map(SyslogService::Udp)
    });
    NatLogSection { file: section.file.as_ref().and_then(|at| absolute_path(at, faults)), syslog }
}
