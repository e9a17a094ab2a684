//! One participant of the overlay as a pure state machine.

mod prefixes;
