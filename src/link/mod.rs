//! One measured path to a peer: probes, estimators, liveness.
