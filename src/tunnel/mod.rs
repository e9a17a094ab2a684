//! The encrypted association of two nodes.
