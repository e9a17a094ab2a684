//! Which way: link-state database, path metrics, selection, hysteresis.
