//! Style and structure that the compiler does not check: the direction of dependencies, the purity
//! of the core, leftovers, and the length of files. Each message says what to do instead.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

/// The rows of the house, lowest first; a module may use its own row's base modules and lower rows.
const BASE: &[&str] = &[
    "addr",
    "batch",
    "float",
    "id",
    "metric",
    "packet",
    "path",
    "rng",
    "table",
    "telemetry",
    "time",
    "wheel",
    "wire",
];
const MIDDLE: &[&str] = &["flow", "link", "nat", "routing", "tunnel"];
const SHELL: &[&str] = &["cli", "config", "gateway", "io", "sim"];
/// The only places that may touch sockets, files, clocks or entropy.
const TOUCH_HOST: &[&str] = &["cli", "gateway", "io", "main"];

struct Source {
    path: PathBuf,
    module: String,
    /// The text without comments and without the test module at the end.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let relative = path.strip_prefix(&root).unwrap();
            let first = relative.iter().next().unwrap().to_str().unwrap();
            let is_test = relative.iter().any(|part| part == "tests" || part == "tests.rs");
            let body = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let code = if is_test { String::new() } else { without_comments(body) };
            Source { module: first.trim_end_matches(".rs").to_owned(), code, path }
        })
        .collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

fn without_comments(text: &str) -> String {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| line.split(" // ").next().unwrap())
        .collect::<Vec<_>>()
        .join("\n")
}

fn allowed(module: &str) -> Vec<&'static str> {
    let mut allowed = BASE.to_vec();
    if module == "node" || SHELL.contains(&module) || module == "main" || module == "lib" {
        allowed.extend(MIDDLE);
        allowed.push("node");
    }
    if SHELL.contains(&module) || module == "main" || module == "lib" {
        allowed.extend(SHELL);
    }
    allowed
}

/// The modules that a text names as `crate::module`.
fn used(code: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let inside = rest.strip_prefix('{').map(|r| r.split('}').next().unwrap_or(r));
        for item in inside.unwrap_or(rest).split(',').take(if inside.is_some() { 99 } else { 1 }) {
            let name: String =
                item.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if name.starts_with(|c: char| c.is_ascii_lowercase()) {
                names.push(name);
            }
        }
    }
    names
}

