//! The process: event loop, control thread, kernel set-up.
