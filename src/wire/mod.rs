//! Our datagrams: checked views and plain representations.
