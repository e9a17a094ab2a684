//! Whole files: good ones with their values, bad ones with their messages.

mod bad;
mod example;
mod good;
mod reload;
mod written;

use zeroize::Zeroizing;

use super::*;

/// Key files by name.
struct TestKeys;

impl KeySource for TestKeys {
    fn read(&self, file: &str) -> Result<Zeroizing<String>, KeyFileError> {
        let path = format!("/etc/rongate/{file}");
        let key = match file {
            "mit.key" => "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n",
            "overlay.psk" => "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n",
            "zero.key" => "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
            "short.key" => "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkq\n",
            "pem.key" => "-----BEGIN PRIVATE KEY-----\n",
            "open.key" => return Err(KeyFileError::ReadableByOthers { path, mode: 0o644 }),
            "root.key" => {
                let reason = "Permission denied".into();
                return Err(KeyFileError::Unreadable { path, reason });
            }
            _ => return Err(KeyFileError::NotFound { path }),
        };
        Ok(Zeroizing::new(key.into()))
    }
}

/// A file with most sections and nothing wrong.
const BASE: &str = "\
node:
  name: mit
  private_key_file: mit.key
tun:
  address: [10.77.0.1/24]
lan:
  interfaces: [lan0]
  networks: [10.1.0.0/16]
uplinks:
  - name: isp1
    interface: wan0
    listen: 192.0.2.1:4710
egress:
  enabled: true
  ports: 40000-59999
peers:
  - name: utah
    public_key: 3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=
    endpoints: ['198.51.100.1:4710']
    address: [10.77.0.2]
    networks: [10.2.0.0/16]
    egress: true
  - name: aros
    public_key: AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=
    endpoints: ['203.0.113.1:4710']
    address: [10.77.0.3]
";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "mit.yaml", &TestKeys)
}

/// [`BASE`] with `from` replaced, which must be in it once; or with `to` at its end.
fn changed(from: &str, to: &str) -> String {
    if from.is_empty() {
        return format!("{BASE}{to}\n");
    }
    assert_eq!(BASE.matches(from).count(), 1, "`{from}` must be there once");
    BASE.replace(from, to)
}
