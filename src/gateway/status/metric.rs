//! What programs say of paths.

use serde::{Deserialize, Serialize};

/// All values that are in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AppValueList {
    /// By peer and path.
    pub values: Vec<AppValueStatus>,
}

/// What a program says of one path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AppValueStatus {
    /// The peer that the path leads to.
    pub peer: String,
    /// The relay's name; null for a direct path.
    pub via: Option<String>,
    /// The name of our uplink, for a direct path.
    pub uplink: Option<String>,
    /// The value; less is better.
    pub value: f64,
    /// Seconds until it is forgotten.
    pub expires_s: f64,
}
