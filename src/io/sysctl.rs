//! Kernel parameters under `/proc/sys`.

use std::io;
use std::path::PathBuf;

/// Where the parameter `name` (with dots or slashes) lies. A name that contains an interface must
/// be given with slashes, because interfaces may have dots.
fn path(name: &str) -> PathBuf {
    let relative = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    PathBuf::from("/proc/sys").join(relative)
}

/// The value, without the line feed.
pub(crate) fn read(name: &str) -> io::Result<String> {
    Ok(std::fs::read_to_string(path(name))?.trim_end().to_owned())
}

/// Sets the value.
pub(crate) fn write(name: &str, value: &str) -> io::Result<()> {
    // The kernel takes an empty write for none at all; an empty value needs its line feed.
    std::fs::write(path(name), format!("{value}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_dots_and_with_slashes_are_found() {
        assert_eq!(path("net.ipv4.ip_forward"), PathBuf::from("/proc/sys/net/ipv4/ip_forward"));
        assert_eq!(
            path("net/ipv4/conf/eth0.7/rp_filter"),
            PathBuf::from("/proc/sys/net/ipv4/conf/eth0.7/rp_filter")
        );
    }
}
