//! The configuration as written: which keys there are, and whether each is one value, a list or a
//! section. What the values mean is up to `validate`. Every field is optional here; a key that
//! must be there is asked for by `validate`, which can say where.

use serde::Deserialize;

use super::de::At;

/// One value, as text.
pub(super) type Text = Option<At<String>>;
/// A list of such values.
pub(super) type Texts = Option<At<Vec<At<String>>>>;

macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident { $($key:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
            #[serde(deny_unknown_fields)]
            pub(super) struct $name {
                $(pub(super) $key: Option<At<$type>>,)*
            }
        )*
    };
}

sections! {
    /// The whole file.
    RawConfig {
        node: RawNode,
        control: RawControl,
        http: RawHttp,
        tun: RawTun,
        lan: RawLan,
        uplinks: Vec<At<RawUplink>>,
        egress: RawEgress,
        relay: RawRelay,
        peers: Vec<At<RawPeer>>,
        classes: Vec<At<RawClass>>,
        internet: RawInternet,
        probing: RawProbing,
        routing: RawRouting,
        flows: RawFlows,
        nat: RawNat,
        nat_log: RawNatLog,
        tunnel: RawTunnel,
        log: String,
    }

    RawNode {
        name: String,
        private_key_file: String,
        preshared_key_file: String,
        state_dir: String,
    }

    RawControl {
        socket: String,
    }

    RawHttp {
        listen: String,
    }

    RawTun {
        name: String,
        address: Vec<At<String>>,
        mtu: String,
    }

    RawLan {
        interfaces: Vec<At<String>>,
        networks: Vec<At<String>>,
        bypass: Vec<At<String>>,
        on_failure: String,
    }

    RawUplink {
        name: String,
        interface: String,
        listen: String,
        gso: String,
    }

    RawEgress {
        enabled: bool,
        mode: String,
        pool: Vec<At<String>>,
        outside: Vec<At<String>>,
        ports: String,
        r#for: Vec<At<String>>,
        deny: Vec<At<String>>,
        allow: Vec<At<String>>,
    }

    RawRelay {
        r#for: Vec<At<String>>,
        rate: String,
        refuse: Vec<At<String>>,
    }

    RawPeer {
        name: String,
        public_key: String,
        endpoints: Vec<At<String>>,
        address: Vec<At<String>>,
        networks: Vec<At<String>>,
        relay: bool,
        egress: bool,
    }

    RawClass {
        name: String,
        r#match: RawMatch,
        metric: String,
        redundancy: u64,
        set_dscp: String,
        tag: u64,
        only: RawScope,
        avoid: RawScope,
        group: String,
        rate: String,
        priority: String,
        multipath: bool,
    }

    RawScope {
        peers: Vec<At<String>>,
        relays: Vec<At<String>>,
        uplinks: Vec<At<String>>,
        exits: Vec<At<String>>,
    }

    RawMatch {
        protocol: String,
        dscp: String,
        source: Vec<At<String>>,
        destination: Vec<At<String>>,
        source_ports: Vec<At<String>>,
        destination_ports: Vec<At<String>>,
        flow_label: String,
        interface: Vec<At<String>>,
    }

    RawInternet {
        via: Vec<At<String>>,
        via_ipv6: Vec<At<String>>,
        nat64: String,
        servers: Vec<At<String>>,
    }

    RawProbing {
        budget: String,
    }

    RawRouting {
        smoothing: String,
        free_loss: f64,
        loss_penalty: String,
        least_loss: f64,
        margin: f64,
        margin_latency: String,
        margin_jitter: f64,
        margin_loss: f64,
        margin_throughput: f64,
        hold_down: String,
        backoff: RawBackoff,
        copies: String,
    }

    RawBackoff {
        base: String,
        factor: u64,
        longest: String,
        forget: String,
    }

    RawFlows {
        max: u64,
        max_per_host: u64,
    }

    RawNat {
        max: u64,
        max_per_host: u64,
        site_percent: u64,
        tcp_per_host: u64,
        udp_per_host: u64,
        icmp_per_host: u64,
        rate_per_host: u64,
        tcp_established: String,
        tcp_opening: String,
        tcp_transitory: String,
        udp: String,
        udp_ports: Vec<At<String>>,
        udp_inbound_refresh: bool,
        icmp: String,
        other: String,
        quarantine: String,
        mapping: String,
        mapping_tcp: String,
        mapping_udp: String,
        mapping_icmp: String,
        filtering: String,
        filtering_tcp: String,
        filtering_udp: String,
        filtering_icmp: String,
        reuse: String,
        parity: bool,
        refusal: String,
        unsolicited: String,
        pcp: bool,
        bypass: Vec<At<String>>,
        forwards: Vec<At<RawForward>>,
        prefixes: Vec<At<RawPrefixes>>,
    }

    RawForward {
        protocol: String,
        port: u64,
        address: String,
        to: String,
    }

    RawPrefixes {
        inside: String,
        outside: String,
    }

    RawNatLog {
        file: String,
        syslog: String,
    }

    RawTunnel {
        suites: Vec<At<String>>,
    }
}
