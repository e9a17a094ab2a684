//! All that touches the host: TUN, sockets, clock, netlink.
