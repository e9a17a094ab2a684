//! How an address is rewritten: mappings, sessions, ports.