#[test]
fn dependencies_point_one_way() {
    let mut faults = Vec::new();
    for source in sources() {
        let own = source.module.as_str();
        let known = BASE.contains(&own)
            || MIDDLE.contains(&own)
            || SHELL.contains(&own)
            || ["node", "main", "lib"].contains(&own);
        if !known {
            faults
                .push(format!("{}: give the module a row in tests/tidy.rs", source.path.display()));
        }
        let allowed = allowed(own);
        for name in used(&source.code) {
            if name != own && !allowed.contains(&name.as_str()) {
                faults.push(format!(
                    "{}: `{own}` may not use `{name}`; move what both need to a lower row, or let `node` compose",
                    source.path.display()
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_core_touches_no_host() {
    const FORBIDDEN: &[(&str, &str)] = &[
        ("std::fs", "files belong to io/ or gateway/"),
        ("std::thread", "the core is single-threaded; threads belong to gateway/"),
        ("std::process", "processes belong to io/ or gateway/"),
        ("std::env", "settings arrive as arguments"),
        ("std::time::Instant", "use crate::time::Instant and take it as an argument"),
        ("SystemTime", "take a WallClock as an argument"),
        ("UdpSocket", "sockets belong to io/"),
        ("getrandom", "chance comes from crate::rng"),
        ("mio::", "the event loop belongs to gateway/"),
        ("nix::", "system calls belong to io/"),
        ("libc::", "system calls belong to io/"),
        ("log::", "the core reports events; the shell logs"),
        ("println!", "output belongs to cli/"),
        (".ln()", "use crate::float: std's differs between machines"),
        (".exp()", "use crate::float: std's differs between machines"),
        (".powf(", "use crate::float: std's differs between machines"),
        (".log10()", "use crate::float: std's differs between machines"),
    ];
    let mut faults = Vec::new();
    for source in sources() {
        let shell =
            TOUCH_HOST.contains(&source.module.as_str()) || source.path.ends_with("config/load.rs");
        if shell {
            continue;
        }
        for (word, advice) in FORBIDDEN {
            if source.code.contains(word) {
                faults.push(format!("{}: {word}: {advice}", source.path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn nothing_is_left_undone() {
    // Spelled in two halves, so that this file does not find itself.
    let words = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    let mut faults = Vec::new();
    for source in sources() {
        let text = fs::read_to_string(&source.path).unwrap();
        for word in words {
            if text.contains(word) {
                faults.push(format!("{}: finish or remove: {word}", source.path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn files_have_one_purpose() {
    const LINES_MAX: usize = 500;
    let mut faults = Vec::new();
    for source in sources() {
        let text = fs::read_to_string(&source.path).unwrap();
        let lines = text.split("#[cfg(test)]\nmod tests").next().unwrap().lines().count();
        if lines > LINES_MAX && !source.code.is_empty() {
            faults.push(format!(
                "{}: {lines} lines without tests; split it by purpose",
                source.path.display()
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_dependency_check_can_fail() {
    assert_eq!(used("use crate::nat::Nat; crate::{flow::A, time}"), ["nat", "flow", "time"]);
    assert!(!allowed("flow").contains(&"nat"));
    assert!(!allowed("node").contains(&"gateway"));
}

#[test]
fn the_tests_that_the_documentation_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = ["docs/nat.md", "docs/nat-vpp.md"];
    let text = pages.map(|page| fs::read_to_string(root.join(page)).unwrap()).concat();
    let mut files = Vec::new();
    for dir in ["src", "tests", "netns-tests/tests"] {
        collect(&root.join(dir), &mut files);
    }
    let code: Vec<_> = files
        .iter()
        .map(|path| (path.file_stem().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
        .collect();
    let mut named = 0;
    let mut missing = Vec::new();
    for quoted in text.split('`').skip(1).step_by(2) {
        let Some((file, test)) = quoted.split_once("::") else { continue };
        if !test.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            continue;
        }
        named += 1;
        let head = format!("fn {test}(");
        if !code.iter().any(|(stem, text)| stem == file && text.contains(&head)) {
            missing.push(quoted);
        }
    }
    assert!(
        named > 50,
        "the page names its tests like `lifetimes::an_echo_lives_a_minute`: {named}"
    );
    assert!(missing.is_empty(), "docs/nat*.md name tests that do not exist: {missing:?}");
}

/// `scripts/mutants.sh` takes long to find out what this says at once.
#[test]
fn deliberate_faults_fit_the_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = fs::read_to_string(root.join("tests/mutants.txt")).unwrap();
    let code: String = sources().iter().map(|s| fs::read_to_string(&s.path).unwrap()).collect();
    let (mut file, mut faults) = (String::new(), 0);
    for line in list.lines() {
        if line.starts_with("src/") {
            file = fs::read_to_string(root.join(line)).unwrap();
        } else if let Some(old) = line.strip_prefix("- ") {
            let found = file.matches(old).count();
            assert_eq!(found, 1, "tests/mutants.txt: found {found} times, not once: {old}");
            faults += 1;
        } else if let Some(catcher) = line.strip_prefix("= ") {
            let (binary, test) = catcher.split_once(' ').unwrap();
            let name = format!("fn {}(", test.rsplit("::").next().unwrap());
            let module = test.split("::").next().unwrap();
            let files = [format!("tests/{binary}.rs"), format!("tests/{binary}/{module}.rs")];
            let mut others =
                files.iter().map(|f| fs::read_to_string(root.join(f)).unwrap_or_default());
            let found = code.contains(&name) || others.any(|text| text.contains(&name));
            assert!(found, "tests/mutants.txt: there is no {test} in {binary}");
        }
    }
    assert!(faults >= 20, "{faults} deliberate faults");
}
