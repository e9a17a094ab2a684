//! Configurations: whatever the text, an answer; what was accepted comes back as it was written.

use rongate::config::{Config, KeyFileError, KeySource};
use zeroize::Zeroizing;

struct AlwaysTheSame;

impl KeySource for AlwaysTheSame {
    fn read(&self, file: &str) -> Result<Zeroizing<String>, KeyFileError> {
        match file {
            "none" => Err(KeyFileError::NotFound { path: file.to_owned() }),
            "bad" => Ok(Zeroizing::new("no key".to_owned())),
            _ => Ok(Zeroizing::new("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=".to_owned())),
        }
    }
}

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(text, "fuzzed.yaml", &AlwaysTheSame) {
        Ok(config) => {
            let written = serde_yaml::to_string(&config).expect("it has a form");
            let again = Config::parse(&written, "written.yaml", &AlwaysTheSame);
            let again = again.unwrap_or_else(|error| panic!("{error}\n{written}"));
            assert!(again == config, "{written}");
        }
        Err(error) => {
            let told = error.to_string();
            assert!(told.starts_with("fuzzed.yaml"), "{told}");
        }
    }
}
