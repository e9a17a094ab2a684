//! The command line as operators and their scripts meet it: files, streams, exit status.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn rongate(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rongate"));
    command.current_dir(folder).args(arguments).env_remove("RUST_LOG");
    command
}

/// Exit status, stdout and stderr.
fn run(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    told(rongate(folder, arguments).output().unwrap())
}

fn run_with_input(folder: &Path, arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut command = rongate(folder, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    told(child.wait_with_output().unwrap())
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn write_config(folder: &Path, extra: &str) {
    let text = format!(
        "node: {{name: mit, private_key_file: mit.key}}\n\
         tun: {{address: 10.77.0.1/24}}\n\
         uplinks: [{{name: isp1, interface: wan0, listen: 192.0.2.1:4710}}]\n\
         peers: []\n\
         control: {{socket: {}}}\n\
         {extra}",
        folder.join("mit.sock").display()
    );
    fs::write(folder.join("mit.yaml"), text).unwrap();
}

#[test]
fn keys_are_made_once_and_for_the_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (status, public, words) = run(folder, &["keygen", "--out", "mit.key"]);
    assert_eq!((status, public.len(), words.as_str()), (0, 45, ""));
    let file = folder.join("mit.key");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    let private = fs::read_to_string(&file).unwrap();
    assert_eq!(run_with_input(folder, &["pubkey"], &private), (0, public, String::new()));

    let (status, data, words) = run(folder, &["keygen", "--out", "mit.key"]);
    assert_eq!((status, data.as_str()), (1, ""));
    assert!(words.contains("mit.key exists, and keys are never overwritten"), "{words}");
    assert_eq!(fs::read_to_string(&file).unwrap(), private);
}

#[test]
fn keygen_without_a_file_keeps_data_and_words_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (status, private, words) = run(folder.path(), &["keygen"]);
    assert_eq!(status, 0);
    let (_, public, _) = run_with_input(folder.path(), &["pubkey"], &private);
    assert_eq!(words, format!("public key: {public}"));
    assert_ne!(run(folder.path(), &["keygen"]).1, private, "keys differ");
    let (status, data, words) = run_with_input(folder.path(), &["pubkey"], "no key\n");
    assert_eq!((status, data.as_str()), (1, ""));
    assert!(words.starts_with("rongate: stdin holds no private key"), "{words}");
}

#[test]
fn check_tells_faults_and_ends_with_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    run(folder, &["keygen", "--out", "mit.key"]);
    write_config(folder, "");
    let (status, data, words) = run(folder, &["check", "--config", "mit.yaml"]);
    assert_eq!((status, data.as_str()), (0, ""));
    assert!(words.starts_with("mit.yaml: valid: node mit (id "), "{words}");

    write_config(folder, "eggress: {}\nlog: loud\n");
    let expected = "mit.yaml:6:1: eggress: unknown key: did you mean `egress`?\n\
                    mit.yaml:7:6: log: unknown level `loud`: possible here are `off`, `error`, \
                    `warn`, `info`, `debug`, `trace`\n";
    for command in ["check", "run"] {
        let outcome = run(folder, &[command, "--config", "mit.yaml"]);
        assert_eq!(outcome, (2, String::new(), expected.to_owned()));
    }
    let (status, _, words) = run(folder, &["check", "--config", "none.yaml"]);
    assert_eq!(status, 2);
    assert!(words.starts_with("none.yaml: cannot read the file: No such file"), "{words}");
}

#[test]
fn check_prints_what_is_in_effect() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (_, public, _) = run(folder, &["keygen", "--out", "mit.key"]);
    write_config(folder, "log: debug\n");
    let print = |file: &str| run(folder, &["check", "--config", file, "--print"]);
    let (status, yaml, words) = print("mit.yaml");
    assert_eq!(status, 0);
    assert!(words.starts_with("mit.yaml: valid: "), "{words}");
    assert!(yaml.starts_with("node:\n  name: mit\n  private_key_file: mit.key\n"), "{yaml}");
    assert!(yaml.ends_with("\nlog: debug\n"), "{yaml}");
    let private = fs::read_to_string(folder.join("mit.key")).unwrap();
    assert!(!yaml.contains(private.trim()) && !yaml.contains(public.trim()), "{yaml}");

    fs::write(folder.join("again.yaml"), &yaml).unwrap();
    assert_eq!(print("again.yaml").1, yaml);
    let (status, json, _) = run(folder, &["check", "--config", "mit.yaml", "--print", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((status, &json["nat"]["udp"]), (0, &"5m".into()));

    fs::write(folder.join("faulty.yaml"), "log: debug\n").unwrap();
    let (status, data, _) = print("faulty.yaml");
    assert_eq!((status, data.as_str()), (2, ""));
}

#[test]
fn wrong_usage_ends_with_status_2() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["frobnicate"][..], &["run"], &["flows", "--limit", "0"], &[]] {
        let (status, data, words) = run(folder.path(), arguments);
        assert_eq!((status, data.as_str()), (2, ""), "{arguments:?}");
        assert!(!words.is_empty());
    }
    let (status, help, _) = run(folder.path(), &["help", "keygen"]);
    assert_eq!(status, 0);
    assert!(help.contains("Examples:\n  rongate keygen --out mit.key"), "{help}");
}

