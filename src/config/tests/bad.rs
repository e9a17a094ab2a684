//! Bad files and what is said about them, word by word.

mod form;
mod places;
mod service;

use super::*;

/// What is replaced by what in [`BASE`], and the message; each of its lines begins with the name
/// of the file, which is left out here.
type Case = (&'static str, &'static str, &'static str);

fn check(cases: &[Case]) {
    let mut wrong = String::new();
    for (from, to, expected) in cases {
        let message = match parse(&changed(from, to)) {
            Ok(_) => "valid".to_owned(),
            Err(error) => error.to_string().replace("mit.yaml:", "").replace("\n ", "\n"),
        };
        if message.trim_start() != *expected {
            wrong += &format!("`{from}` -> `{to}`:\n{message}\nbut expected:\n{expected}\n\n");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn all_faults_are_shown_at_once_in_the_order_of_the_file() {
    let text = BASE
        .replace("name: mit", "nmae: mit")
        .replace("[10.77.0.1/24]", "{v4: 10.77.0.1}")
        .replace("[10.2.0.0/16]", "[10.1.0.0/16, 10.2.0.0]")
        .replace("enabled: true", "enabled: on");
    let error = parse(&format!("{text}log: loud\n")).unwrap_err();
    let shown: Vec<_> =
        error.faults.iter().map(|fault| (fault.position.line, fault.key.as_str())).collect();
    assert_eq!(
        shown,
        [
            (2, "node.nmae"),
            (5, "tun.address"),
            (14, "egress.enabled"),
            (21, "peers[0].networks[0]"),
            (21, "peers[0].networks[1]"),
            (27, "log"),
        ]
    );
    assert!(error.to_string().starts_with("mit.yaml:2:3: node.nmae: unknown key"), "{error}");
}

#[test]
fn any_text_is_refused_without_a_panic() {
    let mut text = BASE.to_owned();
    while text.pop().is_some() {
        let _ = parse(&text);
        let _ = parse(&format!("{text}}}"));
        let _ = parse(&format!("{text}: ["));
    }
}

proptest::proptest! {
    /// Pieces of configurations in any order, and with anything between them.
    #[test]
    fn no_text_makes_a_panic(
        pieces in proptest::collection::vec((0..BASE.len(), 0..40_usize, "[ \\n:,\\-\\[\\]{}#&*!|>'\"%@`a-z0-9~?\\t]{0,6}"), 0..12)
    ) {
        let text: String = pieces
            .iter()
            .map(|(start, len, between)| {
                BASE.get(*start..(start + len).min(BASE.len())).unwrap_or("").to_owned() + between
            })
            .collect();
        let _ = parse(&text);
        let _ = parse(&format!("{BASE}{text}"));
    }
}
