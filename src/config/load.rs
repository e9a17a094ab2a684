//! The part of the configuration that reads files.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::fault::{ConfigError, Fault, Position};
use super::key::{KeyFileError, KeySource};
use super::types::Config;

/// A configuration of 400 peers has some 100 KiB.
const FILE_LEN_MAX: u64 = 4 << 20;
/// A key has 45 bytes with its newline.
const KEY_FILE_LEN_MAX: u64 = 4096;

/// Reads the configuration file at `path` and the key files it names.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let file = path.display().to_string();
    let text = read_file(path, &file)?;
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    Config::parse(&text, &file, &KeyFiles { folder })
}

/// The path of the control socket, from the configuration file at `path` alone.
pub fn control_socket(path: &Path) -> Result<PathBuf, ConfigError> {
    let file = path.display().to_string();
    super::control_socket_of(&read_file(path, &file)?, &file)
}

fn read_file(path: &Path, file: &str) -> Result<String, ConfigError> {
    read_text(path).map_err(|message| ConfigError {
        file: file.to_owned(),
        faults: vec![Fault { position: Position::default(), key: String::new(), message }],
    })
}

fn read_text(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot read the file: {error}");
    let file = File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > FILE_LEN_MAX {
        return Err(format!("the file is longer than {FILE_LEN_MAX} bytes: is it the right one?"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..good].iter().filter(|&&byte| byte == b'\n').count();
        format!("line {line} is not UTF-8 text")
    })
}

/// Key files beside the configuration file.
struct KeyFiles {
    folder: PathBuf,
}

impl KeySource for KeyFiles {
    fn read(&self, file: &str) -> Result<Zeroizing<String>, KeyFileError> {
        read_key_file(&self.folder.join(file))
    }
}

/// Reads a key file that nobody but its owner has access to.
pub fn read_key_file(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    let shown = path.display().to_string();
    let failed = |error: std::io::Error| {
        if error.kind() == ErrorKind::NotFound {
            return KeyFileError::NotFound { path: shown.clone() };
        }
        KeyFileError::Unreadable { path: shown.clone(), reason: error.to_string() }
    };
    let file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        let reason = "it is not a regular file".into();
        return Err(KeyFileError::Unreadable { path: shown, reason });
    }
    let mode = about.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::ReadableByOthers { path: shown, mode });
    }
    let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_LEN_MAX as usize));
    file.take(KEY_FILE_LEN_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn minimal(folder: &Path) -> PathBuf {
        let path = folder.join("mit.yaml");
        let text = "node: {name: mit, private_key_file: mit.key}\n\
                    tun: {address: 10.77.0.1/24}\n\
                    uplinks: [{name: isp1, interface: wan0, listen: 192.0.2.1:4710}]\n\
                    peers: []\n";
        fs::write(&path, text).unwrap();
        path
    }

    fn write_key(folder: &Path, mode: u32) {
        let path = folder.join("mit.key");
        fs::write(&path, "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn key_files_are_found_beside_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let path = minimal(folder.path());
        write_key(folder.path(), 0o600);
        let config = load(&path).unwrap();
        assert_eq!(config.node.public_key, config.node.private_key.public_key());
        assert_eq!(config.control.socket, Path::new("/run/rongate/mit.sock"));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = minimal(folder.path());
        for mode in [0o644, 0o640, 0o604, 0o620] {
            write_key(folder.path(), mode);
            let key = folder.path().join("mit.key").display().to_string();
            let expected = format!(
                "{}:1:37: node.private_key_file: others may access the file `{key}` (mode \
                 {mode:04o}): run `chmod 600 {key}`, and make a new key if somebody may have \
                 read it",
                path.display()
            );
            assert_eq!(load(&path).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_missing_key_is_named_with_its_whole_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = minimal(folder.path());
        let message = load(&path).unwrap_err().to_string();
        let key = folder.path().join("mit.key").display().to_string();
        assert!(message.contains(&format!("there is no file `{key}`: make one")), "{message}");
    }

    #[test]
    fn files_that_are_no_text_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("binary.yaml");
        fs::write(&path, b"node:\n  name: \xff\xfe\n").unwrap();
        let message = load(&path).unwrap_err().to_string();
        assert_eq!(message, format!("{}: line 2 is not UTF-8 text", path.display()));
        let message = load(folder.path()).unwrap_err().to_string();
        assert!(message.contains("cannot read the file"), "{message}");
    }
}