/// Answers each connection with the next reply, and returns the requests.
fn serve(folder: &Path, replies: &'static [&'static str]) -> std::thread::JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(folder.join("mit.sock")).unwrap();
    std::thread::spawn(move || {
        let answer = |reply: &&str| {
            let (stream, _) = listener.accept().unwrap();
            let mut stream = BufReader::new(stream);
            let mut request = String::new();
            stream.read_line(&mut request).unwrap();
            stream.get_mut().write_all(reply.as_bytes()).unwrap();
            request
        };
        replies.iter().map(answer).collect()
    })
}

#[test]
fn a_running_gateway_is_asked_over_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_config(folder, "");
    let server = serve(
        folder,
        &[
            "{\"ok\":{\"total\":0,\"offset\":7,\"flows\":[],\"extra\":1}}\n",
            "{\"error\":\"nothing was applied\"}\n",
            "{\"ok\":{\"applied\":[\"log\"]}}\n",
            "{\"ok\":{\"subject\":\"10.2.0.5\",\"steps\":[]}}\n",
            "",
            "nonsense\n",
        ],
    );
    let flows = ["flows", "--json", "--offset", "7", "--control", "mit.sock"];
    let (status, data, _) = run(folder, &flows);
    let data: serde_json::Value = serde_json::from_str(&data).unwrap();
    assert_eq!((status, &data["extra"]), (0, &1.into()), "--json shows all there is");

    // The key file does not exist: the socket is found without it.
    let refused = run(folder, &["reload", "--config", "mit.yaml"]);
    assert_eq!(refused, (1, String::new(), "rongate: nothing was applied\n".into()));
    assert_eq!(
        run(folder, &["reload", "--config", "mit.yaml"]),
        (0, "log\n".into(), String::new())
    );
    let (status, data, _) = run(folder, &["explain", "10.2.0.5", "--control", "mit.sock"]);
    assert_eq!((status, data.as_str()), (0, "10.2.0.5\n"));
    let (status, _, words) = run(folder, &["status", "--control", "mit.sock"]);
    assert_eq!(status, 1);
    assert!(words.contains("it closed the connection"), "{words}");
    let (status, _, words) = run(folder, &["status", "--control", "mit.sock"]);
    assert_eq!(status, 1);
    assert!(words.contains("the gateway's answer is not understood"), "{words}");

    let requests = server.join().unwrap();
    assert_eq!(requests[0], "{\"command\":\"flows\",\"limit\":100,\"offset\":7}\n");
    assert_eq!(requests[1], "{\"command\":\"reload\"}\n");
    assert_eq!(requests[3], "{\"command\":\"explain\",\"subject\":\"10.2.0.5\"}\n");
}

#[test]
fn without_a_gateway_there_is_one_clear_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let (status, data, words) = run(folder.path(), &["status", "--control", "none.sock"]);
    assert_eq!((status, data.as_str()), (1, ""));
    assert_eq!(words, "rongate: no gateway runs here: there is no socket none.sock\n");
    drop(UnixListener::bind(folder.path().join("stale.sock")).unwrap());
    let (status, _, words) = run(folder.path(), &["peers", "--control", "stale.sock"]);
    assert_eq!(status, 1);
    assert_eq!(words, "rongate: no gateway runs here: nobody listens at stale.sock\n");
}

#[test]
fn a_closed_pipe_is_silent() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = rongate(folder.path(), &["keygen"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(words.lines().count(), 1, "only the public key: {words}");
}
